"""The command line: `meta-lrpinn COMMAND --option=value`.

Each command is a module of this package with a SUMMARY, `option_groups()` and
`run(options, report)`. It imports what it needs when it runs, so that help is quick;
raises ValueError or OSError for bad input, which becomes one line on standard error and
exit code 2, `CommandFailed` where the input was good and there is no result all the same,
`NotConverged` where what was written misses a tolerance, which are exit code 1;
and writes files all together, so that a command that fails leaves none.
"""

import contextlib
import importlib
import json
import math
import pathlib
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from meta_lrpinn._version import __version__
from meta_lrpinn.cli.parsing import PROGRAM, Parser
from meta_lrpinn.runtime import machine

# Commands in the order of the help; the module of "meta-train" is meta_train.
COMMANDS = (
    "solve",
    "evaluate",
    "meta-train",
    "learn-metric",
    "make-tasks",
    "survey",
    "traces",
    "models",
    "info",
)

# How XLA begins an error about memory; its class is known only once JAX is imported.
_EXHAUSTED = "RESOURCE_EXHAUSTED"
_LONGEST = 500  # characters of a message
# Endings of what nobody calls a folder; others may be part of a name, as in run_2.5Hz.
_FILE_ENDINGS = frozenset(
    f".{end}"
    for end in "npy npz nc zarr h5 hdf5 mat sgy segy rsf bin csv txt json md png jpg jpeg "
    "svg pdf eps gif html".split()
)


def main(arguments: Sequence[str]) -> int:
    """Runs one command.

    Args:
        arguments: What stands after the program's name.

    Returns:
        The exit code: 0, 2 for bad input, 1 for a computation that failed, 130 when
        interrupted.
    """
    try:
        return _run(list(arguments))
    except (CommandFailed, FloatingPointError) as error:
        return _complain(_one_line(error), 1)
    except (ValueError, OSError, OverflowError) as error:
        return _complain(_one_line(error), 2)
    except MemoryError:
        return _complain("there is not enough memory; is the spacing in metres?", 2)
    except RuntimeError as error:
        if _EXHAUSTED not in str(error):
            raise
        text = (
            "the computation needs more memory than there is; choose a smaller window, a "
            "lower frequency or fewer sources; is the spacing in metres?"
        )
        return _complain(text, 1)
    except KeyboardInterrupt as error:
        what_now = _one_line(error) if error.args else "nothing written"
        return _complain(f"interrupted; {what_now}", 130)


def run() -> None:
    """The console script; what it compiles is kept for the next time."""
    machine.keep_programs()
    sys.exit(main(sys.argv[1:]))


def make_parser() -> Parser:
    """The parser of all commands."""
    parser = Parser(
        prog=PROGRAM,
        description="Acoustic wavefields in the frequency domain.",
        epilog=f"{PROGRAM} COMMAND --help lists the options of a command.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for name in COMMANDS:
        module = command_module(name)
        command = commands.add_parser(
            name,
            help=module.SUMMARY,
            description=module.SUMMARY,
            usage=f"{PROGRAM} {name} [--option=value ...]",
        )
        command.add_groups(module.option_groups())
        group = command.add_argument_group("output to the terminal")
        group.add_argument("--quiet", action="store_true", help="Print errors only.")
        group.add_argument(
            "--json",
            action="store_true",
            help="Print the summary as one JSON object, and nothing else.",
        )
        command.set_defaults(parser=command)
    return parser


def command_module(name: str):
    """The module of a command."""
    return importlib.import_module(f"{__name__}.{name.replace('-', '_')}")


def check_folder(out: str | pathlib.Path) -> None:
    """Refuses, before anything is computed, a folder that is a file or is named as one."""
    folder = pathlib.Path(out)
    for path in (folder, *folder.parents):
        if path.exists() and not path.is_dir():
            raise ValueError(f"--out must be a folder, {path} is a file")
    if folder.suffix.lower() in _FILE_ENDINGS and not folder.is_dir():
        raise ValueError(f"--out must be a folder, {out} has the name of a file")


class CommandFailed(Exception):
    """The input was good and there is no result all the same: exit code 1."""


class NotConverged(CommandFailed):
    """There is a result, which misses a tolerance: a summary, too, and exit code 1."""


class Report:
    """What a command prints.

    Lines for a person as it goes; if quiet, nothing; if json, one object when finished.
    """

    def __init__(self, *, quiet: bool = False, json: bool = False):
        self._quiet, self._json = quiet, json
        self._summary: dict[str, Any] = {}

    def say(self, what: str, text: str) -> None:
        """Prints one line: what it is about, and the text."""
        if self.is_talking:
            print(f"{what:<12} {text}", flush=True)

    def add(self, **figures: Any) -> None:
        """Adds figures to the summary; arrays and paths become lists and texts."""
        self._summary.update((name, _plain(value)) for name, value in figures.items())

    def part(self, name: str) -> "Report":
        """A report of one of several things alike, whose figures are in a list `name`."""
        part = Report(quiet=self._quiet, json=self._json)
        self._summary.setdefault(name, []).append(part._summary)
        return part

    @property
    def is_talking(self) -> bool:
        """Whether lines are printed as the command goes."""
        return not (self._quiet or self._json)

    @property
    def shows_progress(self) -> bool:
        """Whether a progress bar has a terminal to show itself on."""
        return sys.stderr.isatty() and self.is_talking

    def warn(self, text: str) -> None:
        """Prints a warning on standard error; the summary has it too."""
        self._summary.setdefault("warnings", []).append(text)
        _complain(f"warning: {text}")

    def finish(self) -> None:
        """Prints the summary, if that was asked for."""
        if self._json:
            print(json.dumps(self._summary), flush=True)


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, complex):
        return [value.real, value.imag]
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON knows no other
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return str(value)


def _run(arguments: list[str]) -> int:
    parser = make_parser()
    with contextlib.suppress(ImportError):  # completion, where a shell asks for it
        import argcomplete

        argcomplete.autocomplete(parser)
    if not arguments or arguments == ["help"]:
        parser.print_help()
        return 0
    try:
        options = parser.parse(arguments)
    except SystemExit as end:  # --help and --version have printed and are done
        return int(end.code or 0)
    report = Report(quiet=options.quiet, json=options.json)
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            command_module(options.command).run(options, report)
        except NotConverged:
            report.finish()
            raise
    report.finish()
    return 0


def _show_warning(message: Warning | str, *_: Any) -> None:
    """A warning as one line, without the place in the code."""
    _complain(f"warning: {_one_line(message)}")


def _complain(text: str, code: int = 0) -> int:
    """Prints one line on standard error; returns the exit code."""
    print(f"{PROGRAM}: {text}", file=sys.stderr, flush=True)
    return code


def _one_line(error: BaseException | str) -> str:
    """A message in one line of bounded length."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LONGEST else text[:_LONGEST] + " ..."
