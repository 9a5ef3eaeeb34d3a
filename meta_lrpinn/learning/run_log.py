"""Metrics of a run: a CSV file to read back, TensorBoard to look at."""

import contextlib
import csv
import io
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboardX.proto import event_pb2, summary_pb2
from tensorboardX.record_writer import RecordWriter

from meta_lrpinn.files import writing

# Their classes are made as they are imported, where type checkers see none.
_EVENT: Any = event_pb2
_SUMMARY: Any = summary_pb2


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
        # Opened with the first row, so that a sitting without any writes nothing.
        self._events: _Events | None = None
        self._folder, self._first = Path(directory) / "tensorboard" / name, step + 1

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
        if self._events is None:
            self._events = _Events(self._folder, self._first)
        self._events.write(
            step, {f"{self._name}/{tag}": float(value) for tag, value in scalars.items()}
        )

    def close(self) -> None:
        """Closes both files."""
        with contextlib.ExitStack() as files:
            files.callback(self._file.close)
            if self._events is not None:
                files.callback(self._events.close)


class _Events:
    """An event file of TensorBoard.

    tensorboardX's own writer is a thread, in which an error, as of a full disk, is not
    raised but printed.
    """

    def __init__(self, folder: Path, first: int):
        """Opens a new file, which takes the place of older ones from a step on."""
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}"
        self._file = RecordWriter(str(folder / name))
        self._append(file_version="brain.Event:2")
        start = _EVENT.SessionLog(status=_EVENT.SessionLog.START)
        self._append(step=first, session_log=start)

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Appends scalars by their tags."""
        values = [
            _SUMMARY.Summary.Value(tag=tag, simple_value=value)
            for tag, value in scalars.items()
        ]
        self._append(step=step, summary=_SUMMARY.Summary(value=values))

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _append(self, **event: Any) -> None:
        event["wall_time"] = time.time()
        self._file.write(_EVENT.Event(**event).SerializeToString())


def read_rows(path: str | Path) -> list[dict[str, float]]:
    """Rows of a CSV file of metrics; a row that was cut off in writing is left out."""
    whole = Path(path).read_text().rpartition("\n")[0]
    lines = list(csv.reader(whole.splitlines()))
    rows = [dict(zip(lines[0], map(float, line), strict=True)) for line in lines[1:]]
    return [{**row, "step": int(row["step"])} for row in rows]


def _rewrite(path: Path, columns: list[str], rows: list[dict[str, float]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    if columns:
        writer.writerow(columns)
    writer.writerows([row[column] for column in columns] for row in rows)
    writing.write_together({path: lambda file: file.write(text.getvalue().encode())})
