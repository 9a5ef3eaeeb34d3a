"""Features of two networks side by side."""

import jax
import jax.numpy as jnp
from flax import linen as nn


class Enriched(nn.Module):
    """The features of a network and of further waves, for exact solves over both.

    Its parameters are {"network": ..., "waves": ...}, those of its parts.

    Attributes:
        network: Any network with features, as a `MetaLRPINN`.
        waves: Another one, as `PlaneWaves`.
    """

    network: nn.Module
    waves: nn.Module

    @property
    def ndim(self) -> int:
        """Dimensions of space."""
        return self.waves.ndim

    @property
    def layer_fraction(self) -> float:
        """Thickness of the absorbing layer that the network's features are for."""
        return self.network.layer_fraction

    def features(
        self, points: jax.Array, source: jax.Array, frequency: jax.Array
    ) -> jax.Array:
        """Both features.

        Args:
            points: (n, ndim) in km.
            source: Horizontal position of the source, (ndim − 1,) [km].
            frequency: Frequency, () [Hz].

        Returns:
            (n, sum of both widths).
        """
        parts = (self.network, self.waves)
        return jnp.concatenate(
            [part.features(points, source, frequency) for part in parts], axis=-1
        )
