"""What the networks are built of: the sine, layers, and derivatives through them.

XLA's sine on CPU takes most of the time of a sine network: measured on two cores, 15 ms
for 1.2 million values in single precision against 0.6 ms here. A range reduction by π in
four parts (Cody and Waite 1980) and a minimax polynomial of degree nine or nineteen
vectorise, and sine and cosine differentiate into each other, at any order, in forward and
in reverse.

Derivatives follow the rules of `physics.derivatives`'s Taylor mode, written out: forward
mode applied twice carries the value and one slope of each axis twice, and reverse mode
then pays for each of the copies. With `Jets` a layer sees 1 + 2 ndim arrays, and its sine
is evaluated once.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

SOURCE_SCALE = 2.0  # as `SineNetwork.first_scale`, along the source's coordinates, rad/km
OUTPUTS = 2  # real and imaginary part
# How U and V start.
_INITIALISERS = {
    "orthonormal": nn.initializers.orthogonal(),
    "xavier": nn.initializers.xavier_normal(),
}

# π in four parts whose products with small integers are exact (Shibata and Petrogalli
# 2020, SLEEF), and the polynomial of sin r for |r| ≤ π/2 from the same source.
_PI_PARTS = {
    "float32": (3.140625, 9.670257568359375e-4, 6.2771141529083252e-7, 1.2154201e-10),
    "float64": (3.1415926218032836914, 3.1786509424591713469e-08,
                1.2246467864107188502e-16, 1.2736634327021899816e-24),
}  # fmt: skip
_COEFFICIENTS = {
    "float32": (2.6083159809786593e-6, -1.9810690719168633e-4, 8.3330785855650902e-3,
                -1.6666659712791443e-1),
    "float64": (-7.97255955009037868891952e-18, 2.81009972710863200091251e-15,
                -7.64712219118158833288484e-13, 1.60590430605664501629054e-10,
                -2.50521083763502045810755e-08, 2.75573192239198747630416e-06,
                -0.000198412698412696162806809, 0.00833333333333332974823815,
                -0.166666666666666657414808),
}  # fmt: skip


@jax.custom_jvp
def sine(x: jax.Array) -> jax.Array:
    """sin x of real x, |x| < 10⁴, to 2e-7 absolutely in float32, to 1e-15 in float64.

    Arrays of other types are as precise as of `jnp.sin`.
    """
    if x.dtype.name not in _COEFFICIENTS:
        return jnp.sin(x)
    half_turns = jnp.round(x * x.dtype.type(1 / np.pi))
    return _sign(half_turns) * _reduced_sine(x, half_turns)


@jax.custom_jvp
def cosine(x: jax.Array) -> jax.Array:
    """cos x, as accurate as `sine`."""
    if x.dtype.name not in _COEFFICIENTS:
        return jnp.cos(x)
    half_turns = jnp.floor(x * x.dtype.type(1 / np.pi))
    return -_sign(half_turns) * _reduced_sine(x, half_turns + x.dtype.type(0.5))


class Jets(NamedTuple):
    """Values at n points with their pure derivatives along each axis, or along none."""

    value: jax.Array  # (n, units)
    slopes: tuple[jax.Array, ...]  # ∂/∂x_d, ndim times (n, units) [1/km]
    curvatures: tuple[jax.Array, ...]  # ∂²/∂x_d², ndim times (n, units), 1/km²

    def stacked(self) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Values (n, units), and slopes and curvatures (n, ndim, units)."""
        return self.value, jnp.stack(self.slopes, 1), jnp.stack(self.curvatures, 1)


def dense_jets(layer: nn.Dense, jets: Jets) -> Jets:
    """Jets after a dense layer, whose bias adds to the value alone."""
    value = layer(jets.value)
    kernel = layer.variables["params"]["kernel"]
    slopes, curvatures = jax.tree.map(lambda x: x @ kernel, jets[1:])
    return Jets(value, slopes, curvatures)


def sine_jets(jets: Jets) -> Jets:
    """Jets of sin y from those of y: (sin y)″ = y″ cos y − y′² sin y."""
    value, factor = sine(jets.value), cosine(jets.value)
    return Jets(
        value=value,
        slopes=tuple(factor * slope for slope in jets.slopes),
        curvatures=tuple(
            factor * curvature - value * slope**2
            for slope, curvature in zip(jets.slopes, jets.curvatures, strict=True)
        ),
    )


def first_layer_jets(layer: nn.Dense, inputs: jax.Array, axes: int) -> Jets:
    """Jets of the sine of the first layer along the first so many inputs (n, inputs).

    These are coordinates; the other inputs do not depend on them.
    """
    phase = layer(inputs)
    value, factor = sine(phase), cosine(phase)
    wavenumbers = layer.variables["params"]["kernel"][:axes]
    return Jets(
        value=value,
        slopes=tuple(factor * wavenumber for wavenumber in wavenumbers),
        curvatures=tuple(-value * wavenumber**2 for wavenumber in wavenumbers),
    )


def network_input(points: jax.Array, source: jax.Array) -> jax.Array:
    """Appends the horizontal source position to points (..., ndim): (..., 2 ndim − 1).

    The source is (ndim − 1,) for all points or (..., ndim − 1) for each, in 2D also a
    number; a shape that does not fit is a ValueError.
    """
    points, source = jnp.asarray(points), jnp.asarray(source)
    shape = (*points.shape[:-1], points.shape[-1] - 1)
    try:
        source = jnp.broadcast_to(source, shape)
    except ValueError:
        raise ValueError(
            f"source must hold the {shape[-1]} horizontal coordinate(s) of the source, "
            f"of shape {shape[-1:]} or {shape}, got shape {source.shape}"
        ) from None
    return jnp.concatenate([points, source], axis=-1)


def normalise_frequency(frequency: jax.Array) -> jax.Array:
    """Maps frequencies [Hz] of any shape linearly, as published: 2 to −1 and 20 to 1."""
    return (2.0 * jnp.asarray(frequency) - 22.0) / 18.0


def uniform_phase(
    key: jax.Array, shape: tuple[int, ...], dtype: jax.typing.DTypeLike
) -> jax.Array:
    """Initialiser of the phases of sine units: uniform in [-π, π]."""
    return jax.random.uniform(key, shape, dtype, -jnp.pi, jnp.pi)


def published_dense(features: int, inputs: int, name: str | None = None) -> nn.Dense:
    """A dense layer that starts as the published ones: weights, biases in ±1/√inputs.

    It is PyTorch's default, which the published network leaves as it is everywhere but
    in U and V (He et al. 2015 with a negative slope of √5).
    """
    largest = 1 / math.sqrt(inputs)

    def biases(key, shape, dtype):
        return jax.random.uniform(key, shape, dtype, -largest, largest)

    weights = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
    return nn.Dense(features, kernel_init=weights, bias_init=biases, name=name)


def plane_wave_layer(features: int, scales: Sequence[float]) -> nn.Dense:
    """A first layer that, with its sine, starts as random plane waves.

    The weights of each input are normal with its scale, in rad per its unit, the biases
    uniform in [-π, π]. Xavier weights on inputs in km give wavelengths of tens of km.
    """
    deviations = np.asarray(scales)[:, None]

    def wave_vectors(key, shape, dtype):
        return jax.random.normal(key, shape, dtype) * deviations.astype(dtype)

    return nn.Dense(features, kernel_init=wave_vectors, bias_init=uniform_phase)


def small_output_layer() -> nn.Dense:
    """A last layer whose output starts near 0.06, below the wavefield's own scale."""
    small = nn.initializers.variance_scaling(0.01, "fan_in", "normal")
    return nn.Dense(OUTPUTS, kernel_init=small)


def layer_ranks(rank: int | Sequence[int], depth: int) -> tuple[int, ...]:
    """The rank of each of `depth` hidden layers, from one rank for all or one for each.

    Raises:
        ValueError: if the number of ranks is not `depth`, or one is not positive.
    """
    ranks = tuple(rank) if isinstance(rank, Sequence) else (rank,) * depth
    if len(ranks) != depth:
        raise ValueError(f"{depth} hidden layers need {depth} ranks, got {len(ranks)}")
    if min(ranks, default=1) < 1:
        raise ValueError(f"rank must be at least 1, got {min(ranks)}")
    return ranks


def check_initialisation(name: str) -> None:
    """Raises ValueError unless `name` is "orthonormal" or "xavier"."""
    if name not in _INITIALISERS:
        names = ", ".join(_INITIALISERS)
        raise ValueError(f"initialisation must be one of {names}, got {name!r}")


def default_gain(features: int, rank: int, initialisation: str) -> float:
    """The gain at which sine activations keep their scale; 1 for "xavier", as published.

    For orthonormal V the product Vᵀx has rank/in of the energy of x, and orthonormal U
    spreads it over `features` units, so that with σ = 1 and q = mean x² the layer's
    output has mean square gain²·q·rank/features. With gain² = 2·features/rank and the
    sine's mean square (1 − exp(−2s²))/2 at an input of variance s², layers converge to
    s² = 1 − exp(−2s²), that is s = 0.89 before and 0.63 after the sine: the fixed point
    of Sitzmann et al. (2020, SIREN), whose dense weights have the same variance.
    """
    check_initialisation(initialisation)
    return 1.0 if initialisation == "xavier" else math.sqrt(2.0 * features / rank)


class LowRankDense(nn.Module):
    """A layer without bias whose weights are W = gain · U diag(σ) Vᵀ.

    The singular values σ come in with the data; U (features, rank) and V (in, rank)
    are the layer's parameters (Cheng and Alkhalifah, 2025). The gain is a constant, so
    that the paper's meaning holds exactly: U and V orthonormal, σ near one.

    Attributes:
        features, rank, gain: Number of units, of singular values, and the factor of W.
        initialisation: "orthonormal", or "xavier" for the published choice, under
            which signals vanish with depth.
    """

    features: int
    rank: int
    gain: float
    initialisation: str = "orthonormal"

    @nn.compact
    def __call__(self, inputs: jax.Array, singular_values: jax.Array) -> jax.Array:
        """W applied to each row of the inputs (..., in), and never formed: (..., features).

        Singular values are (rank,), or (..., rank) to give each row its own.

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
        init = _INITIALISERS[self.initialisation]
        U = self.param("U", init, (self.features, self.rank), jnp.float32)
        V = self.param("V", init, (inputs.shape[-1], self.rank), jnp.float32)
        return ((inputs @ V) * (self.gain * singular_values)) @ U.T


class SineNetwork(nn.Module):
    """The size of a network with a first layer, hidden layers and a linear last one.

    Attributes:
        width: Units of each layer.
        depth: Number of hidden layers after the first.
        ndim: Dimensions of space, 2 or 3.
        first_scale: Standard deviation of the initial wavenumbers along each axis, in
            rad/km; a few times less than ω/v, since each hidden layer adds harmonics: 8
            reaches waves of 2 to 15 Hz at 1.5 to 5 km/s.
        last_width: Units of the last hidden layer, the features of an exact solve;
            None for `width`, as published.
        layer_fraction: Thickness of the absorbing layer the features are for, over a
            problem's default; `solve` makes it so. Without effect on the network.
    """

    width: int = 320
    depth: int = 6
    ndim: int = 2
    first_scale: float = 8.0
    last_width: int | None = None
    layer_fraction: float = 1.0

    @property
    def number_of_features(self) -> int:
        """Units of the last hidden layer."""
        return self.width if self.last_width is None else self.last_width

    @property
    def widths(self) -> tuple[int, ...]:
        """Units of each hidden layer."""
        return (self.width,) * (self.depth - 1) + (self.number_of_features,)

    @property
    def first_scales(self) -> list[float]:
        """Scale of each coordinate of points and source."""
        return [self.first_scale] * self.ndim + [SOURCE_SCALE] * (self.ndim - 1)


def _reduced_sine(x: jax.Array, multiple: jax.Array) -> jax.Array:
    """sin(x − multiple·π) where that lies within ±π/2."""
    name, kind = x.dtype.name, x.dtype.type
    r = x
    for part in _PI_PARTS[name]:
        r = r - multiple * kind(part)
    squared = r * r
    first, *others = _COEFFICIENTS[name]
    series = kind(first)
    for coefficient in others:
        series = series * squared + kind(coefficient)
    return r + r * squared * series


def _sign(integer: jax.Array) -> jax.Array:
    """(−1)^k of whole numbers held as floats."""
    return 1 - 2 * (integer - 2 * jnp.floor(0.5 * integer))


@sine.defjvp
def _sine_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    return sine(x), cosine(x) * dx


@cosine.defjvp
def _cosine_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    return cosine(x), -sine(x) * dx
