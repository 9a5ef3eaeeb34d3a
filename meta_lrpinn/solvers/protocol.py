"""What every solver takes and gives: prepared once, applied to many velocities.

    prepared = settings.prepare(bounds, frequency, sources, receivers, conditions)
    solved   = prepared.solve(model)
    data     = prepared.data(velocity)

`settings.Solver` is the base of all settings and has `prepare`.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from meta_lrpinn.physics import background, free_surface, problem
from meta_lrpinn.physics.problem import HelmholtzProblem
from meta_lrpinn.physics.velocity import VelocityModel
from meta_lrpinn.wavefield import Statistics

if TYPE_CHECKING:
    from meta_lrpinn.solvers.settings import Solver

# Points (n, ndim) [km] → δu (n_sources, n); one that a solver returns can be pickled.
Field = Callable[[np.ndarray], np.ndarray]
# Relative L2 distance of δu on the model's grid, (n, nz, [ny,] nx), from a known one; of n
# sources that a slice gives as a second argument, or of all.
Distance = Callable[..., float]
# (model, distance=None) → δu of all sources
Solve = Callable[..., "Solved"]

# Random keys drop what is beyond 32 bits.
_LARGEST_SEED = 2**32 - 1
_MOST_MEMORY = 1e6  # GiB; a guard against other units, not tuned


@dataclasses.dataclass(frozen=True)
class Bounds:
    """What a lattice, a layer or a grid has to know of the velocities that it serves."""

    lowest: VelocityModel  # the smallest velocity at every grid point
    highest: VelocityModel  # the largest
    # By array axis, (cells,), largest |Δ ln v| in a cell; None for those of the one model
    # that is its own bounds.
    steps: tuple[np.ndarray, ...] | None = None

    @property
    def are_of_one_model(self) -> bool:
        """Whether they are the bounds of a single model."""
        return self.steps is None

    def mirrored(self) -> "Bounds":
        """Of the models with their mirror images above their tops."""
        steps = self.steps
        if steps is not None:
            steps = (np.concatenate([steps[0][::-1], steps[0]]), *steps[1:])
        lowest, highest = map(free_surface.mirrored_model, (self.lowest, self.highest))
        return Bounds(lowest, highest, steps)

    def middle(self) -> VelocityModel:
        """Half-way between the smallest and the largest velocity."""
        velocities = (np.asarray(m.velocity) for m in (self.lowest, self.highest))
        return self.lowest.replace_velocity(sum(velocities) / 2)

    def steepest(self) -> list[np.ndarray]:
        """For each axis a velocity whose steps along it are the largest of all [km/s].

        Empty for one model, which has its own steps.
        """
        velocities = []
        for axis, steps in enumerate(self.steps or ()):
            # Up and down by turns, so that it stays finite in any number of cells.
            signs = (-1.0) ** np.arange(len(steps))
            line = np.exp(np.concatenate([[0.0], np.cumsum(signs * steps)]))
            shape = [1] * self.lowest.ndim
            shape[axis] = -1
            velocities.append(np.broadcast_to(line.reshape(shape), self.lowest.shape))
        return velocities


def bounds_of(grid: VelocityModel, velocities: Iterable[np.ndarray]) -> Bounds:
    """The bounds of velocities, which are looked at one at a time.

    Args:
        grid: A model on their grid.
        velocities: Of its shape [km/s]; at least one.
    """
    lowest, highest = np.full(grid.shape, np.inf), np.zeros(grid.shape)
    steps = [np.zeros(count - 1) for count in grid.shape]
    for velocity in velocities:
        velocity = np.asarray(velocity, float)
        lowest, highest = np.minimum(lowest, velocity), np.maximum(highest, velocity)
        for axis, largest in enumerate(steps):
            change = np.abs(np.diff(np.log(velocity), axis=axis))
            others = tuple(d for d in range(velocity.ndim) if d != axis)
            np.maximum(largest, change.max(axis=others), out=largest)
    return Bounds(
        grid.replace_velocity(lowest), grid.replace_velocity(highest), tuple(steps)
    )


def keys_of(seed: int) -> tuple[jax.Array, jax.Array]:
    """Independent random keys, of a network's parameters and of collocation points.

    Raises:
        ValueError: if the seed is not a whole number from 0 up, or has over 32 bits.
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"seed must be a whole number from 0 up, got {seed!r}")
    if seed > _LARGEST_SEED:
        raise ValueError(f"seed must be at most {_LARGEST_SEED}, got {seed}")
    # Two of the four are spare, so that another random part leaves these as they are.
    network, _, _, points = jax.random.split(jax.random.key(int(seed)), 4)
    return network, points


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

    def problem(
        self, model: VelocityModel, source: np.ndarray, **changes: Any
    ) -> HelmholtzProblem:
        """The problem of one source; changes are of arguments of `make_problem`."""
        options = {
            "amplitude": self.amplitude,
            "background_velocity": self.conditions.background_velocity,
            "thickness": self.conditions.thickness,
            "reflection": self.conditions.reflection or problem.REFLECTION,
        }
        return problem.make_problem(model, self.frequency, source, **options | changes)

    def background_velocities(self, model: VelocityModel) -> np.ndarray:
        """v₀ of each source in a model, (n_sources,) [km/s], complex with attenuation."""
        if self.conditions.background_velocity is None:
            return problem.velocities_at(model, self.sources)
        return np.full(len(self.sources), self.conditions.background_velocity)


def make_setup(
    bounds: VelocityModel | Bounds,
    frequency: float,
    sources: np.ndarray,
    receivers: np.ndarray | None = None,
    conditions: Conditions | None = None,
) -> Setup:
    """A setup of the arguments of `settings.Solver.prepare`, checked.

    Raises:
        ValueError: if an argument is out of its range, in one line.
    """
    conditions = Conditions() if conditions is None else conditions
    if isinstance(bounds, VelocityModel):
        bounds = Bounds(bounds, bounds)
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
        weights = np.asarray(conditions.weights)
        if weights.dtype.kind not in "fiuc" or weights.shape != (len(sources),):
            message = f"weights must be one number for each of {len(sources)} sources, got "
            raise ValueError((message + repr(conditions.weights))[:200])
        if not (np.all(np.isfinite(weights)) and np.any(weights)):
            raise ValueError("weights must be finite, and one of them not zero")
        conditions = dataclasses.replace(conditions, weights=weights)
    return Setup(bounds, frequency, sources, receivers, conditions)


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
class Solved:
    """δu of all sources in one velocity, and what it is worth."""

    # (n_sources, nz, [ny,] nx) on the grid, or (n_sources, n_receivers), complex
    fields: np.ndarray
    # (n_sources,) own estimates of the relative error; None where there are none
    error_estimates: np.ndarray | None = None
    # (n_sources,) whether the tolerance was reached; None where none was asked for
    converged: np.ndarray | None = None
    evaluate: Field | None = None  # None where δu is known at `fields` only
    stats: Statistics = Statistics()
    history: tuple[dict[str, Any], ...] = ()
    initialisation: str | None = None  # SHA-256 of the parameters a network started with


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

    `solve(model, distance=None)` gives δu of all sources, `Solved`, whose history notes the
    `Distance`. v₀ of a source is that of the conditions, or the model's own there.

    `data(velocity)` gives δu at the receivers, complex (n_sources, n_receivers), as a pure
    function of a velocity on the grid [km/s] that can be differentiated and jitted, in the
    precision that JAX works in. v₀ of a source is that of the conditions, or of the
    smallest velocity there, whatever the velocity.
    """

    setup: Setup
    solve: Solve
    data: Callable[[jax.Array], jax.Array] = no_gradient


def at_receivers(setup: Setup, evaluate: Field, fields: np.ndarray) -> np.ndarray:
    """δu where a setup asks for it: at the receivers, (n_sources, n_receivers), or on the
    grid, where it is `fields`, (n_sources, nz, [ny,] nx)."""
    return fields if setup.receivers is None else evaluate(setup.receivers)


def of_velocity(
    setup: Setup, data: Callable[[jax.Array], jax.Array]
) -> Callable[[jax.Array], jax.Array]:
    """A function of the squared slowness [s²/km²] as one of the velocity [km/s]."""

    def function(velocity: jax.Array) -> jax.Array:
        model = setup.grid.replace_velocity(velocity)
        return data(jnp.asarray(model.squared_slowness))

    return function


def with_weighted_data(prepared: Prepared) -> Prepared:
    """The same, whose `data` of sources that are fired together are one row."""
    weights, each = prepared.setup.conditions.weights, prepared.data
    if weights is None or each is no_gradient:
        return prepared

    def data(velocity: jax.Array) -> jax.Array:
        return jnp.tensordot(jnp.asarray(weights), each(velocity), 1)[None]

    return dataclasses.replace(prepared, data=data)


def below_surface(solver: "Solver", setup: Setup) -> Prepared:
    """Any solver below a free surface: prepared for the mirrored models instead.

    See `physics.free_surface`.
    """
    receivers = images = setup.receivers
    if receivers is not None:
        images = free_surface.with_images(receivers, setup.grid)
    conditions = dataclasses.replace(setup.conditions, free_surface=False)
    bounds = setup.bounds.mirrored()
    mirrored = Setup(bounds, setup.frequency, setup.sources, images, conditions)
    whole = solver.prepare_setup(mirrored)

    def solve(model: VelocityModel, distance: Distance | None = None) -> Solved:
        def distance_of_odd(fields, *sources):
            assert distance is not None
            return distance(free_surface.odd_part(model, fields), *sources)

        solved = whole.solve(
            free_surface.mirrored_model(model), distance and distance_of_odd
        )
        if receivers is None:
            fields = free_surface.odd_part(model, solved.fields)
        else:
            fields = free_surface.odd_values(solved.fields, receivers, model)
        estimates, converged = solved.error_estimates, solved.converged
        if estimates is not None:
            estimates = np.asarray(estimates) * _growth(solved.fields, fields)
            if converged is not None and solver.tolerance is not None:
                converged = converged & (estimates <= solver.tolerance)
        return dataclasses.replace(
            solved,
            fields=fields,
            evaluate=solved.evaluate and functools.partial(_odd, solved.evaluate, model),
            error_estimates=estimates,
            converged=converged,
        )

    def data(velocity: jax.Array) -> jax.Array:
        assert receivers is not None
        both = whole.data(jnp.concatenate([velocity[:0:-1], velocity]))
        return free_surface.odd_values(both, receivers, setup.grid)

    has_gradient = whole.data is not no_gradient
    return Prepared(setup, solve, data if has_gradient else no_gradient)


def _odd(field: Field, model: VelocityModel, points: np.ndarray) -> np.ndarray:
    """A field less its mirror image at points (n, ndim) below a surface, (n_sources, n)."""
    both = field(free_surface.with_images(points, model))
    return free_surface.odd_values(both, points, model)


def _growth(whole: np.ndarray, odd: np.ndarray) -> np.ndarray:
    """What relative errors grow by as fields become differences, (n_sources,).

    The errors of a field and of its image are taken to be independent.
    """
    before, after = (
        np.linalg.norm(fields.reshape(len(fields), -1), axis=1) for fields in (whole, odd)
    )
    return np.divide(before, after, out=np.ones(len(odd)), where=after > 0)
