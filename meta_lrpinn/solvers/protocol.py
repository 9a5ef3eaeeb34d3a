"""What every solver takes and gives: prepared once, applied to many velocities.

    prepared = settings.prepare(bounds, frequency, sources, receivers, conditions)
    solved   = prepared.solve(model)
    data     = prepared.data(velocity)

`settings.Solver` is the base of all settings and has `prepare`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from meta_lrpinn.metrics import relative_l2
from meta_lrpinn.physics import background, free_surface, problem
from meta_lrpinn.physics.problem import HelmholtzProblem
from meta_lrpinn.physics.velocity import VelocityModel
from meta_lrpinn.runtime.precision import Array
from meta_lrpinn.solvers.bounds import Bounds, bounds_of_model
from meta_lrpinn.wavefield import Statistics

# Random keys drop what is beyond 32 bits.
_LARGEST_SEED = 2**32 - 1
_MOST_MEMORY = 1e6  # GiB


@dataclasses.dataclass(frozen=True)
class Keys:
    """Independent random keys of all that is random in a solve."""

    network: jax.Array  # random parameters
    points: jax.Array  # collocation points of adaptation


def keys_of(seed: int) -> Keys:
    """The keys of a seed.

    Raises:
        ValueError: if the seed is not a whole number from 0 up, or has over 32 bits.
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"seed must be a whole number from 0 up, got {seed!r}")
    if seed > _LARGEST_SEED:
        raise ValueError(f"seed must be at most {_LARGEST_SEED}, got {seed}")
    # Two of the four are spare, so that another random part leaves these as they are.
    network, _, _, points = jax.random.split(jax.random.key(int(seed)), 4)
    return Keys(network, points)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Conditions:
    """What wavefields depend on besides velocity, frequency, positions and solver.

    Raises:
        ValueError: if a value is out of its range, in one line.
    """

    amplitude: complex | None = None  # A of u₀; None for the fundamental solution
    background_velocity: complex | None = None  # v₀ [km/s]; None: that at each source
    thickness: float | None = None  # of the absorbing layer [km]; None: the solver's own
    reflection: float | None = None  # amplitude that the layer reflects; likewise
    free_surface: bool = False  # u = 0 at the top of the model
    # (n_sources,) of sources that are fired together, which have one wavefield; None for
    # a wavefield of each.
    weights: np.ndarray | None = None
    seed: int = 0  # of all that is random
    # GiB for the vectors and fields of one solve, in which sources are split into batches
    # that fit; None for all sources at once.
    memory: float | None = None
    progress: bool = False  # show a progress bar

    def __post_init__(self):
        if self.amplitude is not None:
            amplitude = problem.check_amplitude(self.amplitude)
            object.__setattr__(self, "amplitude", amplitude)
        if self.background_velocity is not None:
            velocity = problem.check_velocity(self.background_velocity)
            object.__setattr__(self, "background_velocity", velocity)
        keys_of(self.seed)
        if self.memory is not None and not 0 < self.memory <= _MOST_MEMORY:
            raise ValueError(
                f"memory must be positive and at most {_MOST_MEMORY:,.0f} GiB, got "
                f"{self.memory:g}"
            )


@dataclasses.dataclass(frozen=True)
class Setup:
    """What a solver is prepared for, checked by `make_setup`."""

    bounds: Bounds  # of all velocities to come
    frequency: float  # Hz
    sources: np.ndarray  # (n_sources, ndim) [km]
    receivers: np.ndarray | None  # (n_receivers, ndim) [km]; None for the models' grid
    conditions: Conditions

    @property
    def grid(self) -> VelocityModel:
        """A model on the grid of all velocities."""
        return self.bounds.lowest

    @property
    def amplitude(self) -> complex:
        """A of the background field."""
        if self.conditions.amplitude is not None:
            return self.conditions.amplitude
        return background.default_amplitude(self.grid.ndim)

    @property
    def keys(self) -> Keys:
        """Random keys of the seed."""
        return keys_of(self.conditions.seed)

    @property
    def layer_options(self) -> dict[str, float]:
        """Thickness and reflection of the absorbing layer, where they are asked for."""
        options = {
            "thickness": self.conditions.thickness,
            "reflection": self.conditions.reflection,
        }
        return {name: value for name, value in options.items() if value is not None}

    def background_velocities(self, model: VelocityModel) -> np.ndarray:
        """v₀ of each source in a model, (n_sources,) [km/s], complex with attenuation."""
        if self.conditions.background_velocity is None:
            return problem.velocities_at(model, self.sources)
        return np.full(len(self.sources), self.conditions.background_velocity)

    def problems(
        self, model: VelocityModel, layer_fraction: float | None = None
    ) -> list[HelmholtzProblem]:
        """The problems of all sources in a model, in the thickest of their layers.

        Args:
            model: On the grid of the bounds.
            layer_fraction: Of a network, the layer that its features were trained in, over
                training's default; None for the layer of exact solvers.
        """
        posed = [
            problem.make_problem(
                model,
                self.frequency,
                source,
                amplitude=self.amplitude,
                background_velocity=velocity,
                layer_fraction=layer_fraction,
                **self.layer_options,
            )
            for source, velocity in zip(
                self.sources, self.background_velocities(model), strict=True
            )
        ]
        widest = max(posed, key=lambda p: float(p.layer.thickness)).layer
        return [source_problem.replace(layer=widest) for source_problem in posed]

    def mirrored(self) -> "Setup":
        """The setup of the mirrored models without a free surface; see `free_surface`."""
        receivers = self.receivers
        if receivers is not None:
            receivers = free_surface.with_images(receivers, self.grid)
        return dataclasses.replace(
            self,
            bounds=self.bounds.mirrored(),
            receivers=receivers,
            conditions=dataclasses.replace(self.conditions, free_surface=False),
        )


def make_setup(
    bounds: VelocityModel | Bounds,
    frequency: float,
    sources: np.ndarray,
    receivers: np.ndarray | None = None,
    conditions: Conditions | None = None,
) -> Setup:
    """A setup, checked.

    Args:
        bounds: Of the velocities; one model is its own bounds.
        frequency: Frequency [Hz].
        sources: Source position (ndim,), or several, (n_sources, ndim) [km].
        receivers: Likewise; None for the models' grid.
        conditions: Everything else; by default `Conditions()`.

    Raises:
        ValueError: if an argument is out of its range, in one line.
    """
    conditions = Conditions() if conditions is None else conditions
    if isinstance(bounds, VelocityModel):
        bounds = bounds_of_model(bounds)
    if not isinstance(bounds, Bounds):
        raise ValueError(
            f"model must be a VelocityModel, got {type(bounds).__name__}; make one of an "
            "array by VelocityModel(velocity, spacing)"
        )
    grid = bounds.lowest
    frequency = problem.check_frequency(frequency)
    problem.check_scale(grid, frequency)
    problem.check_layer(grid, frequency, conditions.thickness, conditions.reflection)
    sources, receivers = check_positions(grid, sources, receivers, conditions.free_surface)
    if conditions.weights is not None:
        weights = check_weights(conditions.weights, len(sources))
        conditions = dataclasses.replace(conditions, weights=weights)
    return Setup(bounds, frequency, sources, receivers, conditions)


def check_weights(weights: Any, number: int) -> np.ndarray:
    """Weights of sources that are fired together, (n_sources,), real or complex.

    Raises:
        ValueError: if they are not one finite number for each source, or all zero.
    """
    values = np.asarray(weights)
    if values.dtype.kind not in "fiuc" or values.shape != (number,):
        raise ValueError(
            f"weights must be one number for each of {number} sources, got {weights!r}"[
                :200
            ]
        )
    if not (np.all(np.isfinite(values)) and np.any(values)):
        raise ValueError("weights must be finite, and one of them not zero")
    return values


def check_positions(
    grid: VelocityModel,
    sources: np.ndarray,
    receivers: np.ndarray | None,
    has_surface: bool,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Sources (n_sources, ndim) and receivers (n_receivers, ndim) in a model [km].

    Raises:
        ValueError: if one lies outside, a source on a free surface, or there is none.
    """
    grid.check_contains(sources, what="source")
    sources = np.atleast_2d(np.asarray(sources, float))
    if not len(sources):
        raise ValueError("at least one source is needed")
    if has_surface:
        free_surface.check_sources(grid, sources)
    if receivers is not None:
        grid.check_contains(receivers, what="receiver")
        receivers = np.atleast_2d(np.asarray(receivers, float))
    return sources, receivers


@dataclasses.dataclass(frozen=True)
class Truth:
    """A known δu, which records of a history are compared with."""

    scattered: np.ndarray  # (n_sources, nz, [ny,] nx) complex
    # What of fields on the solver's grid is compared; below a free surface their odd part.
    compared: Callable[[np.ndarray], np.ndarray] | None = None

    def distance(self, fields: Array, sources: slice = slice(None)) -> float:
        """Relative L2 distance of fields from the truth.

        Args:
            fields: δu on the model's grid, (n, nz, [ny,] nx).
            sources: Whose fields they are, n of them.

        Raises:
            ValueError: if the truth is zero.
        """
        fields = np.asarray(fields)
        if self.compared is not None:
            fields = self.compared(fields)
        return relative_l2(fields, self.scattered[sources])


@dataclasses.dataclass(frozen=True)
class Solved:
    """δu of all sources in one velocity, and what it is worth."""

    # (n_sources, nz, [ny,] nx) on the grid, or (n_sources, n_receivers), complex
    fields: np.ndarray
    # (n_sources,) own estimates of the relative error; None where there are none
    error_estimates: np.ndarray | None = None
    # (n_sources,) whether the tolerance was reached; None where none was asked for
    converged: np.ndarray | None = None
    # Points (n, ndim) → (n_sources, n); None where δu is known at `fields` only.
    evaluate: Callable[[np.ndarray], np.ndarray] | None = None
    stats: Statistics = Statistics()
    history: tuple[dict[str, Any], ...] = ()
    initialisation: str | None = None  # SHA-256 of the parameters a network started with


class Solve(Protocol):
    """(model, truth) → what was solved."""

    def __call__(self, model: VelocityModel, truth: Truth | None = None) -> Solved:
        """δu of all sources in a model."""
        ...


def no_gradient(velocity: jax.Array) -> jax.Array:
    """The `data` of solvers without a gradient.

    Raises:
        ValueError: always.
    """
    raise ValueError(
        "this solver has no data to differentiate; it needs one that has, such as "
        "PlaneWaves, and receivers"
    )


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A solver for all velocities within the bounds of its setup.

    `solve(model, truth=None)` gives δu of all sources, `Solved`. v₀ of a source is that of
    the conditions, or the model's own there.

    `data(velocity)` gives δu at the receivers, complex (n_sources, n_receivers), as a pure
    function of a velocity on the grid [km/s] that can be differentiated and jitted, in the
    precision that JAX works in. v₀ of a source is that of the conditions, or of the
    smallest velocity there, whatever the velocity.
    """

    setup: Setup
    solve: Solve
    data: Callable[[jax.Array], jax.Array] = no_gradient


def with_weighted_data(prepared: Prepared) -> Prepared:
    """The same, whose `data` of sources that are fired together are one row."""
    weights, each = prepared.setup.conditions.weights, prepared.data
    if weights is None or each is no_gradient:
        return prepared

    def data(velocity: jax.Array) -> jax.Array:
        return jnp.tensordot(jnp.asarray(weights), each(velocity), 1)[None]

    return dataclasses.replace(prepared, data=data)


def at_receivers(
    setup: Setup, evaluate: Callable[[np.ndarray], np.ndarray], fields: np.ndarray
) -> np.ndarray:
    """δu where it is asked for: at the receivers, or on the grid.

    Args:
        setup: Says where.
        evaluate: Points (n, ndim) → (n_sources, n).
        fields: On the grid, (n_sources, nz, [ny,] nx).
    """
    return fields if setup.receivers is None else evaluate(setup.receivers)
