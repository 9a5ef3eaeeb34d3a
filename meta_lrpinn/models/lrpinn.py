"""The low-rank network (LRPINN), its hypernetwork, and their composition."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
from flax import linen as nn

from meta_lrpinn.models import layers
from meta_lrpinn.models.layers import Jets, sine

# The root of gelu(b) = 1: with this bias the heads start at singular values of one.
_UNIT_GELU_BIAS = 1.1444507184

# σ of each hidden layer, (rank,), or (n, rank) for n points.
SingularValues = tuple[jax.Array, ...]


class FrequencyEmbedding(nn.Module):
    """The hypernetwork (FEH) that gives every hidden layer its singular values.

    Layers of sine act on the normalised frequency; then each hidden layer of the
    low-rank network has one linear head with GELU (Cheng and Alkhalifah, 2025).

    Attributes:
        rank, depth: As of the `LRPINN`, whose singular values they are.
        width, hidden: Units of each layer of the embedding, and number of its layers.
        initialisation: "orthonormal" starts with all σ near one, as orthonormal factors
            need; "xavier" is the published choice (see `published_dense`), near zero.
    """

    rank: int | tuple[int, ...] = 100
    depth: int = 6
    width: int = 80
    hidden: int = 3
    initialisation: str = "orthonormal"

    @nn.compact
    def __call__(self, frequency: jax.Array) -> SingularValues:
        """σ of each hidden layer, (rank,) or (n, rank), at frequencies () or (n,) in Hz.

        Raises:
            ValueError: if `rank` does not match `depth`, or the initialisation is
                unknown.
        """
        layers.check_initialisation(self.initialisation)
        published = self.initialisation == "xavier"
        hidden = layers.normalise_frequency(frequency)[..., None]
        for index in range(self.hidden):
            make = layers.published_dense if published else _spread_dense
            layer = make(self.width, hidden.shape[-1], name=f"dense_{index}")
            hidden = sine(layer(hidden))

        make = layers.published_dense if published else _unit_dense
        heads = (
            make(rank, self.width, name=f"head_{layer}")
            for layer, rank in enumerate(layers.layer_ranks(self.rank, self.depth))
        )
        return tuple(nn.gelu(head(hidden), approximate=False) for head in heads)


class FreeSingularValues(nn.Module):
    """Singular values as parameters: what replaces the hypernetwork once it is pruned.

    Its rank and depth are those of the `FrequencyEmbedding`.
    """

    rank: int | tuple[int, ...] = 100
    depth: int = 6

    @nn.compact
    def __call__(self, frequency: jax.Array | None = None) -> SingularValues:
        """σ of each hidden layer, (rank,), the same whatever the frequency.

        Raises:
            ValueError: if `rank` does not match `depth`.
        """
        return tuple(
            self.param(f"hidden_{layer}", nn.initializers.ones, (rank,), jnp.float32)
            for layer, rank in enumerate(layers.layer_ranks(self.rank, self.depth))
        )


class LRPINN(layers.SineNetwork):
    """The network whose hidden layers are low-rank, given their singular values.

    A first layer with sine, `depth` layers W_l = gain · U_l diag(σ_l) V_lᵀ with sine
    and no bias, and a linear last layer (Cheng and Alkhalifah, 2025). Rows do not see
    each other, so derivatives may be taken through the whole batch.

    Attributes, beside those of `SineNetwork`:
        rank: Rank of every hidden layer, or of each.
        initialisation: "orthonormal", or "xavier" for the published choice (U and V by
            Glorot and Bengio 2010, other layers as `published_dense`), under which
            activations vanish with depth.
        gain: Constant factor of each hidden layer; None for `default_gain` at this
            rank. Kept when the rank is reduced.
    """

    rank: int | tuple[int, ...] = 100
    initialisation: str = "orthonormal"
    gain: tuple[float, ...] | None = None

    @property
    def ranks(self) -> tuple[int, ...]:
        """The rank of each hidden layer."""
        return layers.layer_ranks(self.rank, self.depth)

    @property
    def gains(self) -> tuple[float, ...]:
        """The constant factor of each hidden layer."""
        if self.gain is not None:
            return self.gain
        return tuple(
            layers.default_gain(width, rank, self.initialisation)
            for width, rank in zip(self.widths, self.ranks, strict=True)
        )

    def setup(self):
        shapes = zip(self.widths, self.ranks, self.gains, strict=True)
        self.hidden = [
            layers.LowRankDense(width, rank, gain, self.initialisation)
            for width, rank, gain in shapes
        ]
        scales = self.first_scales
        if self.initialisation == "xavier":
            self.first = layers.published_dense(self.width, len(scales))
            self.last = layers.published_dense(layers.OUTPUTS, self.number_of_features)
        else:
            self.first = layers.plane_wave_layer(self.width, scales)
            self.last = layers.small_output_layer()

    def __call__(
        self, points: jax.Array, source: jax.Array, singular_values: SingularValues
    ) -> jax.Array:
        """The output (n, 2), as of `meta_lrpinn.models` but with σ for the frequency."""
        return self.last(self.features(points, source, singular_values))

    def features(
        self, points: jax.Array, source: jax.Array, singular_values: SingularValues
    ) -> jax.Array:
        """The last hidden layer, (n, number_of_features)."""
        return self._hidden(points, source, singular_values, 0).value

    def jets(
        self, points: jax.Array, source: jax.Array, singular_values: SingularValues
    ) -> Jets:
        """The output (n, 2) with its derivatives along each axis."""
        hidden = self._hidden(points, source, singular_values, self.ndim)
        return layers.dense_jets(self.last, hidden)

    def _hidden(
        self, points: jax.Array, source: jax.Array, values: SingularValues, axes: int
    ) -> Jets:
        """The last hidden layer with its derivatives along the first so many axes."""
        chex.assert_axis_dimension(points, -1, self.ndim)
        chex.assert_equal(len(values), self.depth)
        inputs = layers.network_input(points, source)
        jets = layers.first_layer_jets(self.first, inputs, axes)
        for layer, sigma in zip(self.hidden, values, strict=True):
            # Without bias, the layer maps derivatives as it maps values.
            jets = jax.tree.map(lambda h, w=layer, sigma=sigma: w(h, sigma), jets)
            jets = layers.sine_jets(jets)
        return jets


class MetaLRPINN(nn.Module):
    """The low-rank network with its singular values given by the frequency.

    Its parameter tree is {"network": ..., "embedding": ...}. With `FrequencyEmbedding`
    this is the network of meta-training; with `FreeSingularValues`, what hypernetwork
    pruning leaves (see `models.parameters`), where the frequency has no effect.

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

    @property
    def is_pruned(self) -> bool:
        """Whether singular values are parameters rather than a function of frequency."""
        return isinstance(self.embedding, FreeSingularValues)

    def __call__(
        self, points: jax.Array, source: jax.Array, frequency: jax.Array | None = None
    ) -> jax.Array:
        """The output (n, 2); for the arguments see `meta_lrpinn.models`."""
        return self.network(points, source, self.embedding(frequency))

    def features(
        self, points: jax.Array, source: jax.Array, frequency: jax.Array | None = None
    ) -> jax.Array:
        """The last hidden layer, (n, number_of_features)."""
        return self.network.features(points, source, self.embedding(frequency))

    def jets(
        self, points: jax.Array, source: jax.Array, frequency: jax.Array | None = None
    ) -> Jets:
        """The output (n, 2) with its derivatives along each axis."""
        return self.network.jets(points, source, self.embedding(frequency))


def make_meta_lrpinn(**network: Any) -> MetaLRPINN:
    """A low-rank network of these attributes, with the hypernetwork that fits it."""
    low_rank = LRPINN(**network)
    embedding = FrequencyEmbedding(
        rank=low_rank.rank, depth=low_rank.depth, initialisation=low_rank.initialisation
    )
    return MetaLRPINN(network=low_rank, embedding=embedding)


def _spread_dense(features: int, inputs: int, name: str) -> nn.Dense:
    """A layer of the embedding that has no dead or equal units at the start."""
    if inputs == 1:  # of the frequency: uniform phases and a few radians over the band
        kernel_init, bias_init = nn.initializers.normal(2.0), layers.uniform_phase
    else:
        kernel_init = nn.initializers.variance_scaling(2.0, "fan_in", "uniform")
        bias_init = nn.initializers.zeros
    return nn.Dense(features, kernel_init=kernel_init, bias_init=bias_init, name=name)


def _unit_dense(features: int, inputs: int, name: str) -> nn.Dense:
    """A head whose singular values, after GELU, start near one."""
    del inputs
    small = nn.initializers.variance_scaling(0.01, "fan_in", "normal")
    unit = nn.initializers.constant(_UNIT_GELU_BIAS)
    return nn.Dense(features, kernel_init=small, bias_init=unit, name=name)
