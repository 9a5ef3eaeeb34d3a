"""What argparse does not do by itself: one-line errors, near names, --noname."""

import argparse
import difflib
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

PROGRAM = "meta-lrpinn"
_LONGEST_CHOICES = 40  # characters; longer ones stand in the help text


class UsageError(ValueError):
    """An option that there is not, or a value that it cannot have."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line in the user's terms, and do not exit."""

    def __init__(self, **options: Any):
        options.setdefault("formatter_class", _Formatter)
        super().__init__(**options, allow_abbrev=False)

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parses all arguments.

        Raises:
            UsageError: if one is unknown or has a value that it cannot have.
        """
        options, extra = self.parse_known_args(list(arguments))
        if extra:
            command = getattr(options, "command", "") or PROGRAM
            if not extra[0].startswith("-"):
                raise UsageError(
                    f"{command} takes options only, as --name=value; got {extra[0]!r}"
                )
            name = extra[0].partition("=")[0]
            known = self._options_of(options)
            near = nearest(name.lstrip("-"), known, "--")
            raise UsageError(
                f"{command} has no option {name}"
                + (near or f"; {PROGRAM} {command} --help lists its options")
            )
        return options

    def _options_of(self, options: argparse.Namespace) -> list[str]:
        parser = getattr(options, "parser", self)
        return [
            name.lstrip("-")
            for action in parser._actions
            for name in action.option_strings
            if action.help is not argparse.SUPPRESS
        ]

    def error(self, message: str) -> NoReturn:
        """Raises UsageError, where argparse prints the usage and exits."""
        name, colon, rest = message.removeprefix("argument ").partition(": ")
        if message.startswith("argument ") and colon:
            message = f"{name.split('/')[0]} {rest}"
        raise UsageError(message)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        choices = list(map(str, action.choices))
        if action.dest == "command":
            self.error(
                f"there is no command {value!r}"
                + (nearest(str(value), choices) or f"; choose one of {', '.join(choices)}")
            )
        raise argparse.ArgumentError(
            action, f"must be one of {', '.join(choices)}, got {value!r}"
        )


class _Formatter(argparse.HelpFormatter):
    """Help with one width, whatever the terminal, so that it can be quoted."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=30, width=88)


def nearest(name: str, known: Iterable[str], prefix: str = "") -> str:
    """A question to append to a message, or nothing when no name is near."""
    known = list(known)
    near = [option for option in known if option.startswith(name)]
    near = near or difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f", did you mean {prefix}{near[0]}?" if near else ""


def add_option(
    group: Any,
    name: str,
    kind: type = str,
    text: str = "",
    default: Any = None,
    choices: Sequence[str] | None = None,
    is_optional: bool = False,
) -> None:
    """Adds `--name=value`; of a bool also `--name` and `--noname`.

    Args:
        group: Parser or group of options.
        name: Name of the option and of its destination.
        kind: str, int, float, bool, or tuple of whole numbers.
        text: Help; the default is appended.
        default: What it is when it is not given.
        choices: Values that it can have.
        is_optional: Whether "none" is a value too.
    """
    if choices and len("|".join(choices)) > _LONGEST_CHOICES:
        text = f"{text} One of {', '.join(choices)}."
        metavar = "NAME"
    else:
        kinds = {str: "TEXT", int: "N", float: "X", bool: "BOOL", tuple: "N,N"}
        metavar = "|".join(choices) if choices else kinds[kind]
    shown = "" if default in (None, False, "", argparse.SUPPRESS) else f" [{default}]"
    common = {"dest": name, "default": default, "help": (text + shown).replace("%", "%%")}
    if kind is bool:
        group.add_argument(
            f"--{name}", type=_boolean, nargs="?", const=True, metavar=metavar, **common
        )
        group.add_argument(
            f"--no{name}", dest=name, action="store_false", help=argparse.SUPPRESS,
            default=argparse.SUPPRESS,
        )  # fmt: skip
        return
    # Every text: the shell leaves the ~ of --out=~/x to the program.
    texts = os.path.expanduser
    converter = {str: texts, int: _whole, float: _number, tuple: _wholes}[kind]
    if is_optional:
        metavar, converter = f"{metavar}|none", _optional(converter)
    group.add_argument(
        f"--{name}",
        type=converter,
        choices=choices,
        metavar=metavar,
        **common,
    )


def command_line(options: argparse.Namespace) -> str:
    """The command line for a card, which names what is trained, not where."""
    unnamed = ("command", "parser", "out", "quiet", "json")
    defaults = vars(options.parser.parse_args([]))
    chosen = [
        f"--{name}={_text(value)}"
        for name, value in vars(options).items()
        if name not in unnamed and (name not in defaults or value != defaults[name])
    ]
    return " ".join([PROGRAM, options.command, *chosen])


def _text(value: Any) -> str:
    """A value as it is given on the command line."""
    if value is None:
        return "none"
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _converter(convert: Callable[[str], Any], what: str) -> Callable[[str], Any]:
    def converted(text: str) -> Any:
        try:
            return convert(text)
        except (ValueError, KeyError, OverflowError):
            raise argparse.ArgumentTypeError(f"must be {what}, got {text!r}") from None

    return converted


def _optional(convert: Callable[[str], Any]) -> Callable[[str], Any]:
    return lambda text: None if text == "none" else convert(text)


_whole = _converter(int, "a whole number")
_wholes = _converter(
    lambda text: tuple(int(part) for part in text.split(",") if part),
    "whole numbers with commas between",
)
_number = _converter(float, "a number")
_boolean = _converter(
    lambda text: {"true": True, "1": True, "false": False, "0": False}[text.lower()],
    "true or false",
)
