"""Options of a problem: velocity, frequency, sources, background field."""

import argparse
import dataclasses
import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from meta_lrpinn.cli import Report, parsing
from meta_lrpinn.cli.parsing import Option

if TYPE_CHECKING:
    import numpy as np

    import meta_lrpinn as ml
    from meta_lrpinn.files.cases import Case
    from meta_lrpinn.solvers.settings import Solver

_BUILTIN = "layered"
# None of these is tuned.
_BUILTIN_FREQUENCY = 6.0  # Hz
_POINTS_PER_WAVELENGTH = 4.0  # fewer are warned of
_REFERENCE_TOLERANCE = 0.003  # that of the solver finite_differences
_MOST_POSITIONS = 1_000_000

FILE_OPTIONS = (
    Option("spacing", "Grid spacing, dz,dx or one number; for files without it.",
           parsing.numbers),
    Option("spacing_unit", "Of lengths, given or in the file: km (default), m or ft."),
    Option(
        "unit",
        "Of the file's velocity, km/s (default), m/s or ft/s; or of its slowness, s/km, "
        "us/ft, or squared s2/km2.",
    ),
    Option("transpose", "The file's first axis is x, not depth.", bool),
    Option("fill", "How masked values and NaN are filled.", choices=("nearest",)),
    Option("shape", "Of a raw file, nz,nx or nz,ny,nx.", parsing.numbers),
    Option("dtype", "Of a raw file's numbers; by default float32."),
    Option("order", "Of a raw file: C, rows first (default), or F.", choices=("C", "F")),
)  # fmt: skip
QUALITY_OPTION = Option(
    "quality",
    "Quality factor Q of attenuation: a number, or FILE or FILE:NAME with one on the "
    "model's grid; by default the file's own, or lossless.",
)
MODEL_OPTIONS = (
    Option(
        "velocity",
        "A built-in model (see the command models), or FILE, or FILE:NAME for one array "
        "of a file: .npz, .nc, .mat, .sgy and others. A file that holds a case also "
        "gives the defaults of frequency, source, amplitude and background velocity.",
        default=_BUILTIN,
    ),
    *FILE_OPTIONS,
    QUALITY_OPTION,
    Option(
        "window",
        "Part to use, x0,x1,z0,z1 (3D: x0,x1,y0,y1,z0,z1), in km.",
        parsing.numbers,
    ),
    Option(
        "smooth", "Gaussian smoothing of slowness, standard deviation in km.", float, 0.0
    ),
)
SOURCE_OPTION = Option(
    "source",
    "x,z (3D: x,y,z) in km; several as 'x,z;x,z', as a range x0:x1:n,z, or as a "
    "text or .npy file of rows. By default the case's, or the middle of the model, "
    "one cell below its top.",
)
SURFACE_OPTION = Option(
    "free_surface",
    "u = 0 at the top of the model, where there is no absorbing layer then; by "
    "default the file's own, or none.",
    bool,
)
PROBLEM_OPTIONS = (
    *MODEL_OPTIONS,
    Option("frequency", "In Hz; by default the case's, or 6 for built-in models.", float),
    SOURCE_OPTION,
    Option(
        "weights",
        "Of several sources, w,w,w, which are then fired together and have one wavefield.",
        parsing.weights,
    ),
    Option(
        "background_velocity",
        "v0 in km/s; by default the case's, or the velocity at the source.",
        float,
    ),
    Option(
        "amplitude",
        "A of the background wavefield, such as 1.925j; by default the case's, or i/4 "
        "in 2D and -1/(4 pi) in 3D.",
        parsing.amplitude,
    ),
    SURFACE_OPTION,
)


@dataclasses.dataclass(frozen=True)
class Problem:
    """What the options and the case file ask for together."""

    name: str
    model: "ml.VelocityModel"
    frequency: float  # Hz
    source: "np.ndarray"  # (ndim,) or (n_sources, ndim) [km]
    weights: "np.ndarray | None"  # (n_sources,) of sources fired together
    amplitude: complex  # A of the background field
    background_velocity: complex | None  # [km/s]
    published: "np.ndarray | None"  # δu of the file, if it is that of this very problem
    is_builtin: bool
    free_surface: bool  # at the top of the model
    notes: tuple[str, ...]  # of reading the file

    def solve(self, settings: "Solver", **keywords: Any) -> "ml.Wavefield":
        """The wavefield by a solver; keywords are those of `meta_lrpinn.solve`."""
        import meta_lrpinn as ml

        return ml.solve(
            self.model,
            self.frequency,
            self.source,
            settings,
            **self._conditions,
            **keywords,
        )

    def reference(self) -> "ml.Wavefield":
        """The field by finite differences; in 3D on one grid, a finer is out of reach."""
        import meta_lrpinn as ml

        tolerance = _REFERENCE_TOLERANCE if self.model.ndim == 2 else None
        return ml.reference_wavefield(
            self.model, self.frequency, self.source, tolerance=tolerance, **self._conditions
        )

    @property
    def _conditions(self) -> dict[str, Any]:
        names = ("weights", "amplitude", "background_velocity", "free_surface")
        return {name: getattr(self, name) for name in names}

    @property
    def points_per_wavelength(self) -> float:
        """Grid points on the shortest wavelength."""
        return self.model.minimum / self.frequency / max(self.model.spacing)


def pose(options: argparse.Namespace, report: Report) -> Problem:
    """The problem that PROBLEM_OPTIONS pose, checked.

    Raises:
        ValueError: if they do not make sense, alone or together.
    """
    import numpy as np

    from meta_lrpinn.physics.background import default_amplitude
    from meta_lrpinn.physics.problem import check_frequency, check_scale, check_velocity

    case, name, is_builtin = _load(options)
    model = _prepared(case.model, options)
    frequency = _first_given(options.frequency, case.frequency)
    if frequency is None:
        raise ValueError(f"{name} has no frequency of its own; add --frequency=HZ")
    check_scale(model, check_frequency(frequency))
    source = _source(options, case, model)
    # The file's weights are of its own sources.
    weights = options.weights
    if weights is None and options.source is None:
        weights = case.weights
    velocity = _first_given(options.background_velocity, case.background_velocity)
    if velocity is not None:
        check_velocity(velocity)
    problem = Problem(
        name=name,
        model=model,
        frequency=float(frequency),
        source=source,
        weights=None if weights is None else np.asarray(weights),
        amplitude=complex(
            _first_given(options.amplitude, case.amplitude, default_amplitude(model.ndim))
        ),
        background_velocity=velocity,
        published=None,
        is_builtin=is_builtin,
        free_surface=bool(_first_given(options.free_surface, case.free_surface)),
        notes=case.notes,
    )
    if case.scattered is None:
        return problem
    if not _is_of_case(problem, case):
        report.say("note", "the wavefield in the file is of another problem: not compared")
        return problem
    return dataclasses.replace(problem, published=case.scattered)


def _is_of_case(problem: Problem, case: "Case") -> bool:
    """Whether the field in a file is that of the problem.

    It belongs to the file's own problem only; options may complete that, not change it.
    """
    import numpy as np

    assert case.scattered is not None
    sources = () if problem.weights is not None else np.shape(problem.source)[:-1]
    return (
        problem.model is case.model
        and case.scattered.shape == (*sources, *problem.model.shape)
        and case.frequency in (None, problem.frequency)
        and case.amplitude in (None, problem.amplitude)
        and case.background_velocity in (None, problem.background_velocity)
        and problem.free_surface == bool(case.free_surface)
        and (case.source is None or np.array_equal(problem.source, case.source))
        and np.array_equal(problem.weights, case.weights)  # pyright: ignore[reportArgumentType]
    )


def model_and_source(
    options: argparse.Namespace, report: Report
) -> "tuple[str, ml.VelocityModel, np.ndarray, bool]":
    """Name, model, sources and free surface, of a command without a single frequency.

    Raises:
        ValueError: if the options do not make sense.
    """
    case, name, _ = _load(options)
    say_notes(case.notes, report)
    model = _prepared(case.model, options)
    free_surface = bool(_first_given(options.free_surface, case.free_surface))
    return name, model, _source(options, case, model), free_surface


def say_notes(notes: Sequence[str], report: Report) -> None:
    """Says what was turned or converted in reading a file."""
    if notes:
        report.say("read", "; ".join(notes))
        report.add(read=list(notes))


def describe(problem: Problem, report: Report) -> None:
    """Says what is solved."""
    import numpy as np

    model = problem.model
    size = " x ".join(f"{length:g}" for length in model.upper - model.lower)
    say_notes(problem.notes, report)
    report.say("model", f"{problem.name}, {size} km, {model!r}")
    sources = np.atleast_2d(problem.source)
    first = sources[0].round(4).tolist()
    number = "1 source" if len(sources) == 1 else f"{len(sources)} sources, first"
    report.say("problem", f"{problem.frequency:g} Hz, {number} at {first} km")
    points = problem.points_per_wavelength
    report.say("grid", f"{points:.1f} points per shortest wavelength")
    report.add(
        model=problem.name,
        shape=model.shape,
        spacing=model.spacing,
        frequency=problem.frequency,
        sources=sources,
        points_per_wavelength=points,
    )


def warn_of_grid(problem: Problem, report: Report) -> None:
    """Warns of a grid too coarse; once it is solved, as a refusal is to stand alone."""
    points = problem.points_per_wavelength
    if points < _POINTS_PER_WAVELENGTH:
        report.warn(
            f"the grid is too coarse for {problem.frequency:g} Hz: {points:.1f} points "
            f"per wavelength, fewer than {_POINTS_PER_WAVELENGTH:g}"
        )


def file_options(options: argparse.Namespace) -> dict[str, Any]:
    """Those of FILE_OPTIONS that are given, as `load_velocity` takes them."""
    values = {option.name: getattr(options, option.name) for option in FILE_OPTIONS}
    values = {name: value for name, value in values.items() if value is not None}
    if "shape" in values:
        values["shape"] = tuple(int(number) for number in values["shape"])
    return values


def quality_of(text: str | None) -> "float | np.ndarray | None":
    """What --quality names: one number, or an array of a file.

    Raises:
        ValueError: if it is neither.
    """
    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        from meta_lrpinn.files import cases

        try:
            return cases.load_quality(text)
        except FileNotFoundError:
            raise ValueError(
                f"quality must be a number such as 80, or a file, got {text!r}"
            ) from None


def _load(options: argparse.Namespace) -> "tuple[Case, str, bool]":
    """The case that --velocity names, what to call it, and whether it is built in."""
    from meta_lrpinn import generators
    from meta_lrpinn.files import cases

    text = options.velocity
    # A built-in model is meant whatever folder has its name.
    if text in generators.BUILTIN:
        for name in file_options(options):
            raise ValueError(f"--{name} is for files, not built-in models")
        model = generators.builtin(text)
        return cases.Case(model, frequency=_BUILTIN_FREQUENCY), text, True
    if os.path.basename(text) == text and "." not in text and not os.path.exists(text):
        raise ValueError(
            f"there is no velocity file and no built-in model {text!r}; built in "
            f"are {', '.join(generators.BUILTIN)}"
        )
    case = cases.load_case(text, **file_options(options))
    return case, os.path.basename(text), False


def _prepared(model: "ml.VelocityModel", options: argparse.Namespace) -> "ml.VelocityModel":
    quality = quality_of(options.quality)
    if quality is not None:
        model = model.replace_quality(quality)
    if options.window is not None:
        model = model.window(**_window(options.window, model.ndim))
    return model.smoothed(options.smooth)


def _window(limits: Sequence[float], ndim: int) -> dict[str, tuple[float, float]]:
    axes = "xz" if ndim == 2 else "xyz"
    if len(limits) != 2 * ndim:
        order = ",".join(f"{axis}0,{axis}1" for axis in axes)
        raise ValueError(f"window must be {order}, got {len(limits)} numbers")
    return dict(zip(axes, zip(limits[::2], limits[1::2], strict=True), strict=True))


def _source(
    options: argparse.Namespace, case: "Case", model: "ml.VelocityModel"
) -> "np.ndarray":
    """(ndim,) for one point, (n_sources, ndim) for several [km]."""
    source = case.source
    if options.source is not None:
        source = positions(options.source, model.ndim, "source")
        source = source[0] if len(source) == 1 else source
    if source is None:
        source = (model.lower + model.upper) / 2
        source[-1] = model.lower[-1] + model.spacing[0]
    model.check_contains(source)
    return source


def _first_given(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def positions(text: str, ndim: int, what: str) -> "np.ndarray":
    """Positions (n, ndim) [km]: points, ranges of points, or a file of rows.

    Args:
        text: "x,z;x,z", "x0:x1:n,z", or the name of a text or .npy file.
        ndim: Coordinates of a position.
        what: What they are of, in messages: source or receiver.

    Raises:
        ValueError: if it is nothing of that.
    """
    import numpy as np

    if os.path.isfile(text):
        return _positions_of_file(text, ndim, what)
    rows = []
    for point in text.strip(";").split(";"):
        try:
            columns = [_coordinates(part) for part in point.split(",")]
        except ValueError:
            raise ValueError(
                f"{what} must be numbers such as 1.0,0.025 or 0.2:2.2:9,0.025 in km (a "
                f"range has at most {_MOST_POSITIONS:,}), or a file, got {text!r}"
            ) from None
        if len(columns) != ndim:
            order = "x,z" if ndim == 2 else "x,y,z"
            raise ValueError(
                f"{what} needs {ndim} coordinates in km, {order}, got {point!r}"
            )
        if math.prod(map(len, columns)) > _MOST_POSITIONS:
            raise ValueError(f"{point!r} are more than {_MOST_POSITIONS:,} {what}s")
        grid = np.broadcast_arrays(*np.ix_(*columns))
        rows.append(np.stack(grid, -1).reshape(-1, ndim))
    return np.concatenate(rows)


def _coordinates(text: str) -> "np.ndarray":
    """One number, or first:last:count."""
    import numpy as np

    if ":" not in text:
        return np.array([float(text)])
    first, last, count = text.split(":")
    if not 1 <= int(count) <= _MOST_POSITIONS:
        raise ValueError
    return np.linspace(float(first), float(last), int(count))


def _positions_of_file(path: str, ndim: int, what: str) -> "np.ndarray":
    import numpy as np

    try:
        rows = np.atleast_2d(rows_of_file(path))
    except (ValueError, TypeError) as error:
        raise ValueError(f"cannot read {what}s from {path}: {error}") from None
    if rows.ndim != 2 or rows.shape[1] != ndim:
        raise ValueError(
            f"{path} must hold {ndim} numbers a row, one row per {what}, "
            f"got shape {rows.shape}"
        )
    return rows


def rows_of_file(path: str) -> "np.ndarray":
    """The numbers of a text file, with commas or blanks between, or of a .npy file.

    Raises:
        ValueError, TypeError: if it holds anything else, or nothing.
    """
    import numpy as np

    from meta_lrpinn.physics.grid_values import real_array

    if path.endswith(".npy"):
        rows = np.load(path, allow_pickle=False)
    else:
        with open(path) as file:
            lines = [line.replace(",", " ") for line in file if line.strip()]
        rows = np.loadtxt(lines) if lines else np.empty(0)
    if not rows.size:
        raise ValueError("it holds nothing")
    return real_array(rows, "it").astype(float)
