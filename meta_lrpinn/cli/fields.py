"""Options from the fields of dataclasses, however deep, and dataclasses from options."""

import argparse
import dataclasses
import types
import typing
from collections.abc import Iterator
from typing import Any, NamedTuple

from meta_lrpinn.cli.parsing import UsageError, add_option


class Flag(NamedTuple):
    """One option of the command line."""

    name: str
    kind: type  # str, int, float, bool, or tuple of whole numbers
    text: str
    choices: tuple[str, ...] | None
    is_optional: bool  # "none" is a value


def flags_of(kind: type, prefix: str = "") -> Iterator[Flag]:
    """The options of a dataclass's fields, and of those of the dataclasses in them."""
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        metadata, hint = field.metadata, hints[field.name]
        if kinds := metadata.get("kinds"):
            yield Flag(prefix + field.name, str, metadata["help"], tuple(kinds), False)
            for variant in kinds.values():
                yield from flags_of(variant, prefix)
        elif isinstance(hint, type) and dataclasses.is_dataclass(hint):
            yield from flags_of(hint, prefix + metadata.get("prefix", ""))
        elif metadata.get("help"):
            plain, is_optional = plain_type(hint)
            name = prefix + (metadata["flag"] or field.name)
            yield Flag(name, plain, metadata["help"], metadata["choices"], is_optional)


def plain_type(hint: Any) -> tuple[type, bool]:
    """(int, True) of `int | None`, (int, False) of int, (tuple, False) of a tuple."""
    if isinstance(hint, types.UnionType):
        (plain,) = (part for part in typing.get_args(hint) if part is not type(None))
        return plain, True
    return typing.get_origin(hint) or hint, False


def add_flags(group: Any, kind: type) -> None:
    """Adds the options of a dataclass to a group; those not given are in no namespace."""
    flags: dict[str, Flag] = {}
    for flag in flags_of(kind):
        flags.setdefault(flag.name, flag)
    for flag in flags.values():
        add_option(
            group,
            *(flag.name, flag.kind, flag.text, argparse.SUPPRESS, flag.choices),
            is_optional=flag.is_optional,
        )


def replaced(settings: Any, options: argparse.Namespace) -> Any:
    """Settings with what the options of `add_flags` replace in them.

    A variant that is chosen has the values of the one before where both have a field.

    Raises:
        UsageError: if an option is of a variant that is not chosen.
        ValueError: if a value is out of its range.
    """
    known = {flag.name for flag in flags_of(type(settings))}
    chosen = {name: value for name, value in vars(options).items() if name in known}
    used: set[str] = set()
    result = _replaced(settings, chosen, used)
    for name in sorted(chosen.keys() - used):
        raise UsageError(f"--{name} is no option of {_variants(result)}")
    return result


def _replaced(
    settings: Any, chosen: dict[str, Any], used: set[str], prefix: str = ""
) -> Any:
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(settings):
        metadata, value = field.metadata, getattr(settings, field.name)
        name = prefix + (metadata.get("flag") or field.name)
        if name in chosen:
            used.add(name)
        if kinds := metadata.get("kinds"):
            value = _of_kind(kinds[chosen[name]], value) if name in chosen else value
            changes[field.name] = _replaced(value, chosen, used, prefix)
        elif dataclasses.is_dataclass(value):
            inner = prefix + metadata.get("prefix", "")
            changes[field.name] = _replaced(value, chosen, used, inner)
        elif name in chosen:
            changes[field.name] = chosen[name]
    return dataclasses.replace(settings, **changes)


def _of_kind(kind: type, settings: Any) -> Any:
    if type(settings) is kind:
        return settings
    names = {field.name for field in dataclasses.fields(kind)}
    shared = names & {field.name for field in dataclasses.fields(settings)}
    return kind(**{name: getattr(settings, name) for name in shared})


def _variants(settings: Any) -> str:
    """The variants of settings, as "--algorithm=reptile and --schedule=cosine"."""
    names = []
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if kinds := field.metadata.get("kinds"):
            (name,) = (name for name, kind in kinds.items() if type(value) is kind)
            names.append(f"--{field.name}={name}")
        elif dataclasses.is_dataclass(value):
            names += filter(None, [_variants(value)])
    return " and ".join(names)
