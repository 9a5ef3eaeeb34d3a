"""The command line: `meta-lrpinn COMMAND --flag=value`.

A subcommand is one function, registered with its own set of flags:

    @command("name", "What it does.", define_its_flags)
    def _name(values): ...

It imports what it needs when it runs, raises ValueError or OSError for bad input, which
becomes one line on standard error and exit code 2, CommandFailed where the input was
good and there is no result all the same, and hands everything it writes to
`files.write_together`, so that a command that fails leaves no files.
"""

import csv
import dataclasses
import difflib
import io
import json
import os
import pathlib
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from absl import flags

import meta_lrpinn as ml
from meta_lrpinn import files

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

    from meta_lrpinn.cases import Case

PROGRAM = "meta-lrpinn"
METHODS = ("galerkin", "least_squares", "gradient")
FEATURES = ("plane_waves", "random_waves", "lrpinn", "pinn")
OPTIMISERS = ("adamw", "gauss_newton")
ASSETS = pathlib.Path(__file__).parent / "assets"

_BUILTIN_FREQUENCY = 6.0
_BUILTIN = "layered"
_SOURCE_DEPTH = 0.025
_REFERENCE_TOLERANCE = 0.003
_POINTS_PER_WAVELENGTH = 4.0
# Above this estimate a field may be wrong everywhere.
_TRUSTED = 0.1


class CommandFailed(Exception):
    """The input was good and there is no result all the same: exit code 1."""


# Subcommands --------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Command:
    """A subcommand: what it is for, its flags, and the function that runs it."""

    summary: str
    define: Callable[[flags.FlagValues], None]
    function: Callable[[flags.FlagValues], None]

    def flags(self) -> flags.FlagValues:
        """Its flags, unparsed and its own: subcommands share nothing."""
        values = flags.FlagValues()
        flags.DEFINE_boolean("help", False, "Show this.", flag_values=values)
        self.define(values)
        return values


COMMANDS: dict[str, Command] = {}


def command(
    name: str, summary: str, *define: Callable[[flags.FlagValues], None]
) -> Callable[[Callable], Callable]:
    """Registers a function of parsed flags as a subcommand.

    Args:
        name: The subcommand.
        summary: One line for the overview.
        define: Functions that define its flags, in the order in which help shows them.
    """

    def define_all(values):
        for one in define:
            one(values)

    def register(function):
        COMMANDS[name] = Command(summary, define_all, function)
        return function

    return register


def main(arguments: Sequence[str]) -> int:
    """Runs one command.

    Args:
        arguments: What stands after the program's name.

    Returns:
        The exit code: 0, 2 for bad input, 1 for a computation that failed, 130 when
        interrupted.
    """
    try:
        return _dispatch(list(arguments))
    except (flags.Error, ValueError, OSError) as error:
        _complain(_one_line(error))
        return 2
    except (CommandFailed, FloatingPointError) as error:
        _complain(_one_line(error))
        return 1
    except KeyboardInterrupt as error:
        what_now = _one_line(error) if error.args else "nothing written"
        _complain(f"interrupted; {what_now}")
        return 130


def run() -> None:
    """The console script."""
    sys.exit(main(sys.argv[1:]))


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("help", "--help", "-h"):
        print(_overview())
        return 0
    if arguments[0] == "--version":
        print(ml.__version__)
        return 0
    name = arguments.pop(0)
    if name not in COMMANDS:
        raise ValueError(
            f"there is no command {name!r}"
            + (_nearest(name, COMMANDS) or f"; choose one of {', '.join(COMMANDS)}")
        )
    values = COMMANDS[name].flags()
    extra = _parse(name, values, arguments)
    if extra:
        raise ValueError(f"{name} takes options only, as --name=value; got {extra[0]!r}")
    if values.help:
        print(_help(name, values))
        return 0
    COMMANDS[name].function(values)
    return 0


def _parse(name: str, values: flags.FlagValues, arguments: Sequence[str]) -> Sequence[str]:
    """Parses a command's arguments; returns those that are no options."""
    try:
        return values([name, *arguments])[1:]
    except flags.UnrecognizedFlagError as error:
        nearest = _nearest(error.flagname, _defined(values), "--")
        raise ValueError(
            f"{name} has no option --{error.flagname}"
            + (nearest or f"; {PROGRAM} {name} --help lists its options")
        ) from None
    except flags.IllegalFlagValueError as error:
        # "flag --NAME=VALUE: why", the why in terms of Python.
        option, _, rest = str(error).removeprefix("flag --").partition("=")
        flag = values[option]
        choices = getattr(flag.parser, "enum_values", None)
        if choices is None and flag.boolean:
            choices = ("true", "false")
        kind = f"one of {', '.join(choices)}" if choices else flag.parser.syntactic_help
        value = rest.partition(": ")[0]
        raise ValueError(f"--{option} must be {kind}, got {value!r}") from None


def _nearest(name: str, known: Iterable[str], prefix: str = "") -> str:
    """A question to append to a message, or nothing when no name is near."""
    known = list(known)
    near = [one for one in known if one.startswith(name)]
    near = near or difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f", did you mean {prefix}{near[0]}?" if near else ""


def _complain(text: str) -> None:
    print(f"{PROGRAM}: {text}", file=sys.stderr, flush=True)


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else str(error)
    return " ".join(str(error).split()) or type(error).__name__


def _overview() -> str:
    lines = [f"Usage: {PROGRAM} COMMAND [--option=value ...]", ""]
    lines += [f"  {name:<12}{entry.summary}" for name, entry in COMMANDS.items()]
    return "\n".join([*lines, "", f"{PROGRAM} COMMAND --help lists its options."])


def _help(name: str, values: flags.FlagValues) -> str:
    lines = [f"Usage: {PROGRAM} {name} [--option=value ...]", ""]
    lines += [COMMANDS[name].summary, ""]
    for flag in (values[key] for key in _defined(values)):
        if flag.boolean:
            usage = f"--[no]{flag.name}" if flag.name != "help" else "--help"
        else:
            usage = f"--{flag.name}=..."
        default = "" if flag.default in (None, False) else f" [{flag.default}]"
        text = textwrap.wrap(f"{flag.help}{default}", 60)
        lines += [f"  {usage:<26}{text[0]}"]
        lines += [" " * 28 + line for line in text[1:]]
    return "\n".join(lines)


def _defined(values: flags.FlagValues) -> list[str]:
    """Names of flags in the order in which they were defined."""
    modules = values.flags_by_module_dict().values()
    return [flag.name for module in modules for flag in module]


# The problem to solve -----------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Problem:
    """What the flags and the case file ask for together."""

    name: str
    model: "ml.VelocityModel"
    frequency: float  # Hz
    source: "np.ndarray"  # (ndim,) or (n_sources, ndim), km
    amplitude: complex  # A of the background field
    background_velocity: float | None  # km/s
    published: "np.ndarray | None"  # δu of the file, if it is that of this very problem
    is_builtin: bool

    def keywords(self) -> dict[str, Any]:
        """The part that every solver takes by name."""
        return {
            "amplitude": self.amplitude,
            "background_velocity": self.background_velocity,
        }


def _define_model(values: flags.FlagValues) -> None:
    def string(name, default, text):
        flags.DEFINE_string(name, default, text, flag_values=values)

    def number(name, default, text):
        flags.DEFINE_float(name, default, text, flag_values=values)

    string(
        "velocity",
        _BUILTIN,
        "A built-in model (see the command info), or FILE, or FILE:NAME for one array "
        "of a file: .npz, .npy, .mat, .sgy. A file that holds a case also gives the "
        "defaults of frequency, source, amplitude and background velocity.",
    )
    string(
        "spacing",
        None,
        "Grid spacing of the file in km, dz,dx or one number; for files without it.",
    )
    flags.DEFINE_enum(
        "unit", "km/s", ("km/s", "m/s"), "Of the file's velocity.", flag_values=values
    )
    string("window", None, "Part to use, x0,x1,z0,z1 (3D: x0,x1,y0,y1,z0,z1), in km.")
    number("smooth", 0.0, "Gaussian smoothing of slowness, standard deviation in km.")
    number("frequency", None, "In Hz; by default the case's, or 6 for built-in models.")
    string(
        "source",
        None,
        "x,z (3D: x,y,z) in km; several as 'x,z;x,z', as a range x0:x1:n,z, or as a "
        "text or .npy file of rows. By default the case's, or the middle of the top at "
        "25 m depth.",
    )
    number(
        "background_velocity",
        None,
        "v0 in km/s; by default the case's, or the velocity at the source.",
    )
    string(
        "amplitude",
        None,
        "A of the background wavefield, such as 1.925j; by default the case's, or i/4 "
        "in 2D and -1/(4 pi) in 3D.",
    )


def _define_output(values: flags.FlagValues) -> None:
    flags.DEFINE_string("out", ".", "Folder to write to.", flag_values=values)


def _check_folder(out: str) -> None:
    """Refuses, before anything is computed, a folder that is a file."""
    for path in (pathlib.Path(out), *pathlib.Path(out).parents):
        if path.exists() and not path.is_dir():
            raise ValueError(f"--out must be a folder, {path} is a file")


def _define_progress(values: flags.FlagValues) -> None:
    flags.DEFINE_boolean(
        "progress", True, "Progress bar, on a terminal.", flag_values=values
    )


def _shows_progress(values: flags.FlagValues) -> bool:
    return values.progress and sys.stderr.isatty()


def _posed_problem(values: flags.FlagValues) -> _Problem:
    """The problem that model flags pose, checked."""
    import numpy as np

    from meta_lrpinn import problem as problems
    from meta_lrpinn.physics import background

    case, name, is_builtin = _load(values)
    model = case.model
    if values.window is not None:
        model = model.window(**_window(values.window, model.ndim))
    model = model.smoothed(values.smooth)
    frequency = _first_given(values.frequency, case.frequency)
    if frequency is None:
        raise ValueError(f"{name} has no frequency of its own; add --frequency=HZ")
    problems.check_frequency(frequency)
    source = case.source
    if values.source is not None:
        source = _sources(values.source, model.ndim)
    if source is None:
        source = (model.lower + model.upper) / 2
        source[-1] = model.lower[-1] + _SOURCE_DEPTH
    model.check_contains(source)
    amplitude = _first_given(
        None if values.amplitude is None else _complex(values.amplitude),
        case.amplitude,
        background.default_amplitude(model.ndim),
    )
    velocity = _first_given(values.background_velocity, case.background_velocity)
    if velocity is not None and not velocity > 0:
        raise ValueError(f"background velocity must be positive, got {velocity} km/s")
    # A field in the file belongs to the file's own problem only; options may complete
    # that problem, not change it.
    is_own = (
        model is case.model
        and case.scattered is not None
        and case.scattered.shape == (*np.shape(source)[:-1], *model.shape)
        and case.frequency in (None, frequency)
        and case.amplitude in (None, amplitude)
        and case.background_velocity in (None, velocity)
        and (case.source is None or np.array_equal(source, case.source))
    )
    if case.scattered is not None and not is_own:
        _say("note", "the wavefield in the file is of another problem: not compared")
    return _Problem(
        name=name,
        model=model,
        frequency=float(frequency),
        source=source,
        amplitude=complex(amplitude),
        background_velocity=velocity,
        published=case.scattered if is_own else None,
        is_builtin=is_builtin,
    )


def _load(values: flags.FlagValues) -> "tuple[Case, str, bool]":
    """The case that --velocity names, what to call it, and whether it is built in."""
    from meta_lrpinn import cases, generators

    text = values.velocity
    is_name = pathlib.PurePath(text).name == text and "." not in text
    if is_name and not os.path.exists(text):
        if text not in generators.BUILTIN:
            raise ValueError(
                f"there is no velocity file and no built-in model {text!r}; built in "
                f"are {', '.join(generators.BUILTIN)}"
            )
        if values["spacing"].present or values["unit"].present:
            raise ValueError("--spacing and --unit are for files, not built-in models")
        model = generators.builtin(text)
        return cases.Case(model, frequency=_BUILTIN_FREQUENCY), text, True
    spacing = None if values.spacing is None else _numbers(values.spacing, "spacing")
    path = os.path.expanduser(text)
    case = cases.load_case(path, spacing=spacing, unit=values.unit)
    return case, os.path.basename(path), False


def _first_given(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _numbers(text: str, what: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(
            f"{what} must be numbers with commas between, got {text!r}"
        ) from None


def _complex(text: str) -> complex:
    try:
        return complex(text.replace(" ", "").replace("i", "j"))
    except ValueError:
        raise ValueError(
            f"amplitude must be a number such as 0.25j or 1-2j, got {text!r}"
        ) from None


def _window(text: str, ndim: int) -> dict[str, tuple[float, float]]:
    limits = _numbers(text, "window")
    names = "xz" if ndim == 2 else "xyz"
    if len(limits) != 2 * ndim:
        order = ",".join(f"{name}0,{name}1" for name in names)
        raise ValueError(f"window must be {order}, got {len(limits)} numbers")
    return dict(zip(names, zip(limits[::2], limits[1::2], strict=True), strict=True))


def _sources(text: str, ndim: int) -> "np.ndarray":
    """(ndim,) for one point, (n_sources, ndim) for a list, a range or a file."""
    import numpy as np

    if os.path.isfile(text):
        return _sources_of_file(text, ndim)
    rows = []
    for point in text.strip(";").split(";"):
        columns = [_coordinate(part, text) for part in point.split(",")]
        if len(columns) != ndim:
            order = "x,z" if ndim == 2 else "x,y,z"
            raise ValueError(
                f"source needs {ndim} coordinates in km, {order}, got {point!r}"
            )
        grid = np.broadcast_arrays(*np.ix_(*columns))
        rows.extend(np.stack(grid, -1).reshape(-1, ndim))
    rows = np.array(rows)
    return rows[0] if len(rows) == 1 else rows


def _coordinate(text: str, whole: str) -> "np.ndarray":
    """One number, or first:last:count."""
    import numpy as np

    try:
        if ":" not in text:
            return np.array([float(text)])
        first, last, count = text.split(":")
        if int(count) < 1:
            raise ValueError
        return np.linspace(float(first), float(last), int(count))
    except ValueError:
        raise ValueError(
            f"source must be numbers such as 1.0,0.025 or 0.2:2.2:9,0.025 in km, or a "
            f"file, got {whole!r}"
        ) from None


def _sources_of_file(path: str, ndim: int) -> "np.ndarray":
    import numpy as np

    try:
        if path.endswith(".npy"):
            rows = np.load(path, allow_pickle=False)
        else:
            with open(path) as file:
                rows = np.loadtxt(line.replace(",", " ") for line in file)
        rows = np.asarray(rows, float)
    except (ValueError, TypeError) as error:
        why = _one_line(error)
        raise ValueError(f"cannot read sources from {path}: {why}") from None
    rows = np.atleast_2d(rows)
    if rows.ndim != 2 or rows.shape[1] != ndim:
        raise ValueError(
            f"{path} must hold {ndim} numbers a row, one row per source, "
            f"got shape {rows.shape}"
        )
    return rows


# Solving and comparing ----------------------------------------------------------------


def _define_solver(values: flags.FlagValues) -> None:
    def string(name, default, text):
        flags.DEFINE_string(name, default, text, flag_values=values)

    def number(name, text, define=flags.DEFINE_float):
        define(name, None, text, flag_values=values)

    flags.DEFINE_enum("method", METHODS[0], METHODS, "How to solve.", flag_values=values)
    flags.DEFINE_enum(
        "features", FEATURES[0], FEATURES, "What to solve in.", flag_values=values
    )
    string(
        "init",
        "default",
        "Where a network starts: default (the shipped meta-initialisation), none "
        "(random), or the folder of an initialisation or a run.",
    )
    number("steps", "Adaptation steps of a network.", flags.DEFINE_integer)
    number(
        "patience",
        "Stop after so many reports without a smaller estimate of the error, or loss.",
        flags.DEFINE_integer,
    )
    flags.DEFINE_enum(
        "optimiser",
        OPTIMISERS[0],
        OPTIMISERS,
        "What adapts a network: adamw, or gauss_newton on the singular values alone.",
        flag_values=values,
    )
    number("learning_rate", "Of adamw.")
    number("unknowns", "Number of plane waves.", flags.DEFINE_integer)
    number("tolerance", "Relative error to reach; picks the number of plane waves.")
    number(
        "thickness",
        "Absorbing layer in km, 0 for none; default: by wavelength, and of a network's "
        "features what they were trained in.",
    )
    number("rank_fraction", "Fraction of the singular values to keep.")
    number(
        "rank_tolerance",
        "Relative increase of the residual that a lower rank may cost; picks the rank.",
    )
    flags.DEFINE_boolean(
        "prune_hypernetwork",
        True,
        "Make the singular values free parameters before adapting.",
        flag_values=values,
    )
    flags.DEFINE_boolean("freeze_bases", False, "Do not adapt U and V.", flag_values=values)
    flags.DEFINE_enum(
        "output_start",
        "solved",
        ("solved", "network"),
        "Output layer that method gradient starts from.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "precision",
        "double",
        ("double", "single"),
        "Of the exact solves.",
        flag_values=values,
    )
    flags.DEFINE_integer("seed", 0, "Of all that is random.", flag_values=values)
    flags.DEFINE_enum(
        "compare",
        "auto",
        ("auto", "reference", "none"),
        "auto: with the file's wavefield where there is one, else, for built-in "
        "models, with the reference solver; reference: with both.",
        flag_values=values,
    )


_SOLVER_OPTIONS = (
    "method features steps patience optimiser learning_rate unknowns tolerance "
    "thickness rank_fraction rank_tolerance prune_hypernetwork freeze_bases "
    "output_start precision seed"
).split()


@command(
    "solve",
    "Solve for a wavefield.",
    _define_model,
    _define_solver,
    _define_output,
    _define_progress,
)
def _solve(values: flags.FlagValues) -> None:
    _check_folder(values.out)
    problem = _posed_problem(values)
    options = {name: values[name].value for name in _SOLVER_OPTIONS}
    _describe(problem)
    field = ml.solve(
        problem.model,
        problem.frequency,
        problem.source,
        init=None if values.init == "none" else values.init,
        truth=problem.published if values.features in ("lrpinn", "pinn") else None,
        progress=_shows_progress(values),
        **options,
        **problem.keywords(),
    )
    _say("method", f"{field.method}, {field.unknowns} complex unknowns")
    _say("seconds", f"{field.elapsed:.2f}, compilation included")
    if field.error_estimate is not None:
        _say_estimate(field.error_estimate)
        if field.error_estimate > _TRUSTED:
            _complain("warning: do not trust this field; ask for more unknowns")
    truths = {}
    if problem.published is not None and values.compare != "none":
        truths["published"] = problem.published
    # In 3D the reference takes minutes and gigabytes: only when asked for.
    if values.compare == "reference" or (
        values.compare == "auto" and problem.is_builtin and problem.model.ndim == 2
    ):
        reference = _reference_field(problem, _REFERENCE_TOLERANCE)
        truths["reference"] = reference.scattered
        _say("reference", f"finite differences in {reference.elapsed:.2f} s")
    errors = {name: _errors(field, truth) for name, truth in truths.items()}
    for name, error in errors.items():
        _say(f"vs {name}", "relative L2 " + ", ".join(f"{one:.2%}" for one in error))
    best = truths.get("reference", truths.get("published"))
    _write_field(values.out, "wavefield", problem, field, best, errors)


def _define_reference(values: flags.FlagValues) -> None:
    flags.DEFINE_float(
        "tolerance",
        _REFERENCE_TOLERANCE,
        "Refine until the wavefield's own relative change is below this.",
        flag_values=values,
    )


@command(
    "reference",
    "Solve by finite differences, refined until nothing changes.",
    _define_model,
    _define_reference,
    _define_output,
)
def _reference(values: flags.FlagValues) -> None:
    _check_folder(values.out)
    problem = _posed_problem(values)
    _describe(problem)
    field = _reference_field(problem, values.tolerance)
    _say("seconds", f"{field.elapsed:.2f}, {field.unknowns} unknowns")
    _say_estimate(field.error_estimate)
    if field.error_estimate is not None and field.error_estimate > values.tolerance:
        _complain("warning: the tolerance was not reached")
    _write_field(values.out, "reference", problem, field, None, {})


@command("info", "Versions, devices, built-in models, shipped initialisations.")
def _info(values: flags.FlagValues) -> None:
    del values
    import jax

    from meta_lrpinn import checkpoints, generators

    _say("version", f"meta_lrpinn {ml.__version__}, jax {jax.__version__}")
    _say("devices", ", ".join(str(device) for device in jax.devices()))
    _say("models", ", ".join(generators.BUILTIN))
    cards = sorted(ASSETS.glob(f"*/{checkpoints.CARD}"))
    for path in cards:
        content = json.loads(path.read_text())
        network, card = content["model"], content["card"]
        parts = [
            f"{network['ndim']}D {network['kind']}",
            f"{network['width']} wide, {network['depth']} layers",
            card["command"],
        ]
        if card["seconds"] is not None:
            parts.append(f"{card['seconds']} s")
        _say(f"init {path.parent.name}", "; ".join(filter(None, parts)))
    if not cards:
        _say("init", "none is shipped")


def _reference_field(problem: _Problem, tolerance: float) -> "ml.Wavefield":
    return ml.reference_wavefield(
        problem.model,
        problem.frequency,
        problem.source,
        # A second, finer grid is out of reach in 3D.
        tolerance=tolerance if problem.model.ndim == 2 else None,
        **problem.keywords(),
    )


def _say(what: str, text: str) -> None:
    print(f"{what:<12} {text}", flush=True)


def _say_estimate(error: float) -> None:
    text = f"{error:.2%}" if error >= 1e-4 else "below 0.01%"
    _say("estimate", f"relative error {text} by its own estimate")


def _describe(problem: _Problem) -> None:
    """Says what is solved, and warns of a grid too coarse for it."""
    import numpy as np

    model = problem.model
    size = " x ".join(f"{length:g}" for length in model.upper - model.lower)
    _say("model", f"{problem.name}, {size} km, {model!r}")
    number = len(np.atleast_2d(problem.source))
    place = np.atleast_2d(problem.source)[0].round(4).tolist()
    number = "1 source" if number == 1 else f"{number} sources, first"
    _say("problem", f"{problem.frequency:g} Hz, {number} at {place} km")
    points = model.minimum / problem.frequency / max(model.spacing)
    _say("grid", f"{points:.1f} points per shortest wavelength")
    if points < _POINTS_PER_WAVELENGTH:
        _complain(
            f"warning: the grid is too coarse for {problem.frequency:g} Hz: "
            f"{points:.1f} points per wavelength, fewer than {_POINTS_PER_WAVELENGTH:g}"
        )


def _errors(field: "ml.Wavefield", truth: "np.ndarray") -> list[float]:
    shape = (-1, *field.model.shape)
    pairs = zip(field.scattered.reshape(shape), truth.reshape(shape), strict=True)
    # Where nothing scatters there is nothing to be relative to.
    return [
        ml.relative_l2(prediction, one) if one.any() else float("nan")
        for prediction, one in pairs
    ]


def _write_field(
    out: str,
    name: str,
    problem: _Problem,
    field: "ml.Wavefield",
    truth: "np.ndarray | None",
    errors: Mapping[str, list[float]],
) -> None:
    """Writes NAME.npz, a case that can be loaded again, and its figure NAME.png."""
    import numpy as np

    from meta_lrpinn import plotting

    contents = {
        "velocity": np.asarray(field.model.velocity),
        "spacing": np.array(field.model.spacing),
        "origin": np.array(field.model.origin),
        "frequency": field.frequency,
        "source": field.source,
        "amplitude": problem.amplitude,
        "scattered": field.scattered,
        "background": field.background,
        "method": field.method,
        "elapsed": field.elapsed,
        **{f"relative_l2_{name}": error for name, error in errors.items()},
    }
    if problem.background_velocity is not None:
        contents["v0"] = problem.background_velocity
    figure = plotting.wavefield_figure(field, truth)
    folder = pathlib.Path(out)
    paths = [folder / f"{name}.npz", folder / f"{name}.png"]
    files.write_together(
        {
            paths[0]: lambda file: np.savez_compressed(file, **contents),
            paths[1]: lambda file: figure.savefig(file, format="png", dpi=150),
        }
    )
    _say("wrote", ", ".join(str(path) for path in paths))


# Comparing initialisations ------------------------------------------------------------

_COLUMNS = "start method seed source step seconds loss relative_l2".split()


def _define_evaluate(values: flags.FlagValues) -> None:
    flags.DEFINE_string(
        "init",
        "default",
        "Initialisation: default (the shipped one), the folder of an initialisation or "
        "a run, or none to evaluate random starts alone.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "features", "lrpinn", FEATURES[2:], "The network.", flag_values=values
    )
    flags.DEFINE_list(
        "methods", ",".join(METHODS), "Of those of solve.", flag_values=values
    )
    flags.DEFINE_integer(
        "steps", 100, "Adaptation steps.", lower_bound=0, flag_values=values
    )
    flags.DEFINE_integer(
        "seeds", 1, "Runs of each, seeds 0, 1, ...", lower_bound=1, flag_values=values
    )


@command(
    "evaluate",
    "Follow the error of an initialisation and of random starts as they adapt.",
    _define_model,
    _define_evaluate,
    _define_output,
    _define_progress,
)
def _evaluate(values: flags.FlagValues) -> None:
    from meta_lrpinn import plotting

    _check_folder(values.out)
    for method in values.methods:
        if method not in METHODS:
            raise ValueError(
                f"methods are {', '.join(METHODS)}, with commas between; got {method!r}"
            )
    problem = _posed_problem(values)
    _describe(problem)
    starts = {"random": None}
    if values.init != "none":
        name = os.path.basename(os.path.normpath(values.init))
        starts = {name: values.init, **starts}
    truth = problem.published
    if truth is None:
        truth = _reference_field(problem, _REFERENCE_TOLERANCE).scattered
    known = "reference" if problem.published is None else "published"
    _say("error", f"relative L2 against the {known} field, mean over seeds and sources")
    rows, curves = [], {}
    for start, init in starts.items():
        for method in values.methods:
            records = [
                {"start": start, "method": method, "seed": seed, **record}
                for seed in range(values.seeds)
                for record in ml.solve(
                    problem.model,
                    problem.frequency,
                    problem.source,
                    init=init,
                    method=method,
                    features=values.features,
                    steps=values.steps,
                    seed=seed,
                    truth=truth,
                    progress=_shows_progress(values),
                    **problem.keywords(),
                ).history
            ]
            curve = _mean_curve(records)
            marks = _some(curve)
            if not curves:
                _say_row("start", "method", [str(row["step"]) for row in marks])
            _say_row(start, method, [f"{row['relative_l2']:.2%}" for row in marks])
            rows += records
            curves[f"{start}, {method.replace('_', ' ')}"] = curve
    random = [label for label in curves if label.startswith("random, ")]
    figure = plotting.convergence_figure(curves, dashed=random)
    _write_evaluation(values.out, rows, figure)


def _mean_curve(records: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """Mean error over seeds and sources at every recorded step."""
    errors: dict[int, list[float]] = {}
    for record in records:
        errors.setdefault(record["step"], []).append(record["relative_l2"])
    return [
        {"step": step, "relative_l2": sum(some) / len(some)}
        for step, some in sorted(errors.items())
    ]


def _some(curve: Sequence[Any], most: int = 5) -> list[Any]:
    """At most so many records, from the first to the last."""
    last = len(curve) - 1
    places = {round(last * place / (most - 1)) for place in range(most)}
    return [curve[place] for place in sorted(places)]


def _say_row(start: str, method: str, cells: Sequence[str]) -> None:
    _say(start, f"{method:<14}" + "".join(f"{cell:>10}" for cell in cells))


def _write_evaluation(
    out: str, rows: Sequence[Mapping[str, Any]], figure: "Figure"
) -> None:
    table = io.StringIO()
    writer = csv.DictWriter(table, _COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    folder = pathlib.Path(out)
    paths = [folder / "evaluate.csv", folder / "evaluate.png"]
    files.write_together(
        {
            paths[0]: lambda file: file.write(table.getvalue().encode()),
            paths[1]: lambda file: figure.savefig(file, format="png", dpi=150),
        }
    )
    _say("wrote", ", ".join(str(path) for path in paths))


# Meta-training ------------------------------------------------------------------------


def _define_meta_train(values: flags.FlagValues) -> None:
    def number(name, text):
        flags.DEFINE_integer(name, None, text, lower_bound=1, flag_values=values)

    flags.DEFINE_enum(
        "preset",
        "small",
        ("paper", "own_output", "meta_pinn", "small"),
        "Network, objective, tasks and schedule; see meta_lrpinn.configs.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "out",
        None,
        "Folder of the run, required; a run that was stopped there is resumed.",
        flag_values=values,
    )
    flags.DEFINE_list(
        "tasks",
        None,
        "Task set files; by default new tasks for ever.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "init",
        "none",
        "Start: none (random), default (the shipped one), or the folder of an "
        "initialisation of the same network.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "objective",
        None,
        ("paper", "residual", "projection", "galerkin"),
        "What is minimised; by default the preset's.",
        flag_values=values,
    )
    number("iterations", "Meta-iterations; by default the preset's.")
    number("points", "Points per task; by default the preset's.")
    number("tasks_per_batch", "Tasks per meta-iteration; by default the preset's.")
    number("evaluate_every", "Iterations between evaluations; by default the preset's.")
    number("checkpoint_every", "Iterations between checkpoints; likewise.")
    flags.DEFINE_float(
        "learning_rate", None, "Of AdamW; by default the preset's.", flag_values=values
    )
    flags.DEFINE_integer(
        "inner_steps",
        None,
        "Adaptation steps inside a meta-iteration; by default the preset's.",
        lower_bound=0,
        flag_values=values,
    )
    for name, text in (
        ("first_order", "First-order or second-order meta-gradient"),
        ("same_task", "Query points of the support tasks instead of other tasks"),
    ):
        flags.DEFINE_boolean(
            name, None, f"{text}; by default the preset's.", flag_values=values
        )
    flags.DEFINE_float(
        "seconds", None, "Stop after so much time, all sittings.", flag_values=values
    )
    flags.DEFINE_integer("seed", 0, "Seed of parameters and tasks.", flag_values=values)


def _define_distributed(values: flags.FlagValues) -> None:
    flags.DEFINE_boolean(
        "distributed",
        False,
        "Join the processes that SLURM, Open MPI or a Cloud TPU started.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "coordinator",
        None,
        "host:port of process 0, to join processes started in another way.",
        flag_values=values,
    )
    for name, text in (
        ("processes", "Number of processes; with --coordinator."),
        ("process", "Number of this process, from 0; with --coordinator."),
    ):
        flags.DEFINE_integer(name, None, text, lower_bound=0, flag_values=values)


@command(
    "meta-train",
    "Meta-train an initialisation, or go on.",
    _define_meta_train,
    _define_distributed,
    _define_progress,
)
def _meta_train(values: flags.FlagValues) -> None:
    import jax

    from meta_lrpinn.meta import parallel

    if values.out is None:
        raise ValueError("give the folder of the run, --out=FOLDER")
    _check_folder(values.out)
    parallel.initialise_distributed(
        values.coordinator,
        values.processes,
        values.process,
        detect=values.distributed,
    )

    from meta_lrpinn import configs
    from meta_lrpinn.meta import pipeline, training

    config = configs.PRESETS[values.preset]
    names = (
        "iterations learning_rate inner_steps first_order same_task tasks_per_batch "
        "evaluate_every checkpoint_every seed"
    ).split()
    chosen = {name: values[name].value for name in names}
    config = dataclasses.replace(
        config,
        training=_replaced(config.training, **chosen),
        objective=_replaced(config.objective, name=values.objective, points=values.points),
    )
    # The card names what was trained, not where.
    named = [n for n in _defined(values) if values[n].present and n != "out"]
    given = [f"--{name}={_written(values[name].value)}" for name in named]
    try:
        path = pipeline.meta_train(
            config,
            values.out,
            init={"none": None, "default": ASSETS / "small"}.get(values.init, values.init),
            task_files=values.tasks or (),
            seconds=values.seconds,
            command=" ".join([PROGRAM, "meta-train", *given]),
            progress=_shows_progress(values),
        )
    except training.TrainingDiverged as error:
        raise CommandFailed(str(error)) from error
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"the same command goes on from the last checkpoint in {values.out}"
        ) from None
    if jax.process_index() == 0:
        _say("wrote", str(path))


def _written(value: Any) -> str:
    """A flag's value as it is given on the command line."""
    return ",".join(value) if isinstance(value, list) else str(value)


def _replaced(config: Any, **fields: Any) -> Any:
    """A dataclass with those of the fields replaced that are not None."""
    return dataclasses.replace(
        config, **{name: value for name, value in fields.items() if value is not None}
    )
