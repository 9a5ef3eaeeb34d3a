"""The command line: `meta-lrpinn COMMAND --option=value`.

Each command is a module of this package with a SUMMARY, `add_options(parser)` and
`run(options, report)`. It imports what it needs when it runs, so that help is quick;
raises ValueError or OSError for bad input, which becomes one line on standard error and
exit code 2, `CommandFailed` where the input was good and there is no result all the same,
`NotConverged` where what was written misses a tolerance, which are exit code 1;
and writes files all together, so that a command that fails leaves none.
"""

import importlib
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from meta_lrpinn._version import __version__
from meta_lrpinn.cli.parsing import PROGRAM, Parser
from meta_lrpinn.cli.report import CommandFailed, NotConverged, Report, complain, one_line
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
        complain(one_line(error))
        return 1
    except (ValueError, OSError, OverflowError) as error:
        complain(one_line(error))
        return 2
    except MemoryError:
        complain("there is not enough memory; is the spacing in metres?")
        return 2
    except RuntimeError as error:
        if _EXHAUSTED not in str(error):
            raise
        complain(
            "the computation needs more memory than there is; choose a smaller window, a "
            "lower frequency or fewer sources; is the spacing in metres?"
        )
        return 1
    except KeyboardInterrupt as error:
        what_now = one_line(error) if error.args else "nothing written"
        complain(f"interrupted; {what_now}")
        return 130


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
        module.add_options(command)
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


def _run(arguments: list[str]) -> int:
    parser = make_parser()
    _offer_completion(parser)
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
    complain(f"warning: {one_line(message)}")


def _offer_completion(parser: Parser) -> None:
    """Completion in the shell, where argcomplete is installed and asks for it."""
    try:
        import argcomplete
    except ImportError:
        return
    argcomplete.autocomplete(parser)
