"""Options of a problem: velocity, frequency, sources, background field."""

import argparse
import dataclasses
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from meta_lrpinn.cli import values
from meta_lrpinn.cli.parsing import add_option
from meta_lrpinn.cli.report import Report

if TYPE_CHECKING:
    import numpy as np

    import meta_lrpinn as ml
    from meta_lrpinn.files.cases import Case

_BUILTIN_FREQUENCY = 6.0
_BUILTIN = "layered"
_FILE_OPTIONS = "spacing spacing_unit unit transpose fill shape dtype order".split()
_POINTS_PER_WAVELENGTH = 4.0


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

    def keywords(self) -> dict[str, Any]:
        """The part that every solver takes by name."""
        return {
            "weights": self.weights,
            "amplitude": self.amplitude,
            "background_velocity": self.background_velocity,
            "free_surface": self.free_surface,
        }


def add_options(parser: argparse.ArgumentParser) -> Any:
    """Adds the options of a problem; returns their group."""
    group = parser.add_argument_group("problem")
    add_model_options(group)

    def add(name, text, kind: type = str, default=None, choices=None):
        add_option(group, name, kind, text, default, choices)

    add("frequency", "In Hz; by default the case's, or 6 for built-in models.", float)
    add_source_option(group)
    add(
        "weights",
        "Of several sources, w,w,w, which are then fired together and have one wavefield.",
    )
    add(
        "background_velocity",
        "v0 in km/s; by default the case's, or the velocity at the source.",
        float,
    )
    add(
        "amplitude",
        "A of the background wavefield, such as 1.925j; by default the case's, or i/4 "
        "in 2D and -1/(4 pi) in 3D.",
    )
    add_surface_option(group)
    return group


def add_surface_option(group: Any) -> None:
    """Adds the free surface at the top of a model."""
    add_option(
        group,
        "free_surface",
        bool,
        "u = 0 at the top of the model, where there is no absorbing layer then; by "
        "default the file's own, or none.",
    )


def add_source_option(group: Any) -> None:
    """Adds where the sources are."""
    add_option(
        group,
        "source",
        str,
        "x,z (3D: x,y,z) in km; several as 'x,z;x,z', as a range x0:x1:n,z, or as a "
        "text or .npy file of rows. By default the case's, or the middle of the model, "
        "one cell below its top.",
    )


def add_model_options(group: Any) -> None:
    """Adds what chooses a velocity model and prepares it."""

    def add(name, text, kind: type = str, default=None, choices=None):
        add_option(group, name, kind, text, default, choices)

    add(
        "velocity",
        "A built-in model (see the command models), or FILE, or FILE:NAME for one array "
        "of a file: .npz, .nc, .mat, .sgy and others. A file that holds a case also "
        "gives the defaults of frequency, source, amplitude and background velocity.",
        default=_BUILTIN,
    )
    add_file_options(group)
    add_quality_option(group)
    add("window", "Part to use, x0,x1,z0,z1 (3D: x0,x1,y0,y1,z0,z1), in km.")
    add("smooth", "Gaussian smoothing of slowness, standard deviation in km.", float, 0.0)


def add_file_options(group: Any) -> None:
    """Adds what has to be said of a file that does not say it itself."""

    def add(name, text, kind: type = str, default=None, choices=None):
        add_option(group, name, kind, text, default, choices)

    add("spacing", "Grid spacing, dz,dx or one number; for files without it.")
    add("spacing_unit", "Of lengths, given or in the file: km (default), m or ft.")
    add(
        "unit",
        "Of the file's velocity, km/s (default), m/s or ft/s; or of its slowness, s/km, "
        "us/ft, or squared s2/km2.",
    )
    add("transpose", "The file's first axis is x, not depth.", bool)
    add("fill", "How masked values and NaN are filled.", choices=("nearest",))
    add("shape", "Of a raw file, nz,nx or nz,ny,nx.")
    add("dtype", "Of a raw file's numbers; by default float32.")
    add("order", "Of a raw file: C, rows first (default), or F.", choices=("C", "F"))


def file_options(options: argparse.Namespace) -> dict[str, Any]:
    """The options of `add_file_options` that are given, as `load_velocity` takes them."""
    given = {name: getattr(options, name) for name in _FILE_OPTIONS}
    given = {name: value for name, value in given.items() if value is not None}
    if "spacing" in given:
        given["spacing"] = values.numbers(given["spacing"], "spacing")
    if "shape" in given:
        given["shape"] = tuple(int(n) for n in values.numbers(given["shape"], "shape"))
    return given


def add_quality_option(group: Any) -> None:
    """Adds the attenuation of a model."""
    add_option(
        group,
        "quality",
        str,
        "Quality factor Q of attenuation: a number, or FILE or FILE:NAME with one on the "
        "model's grid; by default the file's own, or lossless.",
    )


def pose(options: argparse.Namespace, report: Report) -> Problem:
    """The problem that the options pose, checked.

    Raises:
        ValueError: if they do not make sense, alone or together.
    """

    from meta_lrpinn.physics import background
    from meta_lrpinn.physics import problem as problems

    case, name, is_builtin = _load(options)
    model = _prepared(case.model, options)
    frequency = _first_given(options.frequency, case.frequency)
    if frequency is None:
        raise ValueError(f"{name} has no frequency of its own; add --frequency=HZ")
    problems.check_scale(model, problems.check_frequency(frequency))
    source = _source(options, case, model)
    amplitude = _first_given(
        None if options.amplitude is None else values.amplitude(options.amplitude),
        case.amplitude,
        background.default_amplitude(model.ndim),
    )
    velocity = _first_given(options.background_velocity, case.background_velocity)
    if velocity is not None:
        problems.check_velocity(velocity)
    problem = Problem(
        name=name,
        model=model,
        frequency=float(frequency),
        source=source,
        weights=_weights(options, case),
        amplitude=complex(amplitude),
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
        and _are_equal(problem.weights, case.weights)
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


def _prepared(model: "ml.VelocityModel", options: argparse.Namespace) -> "ml.VelocityModel":
    quality = quality_of(options.quality)
    if quality is not None:
        model = model.replace_quality(quality)
    if options.window is not None:
        model = model.window(**_window(options.window, model.ndim))
    return model.smoothed(options.smooth)


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


def _source(
    options: argparse.Namespace, case: "Case", model: "ml.VelocityModel"
) -> "np.ndarray":
    """(ndim,) for one point, (n_sources, ndim) for several [km]."""
    source = case.source
    if options.source is not None:
        source = values.positions(options.source, model.ndim, "source")
        source = source[0] if len(source) == 1 else source
    if source is None:
        source = (model.lower + model.upper) / 2
        source[-1] = model.lower[-1] + model.spacing[0]
    model.check_contains(source)
    return source


def _load(options: argparse.Namespace) -> "tuple[Case, str, bool]":
    """The case that --velocity names, what to call it, and whether it is built in."""
    from meta_lrpinn import generators
    from meta_lrpinn.files import cases

    text = options.velocity
    # A built-in model is meant whatever folder has its name.
    if text in generators.BUILTIN:
        given = [name for name in _FILE_OPTIONS if getattr(options, name) is not None]
        if given:
            raise ValueError(f"--{given[0]} is for files, not built-in models")
        model = generators.builtin(text)
        return cases.Case(model, frequency=_BUILTIN_FREQUENCY), text, True
    if os.path.basename(text) == text and "." not in text and not os.path.exists(text):
        raise ValueError(
            f"there is no velocity file and no built-in model {text!r}; built in "
            f"are {', '.join(generators.BUILTIN)}"
        )
    case = cases.load_case(text, **file_options(options))
    return case, os.path.basename(text), False


def _first_given(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _weights(options: argparse.Namespace, case: "Case") -> "np.ndarray | None":
    if options.weights is not None:
        return values.weights(options.weights)
    return None if options.source is not None else case.weights


def _are_equal(weights: "np.ndarray | None", others: "np.ndarray | None") -> bool:
    if weights is None or others is None:
        return weights is others
    return weights.tolist() == others.tolist()


def _window(text: str, ndim: int) -> dict[str, tuple[float, float]]:
    limits = values.numbers(text, "window")
    names = "xz" if ndim == 2 else "xyz"
    if len(limits) != 2 * ndim:
        order = ",".join(f"{name}0,{name}1" for name in names)
        raise ValueError(f"window must be {order}, got {len(limits)} numbers")
    return dict(zip(names, zip(limits[::2], limits[1::2], strict=True), strict=True))


def describe(problem: Problem, report: Report) -> None:
    """Says what is solved."""
    import numpy as np

    model = problem.model
    size = " x ".join(f"{length:g}" for length in model.upper - model.lower)
    say_notes(problem.notes, report)
    report.say("model", f"{problem.name}, {size} km, {model!r}")
    sources = np.atleast_2d(problem.source)
    place = sources[0].round(4).tolist()
    number = "1 source" if len(sources) == 1 else f"{len(sources)} sources, first"
    report.say("problem", f"{problem.frequency:g} Hz, {number} at {place} km")
    points = points_per_wavelength(problem)
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
    points = points_per_wavelength(problem)
    if points < _POINTS_PER_WAVELENGTH:
        report.warn(
            f"the grid is too coarse for {problem.frequency:g} Hz: {points:.1f} points "
            f"per wavelength, fewer than {_POINTS_PER_WAVELENGTH:g}"
        )


def points_per_wavelength(problem: Problem) -> float:
    """Grid points on the shortest wavelength."""
    return problem.model.minimum / problem.frequency / max(problem.model.spacing)
