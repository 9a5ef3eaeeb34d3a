"""What all experiments share: flags, records that survive a stop, tables, data."""

import csv
import dataclasses
import datetime
import functools
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

import meta_lrpinn as ml
from meta_lrpinn.files.cases import Case
from meta_lrpinn.learning import checkpoints
from meta_lrpinn.learning.networks import Network
from meta_lrpinn.physics.problem import HelmholtzProblem
from meta_lrpinn.physics.velocity import VelocityModel

FLAGS = flags.FLAGS
# Published layered models: name to file of the data folder.
LAYERED_CASES = {
    "layered 5 Hz": "layered_5hz.npz",
    "layered 4 Hz": "layered_4hz_9sources.npz",
}
ROOT = Path(__file__).parents[1]
# Points of a step along an axis: so many per shortest wavelength, a multiple of the other,
# so that frequencies share compiled programs. Of the layered model at 5 Hz that is 24.
_PER_WAVELENGTH, _MULTIPLE = 3.0, 12
_MADE = "made.txt"  # a line for each version of the code that wrote into the folder

flags.DEFINE_string("out", "results", "Folder under which results are written.")
flags.DEFINE_integer("seeds", 3, "Seeds per setting.", lower_bound=1)
flags.DEFINE_list("frequencies", None, "In Hz; by default the experiment's own.")
flags.DEFINE_string(
    "data",
    os.environ.get("META_LRPINN_DATA", "../shared/data"),
    "Folder of the published cases and velocity models.",
)


def folder(name: str) -> Path:
    """The experiment's output folder, created; it records the code that writes there."""
    path = Path(FLAGS.out) / name
    path.mkdir(parents=True, exist_ok=True)
    made = path / _MADE
    stamps = made.read_text().splitlines() if made.exists() else []
    if stamps[-1:] != [stamp()]:
        made.write_text("\n".join([*stamps, stamp()]) + "\n")
    return path


@functools.cache
def stamp() -> str:
    """The code of this process: "0.2.0, commit 1234567, 2026-11-28".

    A commit with changes that are not committed ends in "-dirty"; outside a repository
    it is "unknown".
    """
    asked = ["git", "describe", "--always", "--dirty", "--exclude=*", "--abbrev=7"]
    try:
        answer = subprocess.run(
            asked, cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        answer = "unknown"
    today = datetime.datetime.now(datetime.UTC).date()
    return f"{ml.__version__}, commit {answer}, {today}"


def stamps(out: Path) -> list[str]:
    """The first and the last code that wrote into an output folder; one if they agree.

    Rows of earlier runs are kept, so that figures can rest on all that lies between.
    """
    made = out / _MADE
    found = made.read_text().splitlines() if made.exists() else ["commit not recorded"]
    return list(dict.fromkeys([found[0], found[-1]]))


def frequencies(default: Sequence[float]) -> list[float]:
    """Those of --frequencies, or the experiment's own, in Hz."""
    if FLAGS.frequencies is None:
        return list(default)
    return [float(text) for text in FLAGS.frequencies]


def one_frequency(default: float) -> float:
    """The one of --frequencies, or the experiment's own, in Hz."""
    values = frequencies([default])
    if len(values) != 1:
        raise ValueError(f"this experiment takes one of --frequencies, got {len(values)}")
    return values[0]


def published_case(name: str) -> Case:
    """A case of the data folder."""
    path = Path(FLAGS.data) / name
    if not path.exists():
        raise ValueError(f"there is no {path}; give the data folder with --data=FOLDER")
    return ml.load_case(path)


def middle_source(case: Case) -> Case:
    """A case with one source: of several, the middle one."""
    if np.ndim(case.source) == 1:
        return case
    middle = len(case.source) // 2
    return dataclasses.replace(
        case, source=case.source[middle], scattered=case.scattered[middle]
    )


def points_by_wavelength(model: VelocityModel, frequency: float) -> int:
    """Collocation points of a step: at least three per shortest wavelength along each axis.

    New ones at every step: 24 along an axis of 7.5 wavelengths were measured to be enough.
    The number along an axis is rounded up to 24, 36, 48, ...
    """
    side = np.prod(model.upper - model.lower) ** (1 / model.ndim)
    along = _PER_WAVELENGTH * side * frequency / model.minimum
    number = _MULTIPLE * max(2, int(np.ceil(along / _MULTIPLE - 1e-6)))
    return number**model.ndim


def shared_problem(
    models: Sequence[VelocityModel],
    frequency: float,
    sources: np.ndarray,
    layer_fraction: float | None = None,
) -> HelmholtzProblem:
    """A problem whose layer and smallest velocity serve all models.

    Args:
        models: Velocity models on one grid.
        frequency: Frequency [Hz].
        sources: Source positions (n_sources, ndim) [km]; the problem has the first.
        layer_fraction: As of `make_problem`.

    Returns:
        The problem of the smallest velocity at every grid point, in a layer for the
        largest; of networks, for the mean of all.
    """
    representative = np.max if layer_fraction is None else np.mean
    velocities = [model.velocity for model in models]
    for_layer = models[0].replace_velocity(representative(velocities, axis=0))
    problem = ml.make_problem(
        for_layer, frequency, sources[0], layer_fraction=layer_fraction
    )
    return problem.replace(model=models[0].replace_velocity(np.min(velocities, axis=0)))


def fingerprint(network: Network) -> str:
    """What tells a network in records from others, those of the same name too."""
    # The prefix keeps a checksum such as 12e4 from being read as a number.
    return f"sha256 {checkpoints.checksum((network.params, network.metric))[:12]}"


class Records:
    """Rows of a CSV file; a setting that has its rows is not run again."""

    def __init__(self, path: Path, keys: Sequence[str]):
        """Opens the file.

        Args:
            path: CSV file, read if it exists.
            keys: Columns that name a setting.
        """
        self.path, self.keys = path, tuple(keys)
        self.rows: list[dict[str, Any]] = []
        if path.exists():
            with open(path, newline="") as file:
                self.rows = [
                    {name: _number(text) for name, text in row.items()}
                    for row in csv.DictReader(file)
                ]

    def ensure(
        self,
        setting: Mapping[str, Any],
        measure: Callable[[], Sequence[Mapping[str, Any]]],
    ) -> list[dict[str, Any]]:
        """Rows of a setting, measured and saved if they are not there yet."""
        text = {key: str(setting[key]) for key in self.keys}
        found = [r for r in self.rows if all(str(r[k]) == text[k] for k in self.keys)]
        if found:
            return found
        print("measuring " + ", ".join(f"{k}={v}" for k, v in text.items()), flush=True)
        new = [{**setting, **row} for row in measure()]
        self.rows += new
        self._save()
        return new

    def at(
        self, values: Sequence[Any], measure: Callable[[], Sequence[Mapping[str, Any]]]
    ) -> list[dict[str, Any]]:
        """`ensure` for the setting of these values, in the order of the keys."""
        return self.ensure(dict(zip(self.keys, values, strict=True)), measure)

    def _save(self) -> None:
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        partial = self.path.with_suffix(".partial")
        with open(partial, "w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(self.rows)
        partial.replace(self.path)


def _number(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except (TypeError, ValueError):
            continue
    return text


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table."""
    cells = [[_cell(value) for value in row] for row in rows]
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in cells)])


def _cell(value: Any) -> str:
    return number(value) if isinstance(value, float) else str(value)


def number(value: float) -> str:
    """Three digits; of thousands all before the point."""
    return f"{value:.0f}" if 1e3 <= abs(value) < 1e7 else f"{value:.3g}"


def spread(values: Sequence[float], unit: str = "") -> str:
    """Mean ± standard deviation of several seeds."""
    values = np.asarray(values, float)
    if len(values) == 1:
        return f"{number(values[0])}{unit}"
    deviation = values.std(ddof=1)
    if deviation < 1e-12 * abs(values.mean()):  # rounding
        deviation = 0.0
    return f"{number(values.mean())} ± {deviation:.2g}{unit}"


def count_seeds() -> str:
    """The number of seeds in words: "one seed", "3 seeds"."""
    return "one seed" if FLAGS.seeds == 1 else f"{FLAGS.seeds} seeds"


def over_seeds() -> str:
    """What the cells that `spread` writes are; a single seed has no deviation."""
    mean = "" if FLAGS.seeds == 1 else "mean ± standard deviation of "
    return mean + count_seeds()


def needed(curve: Sequence[tuple[float, float]], target: float) -> float:
    """Unknowns at which a curve falls to an error, between its sizes; inf if never.

    Args:
        curve: Pairs of unknowns and relative error, by unknowns.
        target: Relative error.
    """
    before = None
    for size, error in curve:
        if error <= target:
            if before is None:
                return size
            part = np.log(target / before[1]) / np.log(error / before[1])
            return float(before[0] * (size / before[0]) ** part)
        before = size, error
    return np.inf


def save_report(name: str, text: str) -> None:
    """Print a report and keep it as Markdown beside the records."""
    print(text, flush=True)
    (folder(name) / "table.md").write_text(text + "\n")
