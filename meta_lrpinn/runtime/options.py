"""Fields of dataclasses that are options too, and the checks of their values.

The help text and the choices of an option stand in the metadata of its field, so that
documentation and command line have them from one place. Nothing here needs JAX.
"""

import dataclasses
import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

# Shapes and step numbers are 32 bits wide in JAX.
LARGEST_WHOLE = 2**31 - 1


def option(
    default: Any,
    text: str,
    choices: Iterable[str] | None = None,
    flag: str | None = None,
) -> Any:
    """A field with one sentence of help, for documentation and command line alike.

    It can have any value where there are no choices. A flag is its name on the command
    line where that is not its own.
    """
    chosen = None if choices is None else tuple(choices)
    metadata = {"help": text, "choices": chosen, "flag": flag}
    return dataclasses.field(default=default, metadata=metadata)


def check_choices(settings: Any) -> None:
    """Raises ValueError for values that are neither a field's default nor a choice."""
    for field in dataclasses.fields(settings):
        choices, value = field.metadata.get("choices"), getattr(settings, field.name)
        if choices and value not in (*choices, field.default):
            name = field.metadata.get("flag") or field.name
            raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def check_positive(settings: Any, *names: str) -> None:
    """Raises ValueError unless these fields are positive and finite, or None."""
    for name, value in _given(settings, names):
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be positive, got {value}")


def check_not_negative(settings: Any, *names: str) -> None:
    """Raises ValueError unless these fields are zero or more and finite, or None."""
    for name, value in _given(settings, names):
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} must not be negative, got {value}")


def check_whole(settings: Any, *names: str) -> None:
    """Raises ValueError unless these fields are whole, of 32 bits, or None."""
    for name, value in _given(settings, names):
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ValueError(f"{name} must be a whole number from 0 up, got {value!r}")
        if value > LARGEST_WHOLE:
            raise ValueError(f"{name} must be at most {LARGEST_WHOLE}")


def _given(settings: Any, names: Iterable[str]) -> list[tuple[str, Any]]:
    pairs = [(name, getattr(settings, name)) for name in names]
    return [(name, value) for name, value in pairs if value is not None]


def variant(default: Any, text: str, kinds: dict[str, type]) -> Any:
    """A field with one sentence of help, whose value is of one of several dataclasses.

    These, `kinds`, are by the names that they have on the command line.
    """
    return dataclasses.field(default=default, metadata={"help": text, "kinds": kinds})


def as_dict(settings: Any) -> dict[str, Any]:
    """Nested dictionaries of a dataclass's plain values; a variant's has its `name` too."""
    values = {}
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            names = {kind: name for name, kind in field.metadata.get("kinds", {}).items()}
            label = {"name": names[type(value)]} if names else {}
            value = {**label, **as_dict(value)}
        values[field.name] = value
    return values


def check_settings(
    saved: Mapping[str, Any],
    current: Mapping[str, Any],
    ignored: Collection[str] = (),
    path: str | Path = "the checkpoint",
) -> None:
    """Raises ValueError, naming all that differ, unless two settings agree.

    Args:
        saved: Settings of a checkpoint, nested dictionaries of JSON values.
        current: Settings at hand.
        ignored: Dotted names ("training.log_every") that may differ.
        path: Whose settings, for the message.
    """
    saved, current = dict(_flat(saved)), dict(_flat(current))
    names = sorted((saved.keys() | current.keys()) - set(ignored))
    absent = "(absent)"
    differing = [
        f"{name} was {saved.get(name, absent)}, is {current.get(name, absent)}"
        for name in names
        if saved.get(name, absent) != current.get(name, absent)
    ]
    if differing:
        raise ValueError(f"{path} was made under other settings: " + "; ".join(differing))


def _flat(settings: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    # Through JSON, so that a tuple given equals the list saved.
    if not prefix:
        settings = json.loads(json.dumps(settings))
    for name, value in settings.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
