"""Metrics of a run: a CSV file to read back, TensorBoard to look at."""

import contextlib
import csv
import io
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboardX.proto import event_pb2
from tensorboardX.record_writer import RecordWriter
from tensorboardX.summary import scalar

from meta_lrpinn.files import writing

# Its classes are made as it is imported, where type checkers see none.
_EVENT: Any = event_pb2


class RunLog:
    """Appends rows of scalars to `<name>.csv` and to TensorBoard.

    Rows after `step` are dropped on opening, so that a resumed run repeats none.
    """

    def __init__(self, directory: str | Path, name: str, step: int = -1):
        """Opens the files of a run, to go on after a step, or anew after −1.

        The directory is the run's, in which `tensorboard/` holds the event files; the name
        is that of the CSV file, and prefix of the TensorBoard tags.
        """
        self._name = name
        self._path = Path(directory) / f"{name}.csv"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        rows = read_rows(self._path) if self._path.exists() else []
        rows = [row for row in rows if row["step"] <= step]
        self._columns = list(rows[0]) if rows else []
        text = io.StringIO(newline="")
        if rows:
            writer = csv.DictWriter(text, self._columns)
            writer.writeheader()
            writer.writerows(rows)
        content = text.getvalue().encode()
        writing.write_together({self._path: lambda file: file.write(content)})
        self._file = self._path.open("a", newline="")
        # Opened with the first row, so that a sitting without any writes nothing. The
        # library's summary writer is a thread, whose errors are not raised but printed.
        self._events: RecordWriter | None = None
        self._folder, self._first = Path(directory) / "tensorboard" / name, step + 1

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Appends one row.

        Raises:
            ValueError: if the names differ from those of earlier rows.
        """
        row = {"step": step, **{name: float(value) for name, value in scalars.items()}}
        if not self._columns:
            self._columns = list(row)
            csv.writer(self._file).writerow(row)
        if sorted(row) != sorted(self._columns):
            raise ValueError(f"{self._path} has columns {self._columns}, got {list(row)}")
        csv.DictWriter(self._file, self._columns).writerow(row)
        self._file.flush()
        if self._events is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}"
            self._events = RecordWriter(str(self._folder / name))
            self._append(file_version="brain.Event:2")
            # It takes the place of older files from this step on.
            start = _EVENT.SessionLog(status=_EVENT.SessionLog.START)
            self._append(step=self._first, session_log=start)
        for name in scalars:
            self._append(step=step, summary=scalar(f"{self._name}/{name}", row[name]))

    def close(self) -> None:
        """Closes both files."""
        with contextlib.ExitStack() as files:
            files.callback(self._file.close)
            if self._events is not None:
                files.callback(self._events.close)

    def _append(self, **event: Any) -> None:
        assert self._events is not None
        record = _EVENT.Event(wall_time=time.time(), **event)
        self._events.write(record.SerializeToString())


def read_rows(path: str | Path) -> list[dict[str, float]]:
    """Rows of a CSV file of metrics; a row that was cut off in writing is left out."""
    whole = Path(path).read_text().rpartition("\n")[0]
    lines = list(csv.reader(whole.splitlines()))
    rows = [dict(zip(lines[0], map(float, line), strict=True)) for line in lines[1:]]
    return [{**row, "step": int(row["step"])} for row in rows]
