"""Features side by side are those of the parts."""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from experiments import random_waves
from experiments.enriched import Enriched
from meta_lrpinn import models


def test_features_are_those_of_both_parts():
    network = models.make_meta_lrpinn(width=8, depth=1, rank=3, layer_fraction=0.5)
    params = models.initial_parameters(network, jax.random.key(0))
    waves = random_waves.plane_wave_parameters(jax.random.key(1), 5, 20.0)
    both = Enriched(network=network, waves=random_waves.PlaneWaves(number=5))
    arguments = (jax.random.uniform(jax.random.key(2), (7, 2)), jnp.ones(1), 5.0)
    parameters = {"network": params, "waves": waves}
    features = both.apply({"params": parameters}, *arguments, method="features")
    chex.assert_shape(features, (7, 13))
    for part, own, columns in (
        (network, params, slice(0, 8)),
        (random_waves.PlaneWaves(number=5), waves, slice(8, 13)),
    ):
        expected = part.apply({"params": own}, *arguments, method="features")
        np.testing.assert_allclose(features[:, columns], expected, rtol=1e-6)
    assert both.ndim == 2 and both.layer_fraction == 0.5
