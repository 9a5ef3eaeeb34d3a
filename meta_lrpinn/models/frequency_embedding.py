"""The frequency embedding hypernetwork (FEH): from frequency to singular values."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from meta_lrpinn.models.activations import sine, uniform_phase
from meta_lrpinn.models.low_rank import check_initialisation, layer_ranks

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
            need; "xavier" is the published choice and starts near zero.
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
        xavier = nn.initializers.xavier_normal()
        zeros = nn.initializers.zeros

        hidden = normalise_frequency(frequency)[..., None]
        for index in range(self.hidden):
            # Uniform phases and a few radians over the band: no dead or equal units.
            spread = (nn.initializers.normal(2.0), uniform_phase)
            kept = (nn.initializers.variance_scaling(2.0, "fan_in", "uniform"), zeros)
            kernel_init, bias_init = spread if index == 0 else kept
            hidden = nn.Dense(
                self.width,
                kernel_init=xavier if published else kernel_init,
                bias_init=zeros if published else bias_init,
                param_dtype=self.param_dtype,
                name=f"dense_{index}",
            )(hidden)
            hidden = sine(hidden)

        small = nn.initializers.variance_scaling(0.01, "fan_in", "normal")
        unit = nn.initializers.constant(_UNIT_GELU_BIAS)
        heads = (
            nn.Dense(
                rank,
                kernel_init=xavier if published else small,
                bias_init=zeros if published else unit,
                param_dtype=self.param_dtype,
                name=f"head_{layer}",
            )(hidden)
            for layer, rank in enumerate(layer_ranks(self.rank, self.depth))
        )
        return tuple(nn.gelu(head, approximate=False) for head in heads)


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
