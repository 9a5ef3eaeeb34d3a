"""The dense network: vanilla PINN and Meta-PINN."""

from collections.abc import Mapping
from typing import Any

import chex
import jax
import jax.numpy as jnp
from flax import linen as nn

from meta_lrpinn.models import layers
from meta_lrpinn.models.layers import Jets

# Nested, the leaves arrays.
Parameters = Mapping[str, Any]


class PINN(layers.SineNetwork):
    """A dense sine network of position, source position and, optionally, frequency.

    The weights of the hidden layers start uniform in ±√(6/width), which keeps the scale
    of sine activations with depth (Sitzmann et al., 2020).

    Attributes, beside those of `SineNetwork`:
        frequency_input: Whether the normalised frequency is an input.
    """

    frequency_input: bool = False

    def setup(self):
        scales = self.first_scales + [1.0] * self.frequency_input
        self.first = layers.plane_wave_layer(self.width, scales)
        uniform = nn.initializers.variance_scaling(2.0, "fan_in", "uniform")
        self.hidden = [nn.Dense(width, kernel_init=uniform) for width in self.widths]
        self.last = layers.small_output_layer()

    def __call__(
        self, points: jax.Array, source: jax.Array, frequency: jax.Array | None = None
    ) -> jax.Array:
        """The output (n, 2); for the arguments see `meta_lrpinn.models`."""
        return self.last(self.features(points, source, frequency))

    def features(
        self, points: jax.Array, source: jax.Array, frequency: jax.Array | None = None
    ) -> jax.Array:
        """The last hidden layer, (n, number_of_features)."""
        return self._hidden(points, source, frequency, 0).value

    def jets(
        self, points: jax.Array, source: jax.Array, frequency: jax.Array | None = None
    ) -> Jets:
        """The output (n, 2) with its derivatives along each axis."""
        hidden = self._hidden(points, source, frequency, self.ndim)
        return layers.dense_jets(self.last, hidden)

    def _hidden(
        self, points: jax.Array, source: jax.Array, frequency: jax.Array | None, axes: int
    ) -> Jets:
        """The last hidden layer with its derivatives along the first so many axes."""
        chex.assert_axis_dimension(points, -1, self.ndim)
        inputs = layers.network_input(points, source)
        if self.frequency_input:
            if frequency is None:
                raise ValueError("a network with frequency_input needs a frequency")
            column = layers.normalise_frequency(frequency)[..., None]
            column = jnp.broadcast_to(column, (*inputs.shape[:-1], 1))
            inputs = jnp.concatenate([inputs, column], axis=-1)
        jets = layers.first_layer_jets(self.first, inputs, axes)
        for layer in self.hidden:
            jets = layers.sine_jets(layers.dense_jets(layer, jets))
        return jets


def initial_parameters(model: nn.Module, key: jax.Array) -> Parameters:
    """Draws the parameters of a network called with (points, source, frequency).

    Args:
        model: A `MetaLRPINN`, `PINN` or `PlaneWaves`.
        key: Random key.

    Returns:
        Its parameter tree: `model.apply({"params": tree}, points, source, frequency)`.
    """
    point, source = jnp.zeros((1, model.ndim)), jnp.zeros(model.ndim - 1)
    return model.init(key, point, source, jnp.ones(()))["params"]
