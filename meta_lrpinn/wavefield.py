"""The one result of `solve`: the wavefield on its model's grid and off it, and what one
does with it (drawn by `plotting`; converted, saved and reported by `results`)."""

import dataclasses
import functools
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import spatial

from meta_lrpinn.physics import background
from meta_lrpinn.physics.velocity import VelocityModel

PARTS = ("scattered", "background", "total")

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Figures of a solve; what a solver does not have is None.

    Networks solve for each source in turn, with the same unknowns and ranks; `steps` are
    the most that any source took.
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
class Wavefield:
    """Frequency-domain wavefield u = u₀ + δu of one or several point sources.

    With several sources, every array has the source as its first axis, unless they were
    fired together with `weights`. It can be pickled and sent to other processes.
    """

    model: VelocityModel
    frequency: float  # Hz
    source: np.ndarray  # (ndim,) or (n_sources, ndim) [km]
    amplitude: complex  # A of the background field
    # v₀, () or (n_sources,) [km/s]; v/(1 − i/2Q), complex, with attenuation
    background_velocity: np.ndarray
    scattered: np.ndarray  # δu on the grid, ([n_sources,] nz, [ny,] nx), complex
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
    # (n_sources,) of sources that were fired together, which have one wavefield
    weights: np.ndarray | None = None

    @property
    def has_source_axis(self) -> bool:
        """Whether arrays have the source as their first axis."""
        return np.ndim(self.source) == 2 and self.weights is None

    @property
    def marks(self) -> np.ndarray:
        """A position for each wavefield that is drawn, (n, ndim) [km].

        Those of the sources; of sources that were fired together the strongest.
        """
        sources = np.atleast_2d(np.asarray(self.source, float))
        if self.weights is None:
            return sources
        return sources[[np.argmax(np.abs(self.weights))]]

    @property
    def error_estimate(self) -> float | None:
        """The largest of `error_estimates`; None where no source has one."""
        if self.error_estimates is None:
            return None
        known = np.ravel(self.error_estimates)
        known = known[np.isfinite(known)]
        return float(known.max()) if known.size else None

    @functools.cached_property
    def background(self) -> np.ndarray:
        """Background wavefield u₀ on the grid, of the shape and type of `scattered`."""
        fields = self._background_at(self.model.grid_points())
        return fields.reshape(self.scattered.shape).astype(self.scattered.dtype)

    @property
    def total(self) -> np.ma.MaskedArray:
        """Total wavefield u = u₀ + δu on the grid.

        A node on which a source stands is masked, with a zero beneath the mask: u₀ is
        infinite there, and would drown every norm.
        """
        total = self.background + self.scattered
        at_source = self._on_sources(self.model.grid_points())
        if not self.has_source_axis:
            at_source = at_source.any(axis=0)
        at_source = at_source.reshape(total.shape)
        return np.ma.MaskedArray(np.where(at_source, 0, total), mask=at_source)

    def at(self, points: np.ndarray, part: str = "scattered") -> np.ndarray:
        """Wavefield at any points of the model.

        Args:
            points: Coordinates (n, ndim) [km], in the model.
            part: "scattered" (δu), "background" (u₀) or "total".

        Returns:
            Complex ([n_sources,] n). Of several sources, u₀ and u are infinite where a
            point stands on the source.

        Raises:
            ValueError: if points are not (n, ndim), one lies outside the model, there
                is no such part, this field lives on its grid only, or a point stands on
                the only source, where u₀ and u are infinite.
        """
        if part not in PARTS:
            raise ValueError(f"part must be one of {', '.join(PARTS)}, got {part!r}")
        if np.ndim(points) != 2 or np.shape(points)[1] != self.model.ndim:
            raise ValueError(
                f"points must have shape (n, {self.model.ndim}), got {np.shape(points)}"
            )
        points = np.asarray(points, float)
        self.model.check_contains(points, what="point")
        number = len(self.source) if self.has_source_axis else 1
        values = np.zeros((number, len(points)), complex)
        if part != "background":
            if self.evaluate is None:
                raise ValueError("this wavefield is known on its grid only")
            values = values + self.evaluate(points)
        if part != "scattered":
            on_source = self._on_sources(points)
            if not self.has_source_axis and np.any(on_source):
                position = points[np.argmax(on_source.any(axis=0))].tolist()
                raise ValueError(
                    f"a point stands on a source, where u is infinite: {position}"
                )
            values = values + self._background_at(points)
            if self.has_source_axis:
                values[on_source] = np.inf
        return values if self.has_source_axis else values[0]

    def _on_sources(self, points: np.ndarray) -> np.ndarray:
        """Whether a point stands on a source, (n_sources, n)."""
        distances = spatial.distance.cdist(np.atleast_2d(self.source), points)
        # As in `VelocityModel.check_contains`, half a thousandth of a cell is rounding.
        return distances <= 5e-4 * min(self.model.spacing)

    def _background_at(self, points: np.ndarray) -> np.ndarray:
        fields = background.background_of_sources(
            points,
            self.frequency,
            np.atleast_2d(self.source),
            np.ravel(self.background_velocity),
            self.amplitude,
            float(self.model.lower[-1]) if self.free_surface else None,
        )
        return fields if self.weights is None else self.weights @ fields

    def to_xarray(self) -> "xarray.Dataset":
        """The fields with coordinates, units and provenance.

        Returns:
            A dataset with `velocity`, `scattered`, `background` and `total` over z, y and
            x [km], after `source` where there are several; `frequency` and the source
            positions are coordinates. `total` is NaN at nodes that hold a source.

        Raises:
            ValueError: if xarray is not installed.
        """
        from meta_lrpinn.results import storage

        return storage.to_xarray(storage.contents(self))

    def save(self, path: str | os.PathLike) -> None:
        """Writes what `to_xarray` gives; `load_wavefield` reads it, all of it or nothing.

        Each of these files is also a case, which `load_case` and `--velocity` read.

        Args:
            path: Ending in .nc, .zarr, .h5 or .npz, which is the format; replaced if it
                exists.

        Raises:
            ValueError: if the ending is another, or the format's library is missing.
        """
        from meta_lrpinn.results import storage

        storage.save(self, path)

    def plot(
        self, reference: np.ndarray | None = None, *, source_index: int = 0
    ) -> "Figure":
        """Velocity, fields and, with a reference, the difference from it.

        In 3D each of them is cut by three planes; see `plotting.wavefield_figure`.

        Args:
            reference: δu to compare with, of the shape of `scattered`.
            source_index: Which source to show where there are several.

        Returns:
            A Matplotlib figure; save it with `figure.savefig(path)`.

        Raises:
            ValueError: if the reference has another shape, or there is no such source.
        """
        from meta_lrpinn import plotting

        return plotting.wavefield_figure(self, reference, source_index=source_index)

    def report(self, path: str | os.PathLike, reference: np.ndarray | None = None) -> None:
        """Writes one HTML file that any browser opens, without a server or a network.

        Several frequencies in one file are written by `write_report`.

        Args:
            path: The file, ending in .html; replaced if it exists.
            reference: δu to compare with, of the shape of `scattered`.

        Raises:
            ValueError: if the path has another ending, the reference another shape, the
                report would be too large to open, or plotly is not installed.
        """
        from meta_lrpinn.results import report

        report.write_report(path, [self], None if reference is None else [reference])
