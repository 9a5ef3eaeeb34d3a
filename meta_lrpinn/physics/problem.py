"""The Helmholtz problem of one source, and the points at which a solver meets it.

The functions `check_…` give what they are given, or raise ValueError in one line.
"""

from collections.abc import Sequence
from numbers import Real
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from meta_lrpinn.physics import absorbing, background, residual
from meta_lrpinn.physics.grid_values import FASTEST, SLOWEST
from meta_lrpinn.physics.velocity import VelocityModel
from meta_lrpinn.runtime.precision import Array, double_precision

# The layer of networks, in wavelengths at the mean velocity and in km: it absorbs at every
# velocity, not only at the source's. Measured in `default_thickness`; the shipped networks
# were trained in it, so that a change asks for new training.
_LAYER_WAVELENGTHS = 1.1
_LAYER_MINIMUM = 0.3
# A model that is longer than so many wavelengths, or shorter than one over them, is in
# other units.
_MOST_WAVELENGTHS = 1e6  # a guard, not tuned: no solver here gets near it
# Largest thickness of a layer over the model or its longest wave, and smallest reflection.
# Guards against other units and against overflow, not tuned.
_THICKEST, _LEAST_REFLECTION = 10.0, 1e-30
_LARGEST_AMPLITUDE = 1e30  # single precision ends at 3e38
# Amplitude that a layer reflects at normal incidence. It trades the error of the layer for
# its thickness; docs/results/trust.md has the errors of the solvers, layer included.
REFLECTION = 1e-5


class HelmholtzProblem(struct.PyTreeNode):
    """One velocity model, frequency and source; a pytree that can be stacked."""

    model: VelocityModel
    omega: Array  # () rad/s
    source: Array  # (ndim,) km
    amplitude: Array  # () complex, A of the background field
    background_velocity: Array  # () km/s, v₀; complex with attenuation
    layer: absorbing.AbsorbingLayer
    # () or by axis (ndim,) [km/s], sets the decay of features in the layer
    envelope_velocity: Array

    @property
    def ndim(self) -> int:
        """Space dimension, 2 or 3."""
        return self.model.ndim

    @property
    def background_speed(self) -> Array:
        """Real part of v₀, by which lengths are measured, () [km/s]."""
        return jnp.real(self.background_velocity)

    @property
    def lower(self) -> Array:
        """Smallest coordinates of the model and its layer, (ndim,) [km]."""
        return self.layer.lower - self.layer.thickness

    @property
    def upper(self) -> Array:
        """Largest coordinates of the model and its layer, (ndim,) [km]."""
        return self.layer.upper + self.layer.thickness

    @property
    def size(self) -> Array:
        """Sides of the model with its layer, (ndim,) [km]."""
        return self.upper - self.lower


class Collocation(struct.PyTreeNode):
    """Points of a problem, with all that residuals and weak forms need there."""

    points: jax.Array  # (n, ndim) km
    squared_slowness: jax.Array  # (n,) s²/km², m; complex with attenuation
    scattering_source: jax.Array  # (n,) complex, −ω² (m − m₀) u₀
    stretch: jax.Array  # (n, ndim) complex, s
    stretch_slope: jax.Array  # (n, ndim) complex [1/km]
    omega: jax.Array  # () rad/s


def default_thickness(
    model: VelocityModel, frequency: float, v0: float, fraction: float = 1.0
) -> float:
    """Layer thickness that networks are trained in, or a fraction of it [km].

    The longest of 0.3 km, one background wavelength and 1.1 wavelengths at the mean
    velocity of the model: waves that reach the edge at depth are longer than those at
    the source. Measured on the layered 5 Hz case, it changes the interior field by
    less than 0.5 %.
    """
    mean_wavelength = float(np.mean(model.velocity)) / frequency
    whole = max(_LAYER_MINIMUM, v0 / frequency, _LAYER_WAVELENGTHS * mean_wavelength)
    return fraction * whole


def make_problem(
    model: VelocityModel,
    frequency: float,
    source: Sequence[float] | np.ndarray,
    *,
    amplitude: complex | None = None,
    background_velocity: complex | None = None,
    thickness: float | None = None,
    layer_fraction: float | None = None,
    reflection: float = REFLECTION,
) -> HelmholtzProblem:
    """Problem with checked input and the documented defaults.

    Args:
        model: Velocity model.
        frequency: Frequency [Hz].
        source: Source position (ndim,) [km], inside the model.
        amplitude: A of the background field; by default that of the fundamental
            solution (see `background.default_amplitude`).
        background_velocity: v₀ [km/s]; by default the velocity at the source, complex
            where the model has a quality.
        thickness: Absorbing layer [km]; by default as below, 0 for none.
        layer_fraction: None for the layer that the geometry asks for, of plane waves (see
            `absorbing.layer_by_geometry`); for the layer that networks are trained in,
            its fraction of `default_thickness`.
        reflection: Reflection of the layer, of any ray in it or, of networks, at normal
            incidence and the model's mean velocity.

    Returns:
        The problem, with NumPy leaves in double precision.

    Raises:
        ValueError: if anything is out of its range, in one line.
    """
    frequency = check_frequency(frequency)
    check_scale(model, frequency)
    check_layer(model, frequency, thickness, reflection)
    position = np.asarray(source, float)
    if position.shape != (model.ndim,):
        raise ValueError(
            f"source must have {model.ndim} coordinates, got {position.tolist()}"
        )
    model.check_contains(position, what="source")
    v0 = background_velocity
    if v0 is None:
        v0 = velocity_at(model, position)
    v0 = check_velocity(v0)
    if amplitude is None:
        amplitude = background.default_amplitude(model.ndim)
    amplitude = check_amplitude(amplitude)
    omega = 2 * np.pi * frequency
    box = model.lower, model.upper
    if layer_fraction is None:
        velocities = model.minimum, model.maximum
        layer = absorbing.layer_by_geometry(*box, omega, *velocities, reflection, thickness)
        # Features decay like the wave that decays least, at any incidence.
        envelope = model.maximum * absorbing.excess(layer, model.maximum, reflection)
    else:
        if thickness is None:
            thickness = default_thickness(model, frequency, v0.real, layer_fraction)
        mean = float(np.mean(model.velocity))
        layer = absorbing.make_layer(*box, thickness, mean, reflection)
        # A little below the mean, so that features decay with most waves. Not tuned; the
        # shipped networks were trained with it.
        envelope = 0.9 * mean
    return HelmholtzProblem(
        model=model,
        omega=np.asarray(omega),
        source=position,
        amplitude=np.asarray(amplitude, complex),
        background_velocity=np.asarray(v0),
        layer=layer,
        envelope_velocity=np.asarray(envelope),
    )


def check_frequency(frequency: float) -> float:
    """One positive finite frequency [Hz], as a float."""
    return _check_positive(frequency, "frequency", "Hz")


def check_frequencies(frequencies: Sequence[float] | np.ndarray) -> np.ndarray:
    """Different positive finite frequencies, (n_frequencies,) [Hz]."""
    if np.ndim(frequencies) != 1 or not np.size(frequencies):
        raise ValueError("frequencies must be a list of one or more numbers in Hz")
    checked = np.array([check_frequency(frequency) for frequency in frequencies])
    # One given twice would be solved twice, and is most likely a slip.
    if len(np.unique(checked)) != len(checked):
        raise ValueError("the same frequency is given twice")
    return checked


def check_scale(model: VelocityModel, frequency: float) -> None:
    """Refuses a model and a frequency [Hz] that belong to different units.

    They do where the model is less than a millionth of its shortest wavelength long, or
    more than a million of them.
    """
    wavelengths = _longest_side(model) * float(frequency) / model.minimum
    if not 1 / _MOST_WAVELENGTHS <= wavelengths <= _MOST_WAVELENGTHS:
        raise ValueError(
            f"at {frequency:.4g} Hz the model is {wavelengths:.3g} wavelengths long; is "
            "the frequency in Hz and the spacing in km?"
        )


def check_layer(
    model: VelocityModel,
    frequency: float,
    thickness: float | None,
    reflection: float | None,
) -> None:
    """Refuses an absorbing layer that no computation is meant to have.

    Args:
        model: Velocity model.
        frequency: Frequency [Hz].
        thickness: At least a millionth of the model, and at most ten times the model and
            the longest wavelength [km]; 0 for no layer, None for a default.
        reflection: Amplitude that it reflects, from 1e-30 to 1; None for a default.
    """
    if reflection is not None and not _LEAST_REFLECTION <= reflection < 1:
        raise ValueError(
            f"reflection must lie between 0 and 1, got {reflection} (the least is "
            f"{_LEAST_REFLECTION:g})"
        )
    if thickness is None or thickness == 0:
        return
    if not thickness > 0:
        raise ValueError(
            f"absorbing layer thickness must not be negative, got {thickness} km"
        )
    side = _longest_side(model)
    most = _THICKEST * max(side, model.maximum / frequency)
    if not side / _MOST_WAVELENGTHS <= thickness <= most:
        raise ValueError(
            f"absorbing layer thickness must be at most {most:.4g} km, ten times the "
            f"model or its longest wave, and 0 for none, got {thickness:g} km; is it in "
            "metres?"
        )


def _longest_side(model: VelocityModel) -> float:
    return float(np.max(model.upper - model.lower))


def check_velocity(velocity: Any) -> complex:
    """One background velocity that sound can have [km/s].

    It is a float, or complex with attenuation: v/(1 − i/2Q) has a positive imaginary part.
    """
    if np.iscomplexobj(velocity) and np.ndim(velocity) == 0:
        loss = float(np.imag(velocity))
        if not 0 <= loss <= np.real(velocity):
            raise ValueError(
                "a complex background velocity is v/(1 - i/2Q), with an imaginary part "
                f"from 0 to the real part, got {velocity:g}"
            )
        speed = check_velocity(float(np.real(velocity)))
        return complex(speed.real, loss) if loss else speed
    velocity = _check_positive(velocity, "background velocity", "km/s")
    if not SLOWEST <= velocity <= FASTEST:
        raise ValueError(
            f"background velocity must be {SLOWEST:g} to {FASTEST:g} km/s, got "
            f"{velocity:g}; is it in m/s?"
        )
    return velocity


def _check_positive(value: float, what: str, unit: str) -> float:
    is_number = isinstance(value, Real | np.ndarray | jax.Array) and np.ndim(value) == 0
    if not is_number or isinstance(value, bool) or np.iscomplexobj(value):
        raise ValueError(f"{what} must be one number in {unit}, got {value!r}"[:300])
    if not (np.isfinite(value) and value > 0):
        raise ValueError(f"{what} must be positive, got {value} {unit}")
    return float(value)


def check_amplitude(amplitude: complex) -> complex:
    """One finite amplitude A that is not zero, as a complex number."""
    if np.ndim(amplitude) or not np.issubdtype(np.asarray(amplitude).dtype, np.number):
        raise ValueError(f"amplitude must be one number, got {amplitude!r}"[:300])
    if not (np.isfinite(amplitude) and amplitude != 0):
        raise ValueError(f"amplitude must be finite and not zero, got {amplitude}")
    if not 1 / _LARGEST_AMPLITUDE <= abs(amplitude) <= _LARGEST_AMPLITUDE:
        raise ValueError(
            f"amplitude must be {1 / _LARGEST_AMPLITUDE:g} to {_LARGEST_AMPLITUDE:g} in "
            f"size, as wavefields are kept in single precision, got {amplitude:g}"
        )
    return complex(amplitude)


def velocity_at(model: VelocityModel, source: Sequence[float] | np.ndarray) -> complex:
    """Velocity at one position (ndim,) [km/s], in double precision on the host.

    Complex where the model has a quality, so that the contrast m − m₀ vanishes there.
    """
    return velocities_at(model, np.asarray(source, float)[None])[0].item()


def velocities_at(model: VelocityModel, sources: np.ndarray) -> np.ndarray:
    """`velocity_at` of positions (n, ndim) [km], (n,) [km/s]."""
    # In single precision v₀ would miss the model's velocity by rounding, and m − m₀ would
    # not vanish at the source, where u₀ is infinite.
    with double_precision():
        return np.asarray(model.complex_velocity_at(jnp.asarray(sources, float)))


def background_at(problem: HelmholtzProblem, points: jax.Array) -> jax.Array:
    """Background wavefield u₀ at points (n, ndim), continued into the layer, (n,)."""
    offset = absorbing.stretched_offset(
        problem.layer, points, problem.source, problem.omega
    )
    wavenumber = problem.omega / problem.background_velocity
    return background.background_field(offset, wavenumber, problem.amplitude)


def scattering_source_at(
    problem: HelmholtzProblem, points: jax.Array, squared_slowness: jax.Array | None = None
) -> jax.Array:
    """Right-hand side −ω² (m − m₀) u₀ at points (n, ndim) [km]; complex (n,).

    It is of the model's m, or of another at the points, (n,) [s²/km²].
    """
    if squared_slowness is None:
        squared_slowness = problem.model.squared_slowness_at(points)
    return residual.scattering_source(
        squared_slowness,
        1 / problem.background_velocity**2,
        background_at(problem, points),
        problem.omega,
    )


def collocate(problem: HelmholtzProblem, points: jax.Array) -> Collocation:
    """A problem's coefficients at points (n, ndim) [km], in the model or its layer.

    Pure, so that it can be jitted and vmapped over tasks.
    """
    chex.assert_shape(points, (None, problem.ndim))
    omega = jnp.asarray(problem.omega)
    return Collocation(
        points=points,
        squared_slowness=problem.model.squared_slowness_at(points),
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
    """Draws collocation points in the model and its layer, (number, ndim) [km].

    Args:
        key: Random key.
        problem: The problem.
        number: How many points.
        near_source: Fraction drawn from a normal distribution of half a background
            wavelength around the source, where the right-hand side varies fastest. Its
            default trades points there for points elsewhere; it is not tuned.
    """
    number_near = int(round(near_source * number))
    key_far, key_near = jax.random.split(key)
    lower, upper = jnp.asarray(problem.lower), jnp.asarray(problem.upper)
    far = jax.random.uniform(
        key_far, (number - number_near, problem.ndim), dtype=lower.dtype
    )
    far = lower + (upper - lower) * far
    wavelength = 2 * jnp.pi * problem.background_speed / problem.omega
    near = jax.random.normal(key_near, (number_near, problem.ndim), dtype=lower.dtype)
    near = jnp.asarray(problem.source) + 0.5 * wavelength * near
    return jnp.concatenate([far, jnp.clip(near, lower, upper)])
