"""The low-rank network (LRPINN), and its composition with the hypernetwork."""

import chex
import jax
import jax.numpy as jnp
from flax import linen as nn

from meta_lrpinn.models.activations import sine
from meta_lrpinn.models.frequency_embedding import FrequencyEmbedding
from meta_lrpinn.models.jets import (
    Jets,
    dense_jets,
    first_layer_jets,
    linear_jets,
    sine_jets,
)
from meta_lrpinn.models.low_rank import (
    LowRankDense,
    default_gain,
    layer_ranks,
    plain_dense,
)
from meta_lrpinn.models.pinn import (
    FIRST_SCALE,
    SOURCE_SCALE,
    network_input,
    plane_wave_layer,
    small_output_layer,
)


class LRPINN(nn.Module):
    """The network whose hidden layers are low-rank, given their singular values.

    A first layer with sine, `depth` layers W_l = gain · U_l diag(σ_l) V_lᵀ with sine
    and no bias, and a linear last layer (Cheng and Alkhalifah, 2025). Rows do not see
    each other, so derivatives may be taken through the whole batch.

    Attributes:
        width: Units of each layer.
        depth: Number of low-rank hidden layers.
        rank: Rank of every hidden layer, or of each.
        ndim: Dimensions of space, 2 or 3.
        outputs: Number of outputs: real and imaginary part.
        first_scale: Standard deviation of the initial wavenumbers along each axis, in
            rad/km. The hidden layers add harmonics and raise it by about two, so that 8
            reaches waves of 2 to 15 Hz at 1.5 to 5 km/s.
        source_scale: The same along the source's coordinates, in rad/km.
        initialisation: "orthonormal", or "xavier" for the published choice (U and V by
            Glorot and Bengio 2010, other layers as `plain_dense`), under which
            activations vanish with depth.
        gain: Constant factor of each hidden layer; None for `default_gain` at this
            rank. Kept when the rank is reduced.
        last_width: Units of the last hidden layer, the features of an exact solve;
            None for `width`, as published.
        layer_fraction: Thickness of the absorbing layer the features are for, over a
            problem's default; `solve` makes it so. Without effect on the network.
        param_dtype: Type of the parameters.
    """

    width: int = 320
    depth: int = 6
    rank: int | tuple[int, ...] = 100
    ndim: int = 2
    outputs: int = 2
    first_scale: float = FIRST_SCALE
    source_scale: float = SOURCE_SCALE
    initialisation: str = "orthonormal"
    gain: tuple[float, ...] | None = None
    last_width: int | None = None
    layer_fraction: float = 1.0
    param_dtype: jax.typing.DTypeLike = jnp.float32

    @property
    def number_of_features(self) -> int:
        """Units of the last hidden layer."""
        return self.width if self.last_width is None else self.last_width

    @property
    def gains(self) -> tuple[float, ...]:
        """The constant factor of each hidden layer."""
        if self.gain is not None:
            return self.gain
        return tuple(
            default_gain(width, rank, self.initialisation)
            for width, rank in zip(
                self.widths, layer_ranks(self.rank, self.depth), strict=True
            )
        )

    @property
    def widths(self) -> tuple[int, ...]:
        """Units of each hidden layer."""
        return (self.width,) * (self.depth - 1) + (self.number_of_features,)

    def setup(self):
        ranks = layer_ranks(self.rank, self.depth)
        self.hidden = [
            LowRankDense(width, rank, gain, self.initialisation, self.param_dtype)
            for width, rank, gain in zip(self.widths, ranks, self.gains, strict=True)
        ]
        if self.initialisation == "xavier":
            dtype, inputs = self.param_dtype, 2 * self.ndim - 1
            self.first = plain_dense(self.width, inputs, param_dtype=dtype)
            self.last = plain_dense(
                self.outputs, self.number_of_features, param_dtype=dtype
            )
        else:
            horizontal = self.ndim - 1
            scales = [self.first_scale] * self.ndim + [self.source_scale] * horizontal
            self.first = plane_wave_layer(self.width, scales, param_dtype=self.param_dtype)
            self.last = small_output_layer(self.outputs, param_dtype=self.param_dtype)

    def __call__(
        self,
        points: jax.Array,
        source: jax.Array,
        singular_values: tuple[jax.Array, ...],
    ) -> jax.Array:
        """The network's output.

        Args:
            points: (n, ndim) in km.
            source: Horizontal source position in km, (ndim - 1,) or (n, ndim - 1).
            singular_values: For each hidden layer σ of shape (rank,) or (n, rank).

        Returns:
            (n, outputs).

        Raises:
            ValueError: if an argument's shape does not fit.
        """
        return self.last(self.features(points, source, singular_values))

    def features(
        self,
        points: jax.Array,
        source: jax.Array,
        singular_values: tuple[jax.Array, ...],
    ) -> jax.Array:
        """The last hidden layer.

        Args:
            points: (n, ndim) in km.
            source: Horizontal source position in km, (ndim - 1,) or (n, ndim - 1).
            singular_values: For each hidden layer σ of shape (rank,) or (n, rank).

        Returns:
            (n, number_of_features).

        Raises:
            ValueError: if an argument's shape does not fit.
        """
        chex.assert_axis_dimension(points, -1, self.ndim)
        chex.assert_equal(len(singular_values), self.depth)
        hidden = sine(self.first(network_input(points, source)))
        for layer, values in zip(self.hidden, singular_values, strict=True):
            hidden = sine(layer(hidden, values))
        return hidden

    def jets(
        self,
        points: jax.Array,
        source: jax.Array,
        singular_values: tuple[jax.Array, ...],
    ) -> Jets:
        """The output with its first and second derivatives along each axis.

        Args:
            points: (n, ndim) in km.
            source: Horizontal source position in km, (ndim - 1,) or (n, ndim - 1).
            singular_values: For each hidden layer σ of shape (rank,) or (n, rank).

        Returns:
            Jets of (n, outputs), in float32 for float32 arguments.
        """
        chex.assert_axis_dimension(points, -1, self.ndim)
        chex.assert_equal(len(singular_values), self.depth)
        jets = first_layer_jets(self.first, network_input(points, source), self.ndim)
        for layer, values in zip(self.hidden, singular_values, strict=True):
            jets = sine_jets(
                linear_jets(lambda h, w=layer, sigma=values: w(h, sigma), jets)
            )
        return dense_jets(self.last, jets)


class MetaLRPINN(nn.Module):
    """The low-rank network with its singular values given by the frequency.

    Its parameter tree is {"network": ..., "embedding": ...}. With `FrequencyEmbedding`
    this is the network of meta-training; with `FreeSingularValues`, what hypernetwork
    pruning leaves (see `models.parameters`). Both are called alike.

    Attributes:
        network: An `LRPINN`.
        embedding: A `FrequencyEmbedding` or a `FreeSingularValues`.
    """

    network: LRPINN
    embedding: nn.Module

    @property
    def ndim(self) -> int:
        """Dimensions of space."""
        return self.network.ndim

    @property
    def layer_fraction(self) -> float:
        """Thickness of the absorbing layer, see `LRPINN`."""
        return self.network.layer_fraction

    def __call__(
        self, points: jax.Array, source: jax.Array, frequency: jax.Array | None = None
    ) -> jax.Array:
        """The network's output.

        Args:
            points: (n, ndim) in km.
            source: Horizontal source position in km, (ndim - 1,) or (n, ndim - 1).
            frequency: Frequency in Hz, () or (n,); without effect once pruned.

        Returns:
            (n, outputs).

        Raises:
            ValueError: if an argument's shape does not fit.
        """
        return self.network(points, source, self.embedding(frequency))

    def features(
        self, points: jax.Array, source: jax.Array, frequency: jax.Array | None = None
    ) -> jax.Array:
        """The last hidden layer.

        Args:
            points: (n, ndim) in km.
            source: Horizontal source position in km, (ndim - 1,) or (n, ndim - 1).
            frequency: Frequency in Hz, () or (n,); without effect once pruned.

        Returns:
            (n, number_of_features).

        Raises:
            ValueError: if an argument's shape does not fit.
        """
        return self.network.features(points, source, self.embedding(frequency))

    def jets(
        self, points: jax.Array, source: jax.Array, frequency: jax.Array | None = None
    ) -> Jets:
        """The output with its derivatives, see `LRPINN.jets`.

        Args:
            points: (n, ndim) in km.
            source: Horizontal source position in km, (ndim - 1,) or (n, ndim - 1).
            frequency: Frequency in Hz, () or (n,); without effect once pruned.

        Returns:
            Jets of (n, outputs).
        """
        return self.network.jets(points, source, self.embedding(frequency))

    def singular_values(self, frequency: jax.Array | None = None) -> tuple[jax.Array, ...]:
        """The singular values of every hidden layer.

        Args:
            frequency: Frequency in Hz, () or (n,); without effect once pruned.

        Returns:
            For each hidden layer σ of shape (rank,) or (n, rank).
        """
        return self.embedding(frequency)


def make_meta_lrpinn(
    *,
    embedding_width: int = 80,
    embedding_hidden: int = 3,
    **network,
) -> MetaLRPINN:
    """Composes a low-rank network and the hypernetwork that fits it.

    Args:
        embedding_width: Units of each layer of the hypernetwork.
        embedding_hidden: Number of its layers.
        **network: Attributes of `LRPINN`.

    Returns:
        The network of meta-training; with no arguments, the paper's.
    """
    low_rank = LRPINN(**network)
    embedding = FrequencyEmbedding(
        rank=low_rank.rank,
        depth=low_rank.depth,
        width=embedding_width,
        hidden=embedding_hidden,
        initialisation=low_rank.initialisation,
        param_dtype=low_rank.param_dtype,
    )
    return MetaLRPINN(network=low_rank, embedding=embedding)
