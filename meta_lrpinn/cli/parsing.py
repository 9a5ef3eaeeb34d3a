"""What stands on the command line: options, of dataclasses' fields too, and their values.

argparse, with what it does not do by itself: errors of one line, near names, --noname,
one option for one field of a frozen dataclass, however deep.
"""

import argparse
import dataclasses
import difflib
import functools
import os
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn, TypeAlias, TypeVar

T = TypeVar("T")
PROGRAM = "meta-lrpinn"
_LONGEST_CHOICES = 40  # characters; longer ones stand in the help text
# Of a range, so that its last number is there in spite of rounding. Untuned.
_SLACK = 1e-6
_MOST_FREQUENCIES = 100_000
# One width, whatever the terminal, so that help can be quoted.
_FORMATTER = functools.partial(argparse.HelpFormatter, max_help_position=30, width=88)


class UsageError(ValueError):
    """An option that there is not, or a value that it cannot have."""


class Option(NamedTuple):
    """`--name=value`; of a bool also `--name` and `--noname`."""

    name: str
    text: str  # help, to which the default is appended
    # str, int, float, bool, or tuple of whole numbers; or one of those below.
    kind: Callable[[str], Any] = str
    default: Any = None
    choices: Sequence[str] | None = None
    is_optional: bool = False  # whether "none" is a value, too


# Options by the titles that they stand under in the help.
Groups: TypeAlias = Mapping[str, Iterable[Option]]


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line in the user's terms, and do not exit."""

    def __init__(self, **options: Any):
        super().__init__(**options, formatter_class=_FORMATTER, allow_abbrev=False)

    def add_groups(self, groups: Groups) -> None:
        """Adds options, group by group."""
        for title, options in groups.items():
            group = self.add_argument_group(title)
            for option in options:
                _add(group, option)

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parses all arguments.

        Raises:
            UsageError: if one is unknown or has a value that it cannot have.
        """
        options, extra = self.parse_known_args(list(arguments))
        if not extra:
            return options
        command = getattr(options, "command", "") or PROGRAM
        if not extra[0].startswith("-"):
            raise UsageError(
                f"{command} takes options only, as --name=value; got {extra[0]!r}"
            )
        known = [
            name.lstrip("-")
            for action in getattr(options, "parser", self)._actions
            for name in action.option_strings
            if action.help is not argparse.SUPPRESS
        ]
        name = extra[0].partition("=")[0]
        raise UsageError(
            f"{command} has no option {name}"
            + (
                _nearest(name.lstrip("-"), known, "--")
                or f"; {PROGRAM} {command} --help lists its options"
            )
        )

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
                + (_nearest(str(value), choices) or f"; choose one of {', '.join(choices)}")
            )
        raise argparse.ArgumentError(
            action, f"must be one of {', '.join(choices)}, got {value!r}"
        )


def _nearest(name: str, known: Sequence[str], prefix: str = "") -> str:
    """A question to append to a message, or nothing when no name is near."""
    near = [option for option in known if option.startswith(name)]
    near = near or difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f", did you mean {prefix}{near[0]}?" if near else ""


def _add(group: Any, option: Option) -> None:
    name, text, kind, default, choices, is_optional = option
    metavar, convert = _KINDS.get(kind, ("TEXT", kind))
    if choices:
        metavar = "|".join(choices)
    if len(metavar) > _LONGEST_CHOICES:
        metavar, text = "NAME", f"{text} One of {', '.join(choices or ())}."
    if is_optional:
        metavar, convert = f"{metavar}|none", _or_none(convert)
    shown = "" if default in (None, False, "", argparse.SUPPRESS) else f" [{default}]"
    group.add_argument(
        f"--{name}",
        dest=name,
        type=convert,
        nargs="?" if kind is bool else None,
        const=True if kind is bool else None,
        choices=choices,
        metavar=metavar,
        default=default,
        help=(text + shown).replace("%", "%%"),
    )
    if kind is bool:
        group.add_argument(
            f"--no{name}", dest=name, action="store_false", help=argparse.SUPPRESS,
            default=argparse.SUPPRESS,
        )  # fmt: skip


def options_of(kind: type, prefix: str = "") -> dict[str, Option]:
    """The options of a dataclass's fields, and of the dataclasses in them, by their names.

    Those of one name are one option. None has a default: what is not given is in no
    namespace.
    """
    options: dict[str, Option] = {}
    for option in _each_option(kind, prefix):
        options.setdefault(option.name, option)
    return options


def _each_option(kind: type, prefix: str) -> Iterator[Option]:
    # A network is imported for type checkers only; it is no option.
    hints = typing.get_type_hints(kind, localns={"Network": object})
    for field in dataclasses.fields(kind):
        metadata, hint = field.metadata, hints[field.name]
        name, text = _name(field, prefix), metadata.get("help", "")
        if kinds := metadata.get("kinds"):
            yield Option(name, text, str, argparse.SUPPRESS, tuple(kinds))
            for variant in kinds.values():
                yield from _each_option(variant, prefix)
        elif isinstance(hint, type) and dataclasses.is_dataclass(hint):
            yield from _each_option(hint, _inner_prefix(field, prefix))
        elif text:
            plain, is_optional = _plain_type(hint)
            choices = metadata["choices"]
            yield Option(name, text, plain, argparse.SUPPRESS, choices, is_optional)


def _name(field: dataclasses.Field, prefix: str) -> str:
    return prefix + (field.metadata.get("flag") or field.name)


def _inner_prefix(field: dataclasses.Field, prefix: str) -> str:
    """What the names of the options in a field's dataclass begin with."""
    return prefix + field.metadata.get("prefix", "")


def _plain_type(hint: Any) -> tuple[type, bool]:
    """(int, True) of `int | None`, (int, False) of int, (tuple, False) of a tuple."""
    if isinstance(hint, types.UnionType):
        (plain,) = (part for part in typing.get_args(hint) if part is not type(None))
        return plain, True
    return typing.get_origin(hint) or hint, False


def replaced(settings: Any, values: Mapping[str, Any], prefix: str = "") -> Any:
    """A dataclass with what the options of its fields replace in it.

    Args:
        settings: The dataclass.
        values: Name of an option → its value; other names have no effect.
        prefix: What the names of its options begin with.

    Raises:
        UsageError: if an option is of a variant that is not chosen.
        ValueError: if a value is out of its range.
    """
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(settings):
        value, name = getattr(settings, field.name), _name(field, prefix)
        if kinds := field.metadata.get("kinds"):
            value = _chosen(name, kinds, value, values, prefix)
        elif name in values and "help" in field.metadata:
            value = values[name]
        if dataclasses.is_dataclass(value):
            value = replaced(value, values, _inner_prefix(field, prefix))
        changes[field.name] = value
    return dataclasses.replace(settings, **changes)


def _chosen(
    name: str, kinds: Mapping[str, type], value: Any, values: Mapping[str, Any], prefix: str
) -> Any:
    """The variant that is chosen, with the present one's values where both have a field."""
    label = values.get(name) or next(
        label for label, kind in kinds.items() if type(value) is kind
    )
    options = {other: options_of(kind, prefix) for other, kind in kinds.items()}
    for option in sorted(values.keys() - options[label].keys()):
        if owners := [other for other in kinds if option in options[other]]:
            raise not_of(f"{name}={label}", option, owners)
    kind = kinds[label]
    if type(value) is kind:
        return value
    fields = {field.name for field in dataclasses.fields(kind)}
    shared = fields & {field.name for field in dataclasses.fields(value)}
    return kind(**{field: getattr(value, field) for field in shared})


def not_of(chosen: str, option: str, owners: Iterable[str]) -> UsageError:
    """An option is none of what is chosen, but of its owners."""
    owned = ", ".join(owners)
    return UsageError(f"--{option} is no option of --{chosen}, but of {owned}")


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


def _reads(what: str) -> Callable[[Callable[[str], T]], Callable[[str], T]]:
    """Has a function say in one line what a text must be that it cannot read."""

    def decorate(convert: Callable[[str], T]) -> Callable[[str], T]:
        @functools.wraps(convert)
        def converted(text: str) -> T:
            try:
                return convert(text)
            except (ArithmeticError, KeyError, ValueError):
                raise argparse.ArgumentTypeError(f"must be {what}, got {text!r}") from None

        return converted

    return decorate


@_reads("numbers with commas between")
def numbers(text: str) -> list[float]:
    """Numbers with commas between."""
    return [float(part) for part in text.split(",")]


@_reads("a number such as 0.25j or 1-2j")
def amplitude(text: str) -> complex:
    """A complex number, with i or j."""
    return _complex(text)


@_reads("numbers with commas between, such as 1,-1")
def weights(text: str) -> list[complex]:
    """Complex numbers with commas between."""
    return [_complex(part) for part in text.split(",")]


@_reads("a list such as 3,4,5 or first:last:step such as 2:15:0.5 in Hz")
def frequencies(text: str) -> list[float]:
    """A list, 3,4,5, or first:last:step with both ends, 2:15:0.5, or both [Hz]."""
    values: list[float] = []
    for part in text.split(","):
        if ":" not in part:
            values.append(float(part))
            continue
        first, last, step = map(float, part.split(":"))
        steps = (last - first) / step
        if not 0 <= steps < _MOST_FREQUENCIES:
            raise ValueError
        # Rounded, so that steps of 0.1 give 2.3 and not 2.3000000000000003.
        values += [round(first + i * step, 12) for i in range(int(steps + _SLACK) + 1)]
    return values


def _complex(text: str) -> complex:
    return complex(text.replace(" ", "").replace("i", "j"))


def _or_none(convert: Callable[[str], Any]) -> Callable[[str], Any]:
    return lambda text: None if text == "none" else convert(text)


_whole = _reads("a whole number")(int)
_wholes = _reads("whole numbers with commas between")(
    lambda text: tuple(int(part) for part in text.split(",") if part)
)
_number = _reads("a number")(float)
_boolean = _reads("true or false")(
    lambda text: {"true": True, "1": True, "false": False, "0": False}[text.lower()]
)
# What stands for the value in the help, and the function that reads it.
_KINDS: Mapping[Callable, tuple[str, Callable[[str], Any]]] = {
    str: ("TEXT", os.path.expanduser),  # the shell leaves the ~ of --out=~/x alone
    int: ("N", _whole),
    float: ("X", _number),
    bool: ("BOOL", _boolean),
    tuple: ("N,N", _wholes),
}
