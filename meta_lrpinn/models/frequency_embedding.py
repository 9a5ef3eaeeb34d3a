"""The frequency embedding hypernetwork (FEH): from frequency to singular values."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from meta_lrpinn.models.activations import sine, uniform_phase
from meta_lrpinn.models.low_rank import check_initialisation, layer_ranks, plain_dense

MINIMUM_FREQUENCY = 2.0  # Hz
MAXIMUM_FREQUENCY = 20.0  # Hz

# The root of gelu(b) = 1: with this bias the heads start at singular values of one.
_UNIT_GELU_BIAS = 1.1444507184


def normalise_frequency(
    frequency: jax.Array,
    minimum: float = MINIMUM_FREQUENCY,
    maximum: float = MAXIMUM_FREQUENCY,
) -> jax.Array:
    """Maps [minimum, maximum] linearly to [-1, 1].

    Args:
        frequency: Frequency in Hz, of any shape.
        minimum: Frequency that becomes -1, in Hz.
        maximum: Frequency that becomes 1, in Hz.

    Returns:
        Normalised frequency, of the same shape.
    """
    frequency = jnp.asarray(frequency)
    return (2.0 * frequency - (maximum + minimum)) / (maximum - minimum)


class FrequencyEmbedding(nn.Module):
    """The hypernetwork that gives every hidden layer its singular values.

    Layers of sine act on the normalised frequency; then each hidden layer of the
    low-rank network has one linear head with GELU (Cheng and Alkhalifah, 2025).

    Attributes:
        rank: Number of singular values of every hidden layer, or of each.
        depth: Number of hidden layers of the low-rank network.
        width: Units of each layer of the embedding.
        hidden: Number of its layers.
        initialisation: "orthonormal" starts with all σ near one, as orthonormal factors
            need; "xavier" is the published choice (see `plain_dense`), near zero.
        param_dtype: Type of the parameters.
    """

    rank: int | tuple[int, ...] = 100
    depth: int = 6
    width: int = 80
    hidden: int = 3
    initialisation: str = "orthonormal"
    param_dtype: jax.typing.DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, frequency: jax.Array) -> tuple[jax.Array, ...]:
        """Singular values of all hidden layers.

        Args:
            frequency: Frequency in Hz, of shape () or (n,).

        Returns:
            For each hidden layer σ of shape (rank,) or (n, rank).

        Raises:
            ValueError: if `rank` does not match `depth`, or the initialisation is
                unknown.
        """
        check_initialisation(self.initialisation)
        published = self.initialisation == "xavier"
        hidden = normalise_frequency(frequency)[..., None]
        for index in range(self.hidden):
            make = plain_dense if published else _spread_dense
            inputs = hidden.shape[-1]
            options: Any = {"param_dtype": self.param_dtype, "name": f"dense_{index}"}
            hidden = sine(make(self.width, inputs, **options)(hidden))

        make = plain_dense if published else _unit_dense
        heads = (
            make(rank, self.width, param_dtype=self.param_dtype, name=f"head_{layer}")
            for layer, rank in enumerate(layer_ranks(self.rank, self.depth))
        )
        return tuple(nn.gelu(head(hidden), approximate=False) for head in heads)


def _spread_dense(features: int, inputs: int, **options: Any) -> nn.Dense:
    """A layer of the embedding that has no dead or equal units at the start."""
    if inputs == 1:  # of the frequency: uniform phases and a few radians over the band
        kernel_init, bias_init = nn.initializers.normal(2.0), uniform_phase
    else:
        kernel_init = nn.initializers.variance_scaling(2.0, "fan_in", "uniform")
        bias_init = nn.initializers.zeros
    return nn.Dense(features, kernel_init=kernel_init, bias_init=bias_init, **options)


def _unit_dense(features: int, inputs: int, **options: Any) -> nn.Dense:
    """A head whose singular values, after GELU, start near one."""
    del inputs
    small = nn.initializers.variance_scaling(0.01, "fan_in", "normal")
    unit = nn.initializers.constant(_UNIT_GELU_BIAS)
    return nn.Dense(features, kernel_init=small, bias_init=unit, **options)


class FreeSingularValues(nn.Module):
    """Singular values as parameters: what replaces the hypernetwork once it is pruned.

    Attributes:
        rank: Number of singular values of every hidden layer, or of each.
        depth: Number of hidden layers of the low-rank network.
        param_dtype: Type of the parameters.
    """

    rank: int | tuple[int, ...] = 100
    depth: int = 6
    param_dtype: jax.typing.DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, frequency: jax.Array | None = None) -> tuple[jax.Array, ...]:
        """Singular values of all hidden layers, the same at every frequency.

        Args:
            frequency: Not used; here so that the call is the hypernetwork's.

        Returns:
            For each hidden layer σ of shape (rank,).

        Raises:
            ValueError: if `rank` does not match `depth`.
        """
        ones = nn.initializers.ones
        return tuple(
            self.param(f"hidden_{layer}", ones, (rank,), self.param_dtype)
            for layer, rank in enumerate(layer_ranks(self.rank, self.depth))
        )
