"""What a command prints: lines as it goes, or one JSON object at the end."""

import json
import math
import sys
from typing import Any

from meta_lrpinn.cli.parsing import PROGRAM

_LONGEST = 500


class CommandFailed(Exception):
    """The input was good and there is no result all the same: exit code 1."""


class NotConverged(CommandFailed):
    """There is a result, which misses a tolerance: a summary, too, and exit code 1."""


class Report:
    """Lines for a person, or the summary for a program."""

    def __init__(self, *, quiet: bool = False, json: bool = False):
        """A report.

        Args:
            quiet: Print nothing at all.
            json: Print nothing but one JSON object, when finished.
        """
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
        complain(f"warning: {text}")

    def finish(self) -> None:
        """Prints the summary, if that was asked for."""
        if self._json:
            print(json.dumps(self._summary), flush=True)


def complain(text: str) -> None:
    """Prints one line on standard error."""
    print(f"{PROGRAM}: {text}", file=sys.stderr, flush=True)


def one_line(error: BaseException | str) -> str:
    """An error's message in one line of bounded length."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LONGEST else text[:_LONGEST] + " ..."


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
