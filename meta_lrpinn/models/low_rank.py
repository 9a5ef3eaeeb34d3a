"""The low-rank layer: a dense layer held as its singular value decomposition."""

import math
from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp
from flax import linen as nn

INITIALISATIONS = ("orthonormal", "xavier")


def check_initialisation(name: str) -> None:
    """Raises ValueError unless `name` is "orthonormal" or "xavier"."""
    if name not in INITIALISATIONS:
        raise ValueError(
            f"initialisation must be one of {', '.join(INITIALISATIONS)}, got {name!r}"
        )


def layer_ranks(rank: int | Sequence[int], depth: int) -> tuple[int, ...]:
    """The rank of every hidden layer.

    Args:
        rank: One rank for all layers, or one for each.
        depth: Number of hidden layers.

    Returns:
        `depth` ranks.

    Raises:
        ValueError: if the number of ranks is not `depth`, or one is not positive.
    """
    ranks = tuple(rank) if isinstance(rank, Sequence) else (rank,) * depth
    if len(ranks) != depth:
        raise ValueError(f"{depth} hidden layers need {depth} ranks, got {len(ranks)}")
    if min(ranks, default=1) < 1:
        raise ValueError(f"rank must be at least 1, got {min(ranks)}")
    return ranks


def plain_dense(
    features: int,
    inputs: int,
    *,
    param_dtype: jax.typing.DTypeLike = jnp.float32,
    name: str | None = None,
) -> nn.Dense:
    """A dense layer that starts as the published ones: weights, biases in ±1/√inputs.

    It is PyTorch's default, which the published network leaves as it is everywhere but
    in U and V (He et al. 2015 with a negative slope of √5).

    Args:
        features: Number of units.
        inputs: Number of inputs, on which the initial biases depend.
        param_dtype: Type of the parameters.
        name: Name of the layer.
    """
    largest = 1 / math.sqrt(inputs)

    def biases(key, shape, dtype):
        return jax.random.uniform(key, shape, dtype, -largest, largest)

    return nn.Dense(
        features,
        kernel_init=nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform"),
        bias_init=biases,
        param_dtype=param_dtype,
        name=name,
    )


def scale_preserving_gain(features: int, rank: int) -> float:
    """The gain at which sine activations keep their scale from layer to layer.

    For orthonormal V the product Vᵀx has rank/in of the energy of x, and orthonormal U
    spreads it over `features` units, so that with σ = 1 and q = mean x² the layer's
    output has mean square gain²·q·rank/features. With gain² = 2·features/rank and the
    sine's mean square (1 − exp(−2s²))/2 at an input of variance s², layers converge to
    s² = 1 − exp(−2s²), that is s = 0.89 before and 0.63 after the sine: the fixed point
    of Sitzmann et al. (2020, SIREN), whose dense weights have the same variance.

    Args:
        features: Number of units of the layer.
        rank: Rank of its weights.

    Returns:
        √(2·features/rank).
    """
    return math.sqrt(2.0 * features / rank)


def default_gain(features: int, rank: int, initialisation: str) -> float:
    """`scale_preserving_gain` for "orthonormal"; 1 for "xavier", as published."""
    check_initialisation(initialisation)
    return 1.0 if initialisation == "xavier" else scale_preserving_gain(features, rank)


class LowRankDense(nn.Module):
    """A layer without bias whose weights are W = gain · U diag(σ) Vᵀ.

    The singular values σ come in with the data; U (features, rank) and V (in, rank)
    are the layer's parameters (Cheng and Alkhalifah, 2025). The gain is a constant, so
    that the paper's meaning holds exactly: U and V orthonormal, σ near one.

    Attributes:
        features: Number of units.
        rank: Number of singular values.
        gain: Constant factor of W; None for `default_gain`.
        initialisation: "orthonormal", or "xavier" for the published choice, under
            which signals vanish with depth.
        param_dtype: Type of the parameters.
    """

    features: int
    rank: int
    gain: float | None = None
    initialisation: str = "orthonormal"
    param_dtype: jax.typing.DTypeLike = jnp.float32

    @property
    def scale(self) -> float:
        """The gain in use."""
        if self.gain is not None:
            return self.gain
        return default_gain(self.features, self.rank, self.initialisation)

    @nn.compact
    def __call__(self, inputs: jax.Array, singular_values: jax.Array) -> jax.Array:
        """Applies gain · U diag(σ) Vᵀ to each row, never forming W.

        Args:
            inputs: (..., in).
            singular_values: (rank,), or (..., rank) to give each row its own.

        Returns:
            (..., features).

        Raises:
            ValueError: if the rank exceeds a dimension of W, or the initialisation is
                unknown.
        """
        check_initialisation(self.initialisation)
        chex.assert_axis_dimension(singular_values, -1, self.rank)
        if self.rank > min(inputs.shape[-1], self.features):
            raise ValueError(
                "rank must not exceed the width of the layer, got rank "
                f"{self.rank} for {inputs.shape[-1]} inputs and {self.features} units"
            )
        init = {
            "orthonormal": nn.initializers.orthogonal(),
            "xavier": nn.initializers.xavier_normal(),
        }[self.initialisation]
        U = self.param("U", init, (self.features, self.rank), self.param_dtype)
        V = self.param("V", init, (inputs.shape[-1], self.rank), self.param_dtype)
        return ((inputs @ V) * (self.scale * singular_values)) @ U.T

    def merge(self, singular_values: jax.Array) -> jax.Array:
        """The dense weights gain · U diag(σ) Vᵀ.

        Args:
            singular_values: (rank,).

        Returns:
            W (features, in), so that the layer is x ↦ x Wᵀ.
        """
        U, V = self.get_variable("params", "U"), self.get_variable("params", "V")
        return (U * (self.scale * singular_values)) @ V.T
