"""Metrics of a run: a CSV file to read back, TensorBoard to look at."""

import csv
import os
from collections.abc import Mapping
from pathlib import Path

from tensorboardX import SummaryWriter


class RunLog:
    """Appends rows of scalars to `<name>.csv` and to TensorBoard.

    Rows after `step` are dropped on opening, so that a resumed run repeats none.
    """

    def __init__(self, directory: str | Path, name: str, step: int = -1):
        """Opens the files of a run.

        Args:
            directory: Where the run is; `tensorboard/` inside holds the event files.
            name: Of the CSV file, and prefix of the TensorBoard tags.
            step: Last step to keep, -1 to start anew.
        """
        self._name = name
        self._path = Path(directory) / f"{name}.csv"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        rows = read_rows(self._path) if self._path.exists() else []
        rows = [row for row in rows if row["step"] <= step]
        self._columns = list(rows[0]) if rows else []
        _rewrite(self._path, self._columns, rows)
        self._file = self._path.open("a", newline="")
        self._events = SummaryWriter(
            str(Path(directory) / "tensorboard" / name), purge_step=step + 1
        )

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Appends one row.

        Raises:
            ValueError: if the names differ from those of earlier rows.
        """
        columns = ["step", *scalars]
        if not self._columns:
            self._columns = columns
            csv.writer(self._file).writerow(columns)
        if sorted(columns) != sorted(self._columns):
            raise ValueError(f"{self._path} has columns {self._columns}, got {columns}")
        row = {"step": step, **{k: float(v) for k, v in scalars.items()}}
        csv.writer(self._file).writerow([row[column] for column in self._columns])
        self._file.flush()
        for tag, value in scalars.items():
            self._events.add_scalar(f"{self._name}/{tag}", float(value), step)

    def close(self) -> None:
        """Closes both files."""
        self._file.close()
        self._events.close()


def read_rows(path: str | Path) -> list[dict[str, float]]:
    """Rows of a CSV file of metrics; a row that was cut off in writing is left out."""
    whole = Path(path).read_text().rpartition("\n")[0]
    lines = list(csv.reader(whole.splitlines()))
    rows = [dict(zip(lines[0], map(float, line), strict=True)) for line in lines[1:]]
    return [{**row, "step": int(row["step"])} for row in rows]


def _rewrite(path: Path, columns: list[str], rows: list[dict[str, float]]) -> None:
    temporary = path.with_suffix(".csv.tmp")
    with temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        if columns:
            writer.writerow(columns)
        writer.writerows([row[column] for column in columns] for row in rows)
    os.replace(temporary, path)
