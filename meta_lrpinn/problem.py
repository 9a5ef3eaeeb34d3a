"""The Helmholtz problem of one source, and the points at which a solver meets it."""

from collections.abc import Sequence
from numbers import Real

import chex
import jax
import jax.numpy as jnp
import numpy as np

from meta_lrpinn.physics import absorbing, background, residual
from meta_lrpinn.velocity import VelocityModel

# Of the layer that networks are trained in: wavelengths at the mean velocity, and km.
_NETWORK_WAVELENGTHS = 1.1
_NETWORK_MINIMUM = 0.3
_NETWORK_REFLECTION = 1e-5
# The geometric layer damps a wave of the largest velocity by e^{−12} one way.
_DAMPING = 12.0
# Below 0.8 wavelengths features cannot follow the decay: a layered model is off by 0.3 %
# with 0.5, by 0.1 % with 0.8, both at 2.4 times the largest wavenumber.
_LEAST_WAVELENGTHS, _MOST_WAVELENGTHS = 0.8, 3.0
# Mean of α, half as long again: 0.8 % in a flat model of 25 wavelengths. Without it what
# grazes the layer returns, 1.6 %, and twice as much takes shorter waves to follow, 1.2 %.
_EXPANSION = 0.5
# Over the largest velocity: features decay by e^{−4}. At e^{−12}, as waves do that meet
# the layer head-on, they cannot follow those that graze it: 16 % in that flat model.
_ENVELOPE = 3.0


@chex.dataclass(frozen=True, mappable_dataclass=False)
class HelmholtzProblem:
    """One velocity model, frequency and source; a pytree that can be stacked."""

    model: VelocityModel
    omega: jax.Array  # () rad/s
    source: jax.Array  # (ndim,) km
    amplitude: jax.Array  # () complex, A of the background field
    background_velocity: jax.Array  # () km/s, v₀
    layer: absorbing.AbsorbingLayer
    envelope_velocity: jax.Array  # () km/s, sets the decay of features in the layer

    @property
    def ndim(self) -> int:
        """Space dimension, 2 or 3."""
        return self.model.ndim

    @property
    def lower(self) -> jax.Array:
        """Smallest coordinates of the model and its layer, (ndim,), km."""
        return self.layer.lower - self.layer.thickness

    @property
    def upper(self) -> jax.Array:
        """Largest coordinates of the model and its layer, (ndim,), km."""
        return self.layer.upper + self.layer.thickness


@chex.dataclass(frozen=True, mappable_dataclass=False)
class Collocation:
    """Points of a problem, with all that residuals and weak forms need there."""

    points: jax.Array  # (n, ndim) km
    squared_slowness: jax.Array  # (n,) s²/km², m
    scattering_source: jax.Array  # (n,) complex, −ω² (m − m₀) u₀
    stretch: jax.Array  # (n, ndim) complex, s
    stretch_slope: jax.Array  # (n, ndim) complex, 1/km
    omega: jax.Array  # () rad/s


def default_thickness(
    model: VelocityModel, frequency: float, v0: float, share: float = 1.0
) -> float:
    """Thickness of the layer that networks are trained in, or a share of it, km.

    The longest of 0.3 km, one background wavelength and 1.1 wavelengths at the mean
    velocity of the model.
    """
    mean_wavelength = float(np.mean(model.velocity)) / frequency
    whole = max(_NETWORK_MINIMUM, v0 / frequency, _NETWORK_WAVELENGTHS * mean_wavelength)
    return share * whole


def network_layer(
    model: VelocityModel, thickness: float, reflection: float = _NETWORK_REFLECTION
) -> tuple[absorbing.AbsorbingLayer, float]:
    """The layer that networks are trained in, and its envelope velocity, km/s.

    It reflects a wave of the mean velocity by R at normal incidence; features decay as
    such a wave does, at 0.9 of that velocity.

    Args:
        model: Velocity model.
        thickness: Its thickness, km, such as `default_thickness`.
        reflection: R.
    """
    mean = float(np.mean(model.velocity))
    layer = absorbing.make_layer(model.lower, model.upper, thickness, mean, reflection)
    return layer, 0.9 * mean


def geometric_thickness(
    model: VelocityModel, frequency: float, tolerance: float = 4e-3
) -> float:
    """Layer thickness by the model's shape, km.

    The layer's outer edge mirrors the source to complex distance: an error that meets
    the far end of the model, X away, after crossing its H and two layers of stretched
    thickness L̃ = L (1 + α) − i∫σ dx/ω, is |exp(−ik√(X² + (H + 2L̃)²))|. L is the least
    that brings this down to the tolerance at the largest velocity, between 0.8 and 3
    wavelengths. A model much smaller than a wavelength has a layer of its own size, in
    which waves decay all the same: σ grows as much as L falls.

    Args:
        model: Velocity model.
        frequency: Frequency, Hz.
        tolerance: Relative amplitude of what returns from the layer.
    """
    wavelength = model.maximum / frequency
    extent = (np.asarray(model.upper) - np.asarray(model.lower)) / wavelength
    along = np.sqrt(np.sum(extent**2) - extent**2)
    damping = _DAMPING / (2 * np.pi)  # ∫σ dx/ω, wavelengths
    for thickness in np.arange(_LEAST_WAVELENGTHS, _MOST_WAVELENGTHS, 0.1):
        across = extent + 2 * (thickness * (1 + _EXPANSION) - 1j * damping)
        decay = -2 * np.pi * np.imag(np.sqrt(along**2 + across**2))
        if np.all(decay >= np.log(1 / tolerance)):
            break
    return wavelength * float(min(thickness, np.max(extent)))


def geometric_layer(
    model: VelocityModel, thickness: float, reflection: float
) -> tuple[absorbing.AbsorbingLayer, float]:
    """The layer that damps waves of all velocities, and its envelope velocity, km/s.

    Args:
        model: Velocity model.
        thickness: Its thickness, km, such as `geometric_thickness`.
        reflection: R of a wave of the largest velocity at normal incidence.
    """
    layer = absorbing.make_layer(
        model.lower, model.upper, thickness, model.maximum, reflection
    )
    # ∫α dx is a third of its largest value times the thickness.
    expansion = 3 * _EXPANSION if thickness > 0 else 0.0
    return layer.replace(expansion=np.asarray(expansion)), _ENVELOPE * model.maximum


def make_problem(
    model: VelocityModel,
    frequency: float,
    source: Sequence[float],
    *,
    amplitude: complex | None = None,
    background_velocity: float | None = None,
    thickness: float | None = None,
    layer_share: float | None = None,
    reflection: float | None = None,
) -> HelmholtzProblem:
    """Problem with checked input and the documented defaults.

    Args:
        model: Velocity model.
        frequency: Frequency, Hz.
        source: Source position (ndim,), km, inside the model.
        amplitude: A of the background field; by default that of the fundamental
            solution (see `background.default_amplitude`).
        background_velocity: v₀, km/s; by default the velocity at the source.
        thickness: Absorbing layer, km; by default that of its rule, 0 for none.
        layer_share: None for the `geometric_layer` of exact solvers, a number for the
            `network_layer` that networks are trained in, of this share of
            `default_thickness` where no thickness is given.
        reflection: Amplitude that the layer reflects at normal incidence; by default that
            of its rule.

    Returns:
        The problem, with NumPy leaves in double precision.

    Raises:
        ValueError: anything out of range, in one line.
    """
    frequency = check_frequency(frequency)
    source = np.asarray(source, float)
    if source.shape != (model.ndim,):
        raise ValueError(
            f"source must have {model.ndim} coordinates, got {source.tolist()}"
        )
    model.check_contains(source, what="source")
    v0 = background_velocity
    if v0 is None:
        v0 = velocity_at(model, source)
    v0 = check_velocity(v0)
    if amplitude is None:
        amplitude = background.default_amplitude(model.ndim)
    amplitude = check_amplitude(amplitude)
    if layer_share is None:
        if thickness is None:
            thickness = geometric_thickness(model, frequency)
        if reflection is None:
            reflection = np.exp(-2 * _DAMPING)
        layer, envelope_velocity = geometric_layer(model, thickness, reflection)
    else:
        if thickness is None:
            thickness = default_thickness(model, frequency, v0, layer_share)
        if reflection is None:
            reflection = _NETWORK_REFLECTION
        layer, envelope_velocity = network_layer(model, thickness, reflection)
    return HelmholtzProblem(
        model=model,
        omega=np.asarray(2 * np.pi * frequency),
        source=source,
        amplitude=np.asarray(amplitude, complex),
        background_velocity=np.asarray(float(v0)),
        layer=layer,
        envelope_velocity=np.asarray(float(envelope_velocity)),
    )


def check_frequency(frequency: float) -> float:
    """One positive finite frequency [Hz], as a float.

    Raises:
        ValueError: if it is anything else.
    """
    return _check_positive(frequency, "frequency", "Hz")


def check_velocity(velocity: float) -> float:
    """One positive finite background velocity [km/s], as a float.

    Raises:
        ValueError: if it is anything else.
    """
    return _check_positive(velocity, "background velocity", "km/s")


def _check_positive(value: float, what: str, unit: str) -> float:
    is_number = isinstance(value, Real | np.ndarray | jax.Array) and np.ndim(value) == 0
    if not is_number or isinstance(value, bool) or np.iscomplexobj(value):
        raise ValueError(f"{what} must be one number in {unit}, got {value!r}"[:300])
    if not (np.isfinite(value) and value > 0):
        raise ValueError(f"{what} must be positive, got {value} {unit}")
    return float(value)


def check_amplitude(amplitude: complex) -> complex:
    """One finite amplitude A that is not zero, as a complex number.

    Raises:
        ValueError: if it is anything else.
    """
    if np.ndim(amplitude) or not np.issubdtype(np.asarray(amplitude).dtype, np.number):
        raise ValueError(f"amplitude must be one number, got {amplitude!r}"[:300])
    if not (np.isfinite(amplitude) and amplitude != 0):
        raise ValueError(f"amplitude must be finite and not zero, got {amplitude}")
    return complex(amplitude)


def velocity_at(model: VelocityModel, source: Sequence[float]) -> float:
    """Velocity at one position (ndim,), km/s, in double precision on the host."""
    with jax.enable_x64(True):
        return float(model.at(jnp.asarray(source, float)[None])[0])


def background_at(problem: HelmholtzProblem, points: jax.Array) -> jax.Array:
    """Background wavefield u₀ at points (n, ndim), continued into the layer, (n,)."""
    offset = absorbing.stretched_offset(
        problem.layer, points, problem.source, problem.omega
    )
    wavenumber = problem.omega / problem.background_velocity
    return background.background_field(offset, wavenumber, problem.amplitude)


def scattering_source_at(problem: HelmholtzProblem, points: jax.Array) -> jax.Array:
    """Right-hand side −ω² (m − m₀) u₀ at points (n, ndim); complex (n,)."""
    return residual.scattering_source(
        1 / problem.model.at(points) ** 2,
        1 / problem.background_velocity**2,
        background_at(problem, points),
        problem.omega,
    )


def collocate(problem: HelmholtzProblem, points: jax.Array) -> Collocation:
    """Evaluate a problem's coefficients at points.

    Args:
        problem: The problem.
        points: Coordinates (n, ndim), km, in the model or its layer.

    Returns:
        The collocation; pure, so that it can be jitted and vmapped over tasks.
    """
    omega = jnp.asarray(problem.omega)
    return Collocation(
        points=points,
        squared_slowness=1 / problem.model.at(points) ** 2,
        scattering_source=scattering_source_at(problem, points),
        stretch=absorbing.stretch(problem.layer, points, omega),
        stretch_slope=absorbing.stretch_slope(problem.layer, points, omega),
        omega=omega,
    )


def envelope_at(problem: HelmholtzProblem, points: jax.Array) -> jax.Array:
    """Decay that multiplies features in the layer (one inside the model), (n,)."""
    return absorbing.envelope(problem.layer, points, problem.envelope_velocity)[0]


def sample_points(
    key: jax.Array,
    problem: HelmholtzProblem,
    number: int,
    near_source: float = 0.1,
) -> jax.Array:
    """Draw collocation points in the model and its layer.

    Args:
        key: Random key.
        problem: The problem.
        number: How many points.
        near_source: Fraction drawn from a normal distribution of half a background
            wavelength around the source, where the right-hand side varies fastest.

    Returns:
        Coordinates (number, ndim), km.
    """
    number_near = int(round(near_source * number))
    key_far, key_near = jax.random.split(key)
    lower, upper = jnp.asarray(problem.lower), jnp.asarray(problem.upper)
    far = jax.random.uniform(
        key_far, (number - number_near, problem.ndim), dtype=lower.dtype
    )
    far = lower + (upper - lower) * far
    wavelength = 2 * jnp.pi * problem.background_velocity / problem.omega
    near = jax.random.normal(key_near, (number_near, problem.ndim), dtype=lower.dtype)
    near = jnp.asarray(problem.source) + 0.5 * wavelength * near
    return jnp.concatenate([far, jnp.clip(near, lower, upper)])
