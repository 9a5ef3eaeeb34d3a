"""What every solver finds: a scattered wavefield on its model's grid, and off it."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from meta_lrpinn.physics import background
from meta_lrpinn.velocity import VelocityModel

PARTS = ("scattered", "background", "total")
_FEWEST_POINTS = 256


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Figures of a solve; what a solver does not have is None.

    Networks and random waves solve for each source in turn, with the same unknowns and
    ranks; of the steps these are the most that any source took.
    """

    unknowns: int | None = None  # complex unknowns of the linear solve
    iterations: int | None = None  # of the linear solve
    residual: float | None = None  # relative, that the iterations left
    rank: tuple[int, ...] | None = None  # of each hidden layer of a low-rank network
    steps: int | None = None  # of adaptation, taken


@dataclasses.dataclass(frozen=True)
class Provenance:
    """How a wavefield came about, beyond the settings of its solver."""

    version: str  # of this package
    created: str  # when the solve began, UTC, ISO 8601
    seed: int
    thickness: float | None  # absorbing layer as asked for [km]; None: the solver's own
    reflection: float | None  # that was asked for; likewise
    initialisation: str | None = None  # SHA-256 of the parameters a network started with


@dataclasses.dataclass(frozen=True)
class SolvedField:
    """Frequency-domain wavefield u = u₀ + δu of one or several point sources.

    With several sources, every array has the source as its first axis.
    """

    model: VelocityModel
    frequency: float  # Hz
    source: np.ndarray  # (ndim,) or (n_sources, ndim) [km]
    amplitude: complex  # A of the background field
    # v₀, () or (n_sources,) [km/s]; v/(1 − i/2Q), complex, with attenuation
    background_velocity: np.ndarray
    scattered: np.ndarray  # δu on the grid, ([n_sources,] nz, [ny,] nx), complex
    background: np.ndarray  # u₀ on the grid, the same shape
    solver: str  # name of the solver, as in `solvers.settings.SOLVERS`
    settings: Any  # the settings it was given
    elapsed: float  # [s], compilation included
    provenance: Provenance | None = None
    stats: Statistics = Statistics()
    history: tuple[dict[str, Any], ...] = ()  # one record per reported step
    # Own estimate of the relative L2 error of δu, () or (n_sources,), where there is one.
    error_estimates: np.ndarray | None = None
    # Whether a tolerance that was asked for was reached; None where none was.
    converged: bool | None = None
    evaluate: Callable[[np.ndarray], np.ndarray] | None = dataclasses.field(
        default=None, repr=False
    )  # points (n, ndim) → δu (n_sources, n)
    free_surface: bool = False  # u = 0 at the top of the model

    @property
    def error_estimate(self) -> float | None:
        """The largest of `error_estimates`; None where no source has one."""
        if self.error_estimates is None:
            return None
        known = np.ravel(self.error_estimates)
        known = known[np.isfinite(known)]
        return float(known.max()) if known.size else None

    @property
    def total(self) -> np.ma.MaskedArray:
        """Total wavefield u = u₀ + δu on the grid.

        A node on which a source stands is masked, with a zero beneath the mask: u₀ is
        infinite there, and would drown every norm.
        """
        total = self.background + self.scattered
        at_source = np.zeros(total.shape, bool)
        points = self.model.grid_points()
        # As `VelocityModel.check_contains`: half a thousandth of a cell is rounding.
        reach = 5e-4 * min(self.model.spacing)
        several = at_source.reshape(-1, *self.model.shape)
        for place, source in zip(several, np.atleast_2d(self.source), strict=True):
            distance = np.linalg.norm(points - source, axis=-1)
            place[...] = (distance <= reach).reshape(self.model.shape)
        return np.ma.MaskedArray(np.where(at_source, 0, total), mask=at_source)

    def at(self, points: np.ndarray, part: str = "scattered") -> np.ndarray:
        """Wavefield at any points of the model.

        Args:
            points: Coordinates (n, ndim) [km], in the model.
            part: "scattered" (δu), "background" (u₀) or "total".

        Returns:
            Complex ([n_sources,] n).

        Raises:
            ValueError: if points are not (n, ndim), one lies outside the model, there
                is no such part, or this field lives on its grid only.
        """
        if part not in PARTS:
            raise ValueError(f"part must be one of {', '.join(PARTS)}, got {part!r}")
        if np.ndim(points) != 2 or np.shape(points)[1] != self.model.ndim:
            raise ValueError(
                f"points must have shape (n, {self.model.ndim}), got {np.shape(points)}"
            )
        points = np.asarray(points, float)
        self.model.check_contains(points, what="point")
        values = np.zeros((len(np.atleast_2d(self.source)), len(points)), complex)
        if part != "background":
            if self.evaluate is None:
                raise ValueError("this wavefield is known on its grid only")
            values = values + self.evaluate(points)
        if part != "scattered":
            values = values + self._background_at(points)
        return values if np.ndim(self.source) == 2 else values[0]

    def _background_at(self, points: np.ndarray) -> np.ndarray:
        return background_of_sources(
            points,
            self.frequency,
            np.atleast_2d(self.source),
            np.ravel(self.background_velocity),
            self.amplitude,
            float(self.model.lower[-1]) if self.free_surface else None,
        )


def mirrored(points: np.ndarray, surface: float) -> np.ndarray:
    """Images of points (n, ndim) behind a horizontal surface at a depth [km]."""
    images = np.array(points, float)
    images[:, -1] = 2 * surface - images[:, -1]
    return images


def background_of_sources(
    points: np.ndarray,
    frequency: float,
    sources: np.ndarray,
    velocities: np.ndarray,
    amplitude: complex,
    surface: float | None = None,
) -> np.ndarray:
    """Background wavefields u₀ of several sources, in double precision.

    Args:
        points: Coordinates (n, ndim) [km].
        frequency: Frequency [Hz].
        sources: Source positions (n_sources, ndim) [km].
        velocities: v₀ of each (n_sources,) [km/s].
        amplitude: A.
        surface: Depth of a free surface [km], by which each source has an image.

    Returns:
        Complex (n_sources, n).
    """
    if surface is not None:
        options = frequency, sources, velocities, amplitude
        below = background_of_sources(points, *options)
        return below - background_of_sources(mirrored(points, surface), *options)
    number = len(points)
    if not number:
        return np.empty((len(sources), 0), complex)
    # Of a power of two, so that models of ever new shapes need no programs of their own.
    size = max(_FEWEST_POINTS, 1 << (number - 1).bit_length())
    padded = np.pad(points, ((0, size - number), (0, 0)), mode="edge")
    with jax.enable_x64(True):
        fields = [
            _background(padded - source, 2 * np.pi * frequency / v0, amplitude)
            for source, v0 in zip(sources, velocities, strict=True)
        ]
        return np.stack([np.asarray(field)[:number] for field in fields])


_background = jax.jit(background.background_field)
