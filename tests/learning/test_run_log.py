import contextlib
import os
import struct
import threading

import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from meta_lrpinn.learning import run_log


def write(directory, rows, step=-1):
    writer = run_log.RunLog(directory, "training", step)
    for number, scalars in rows.items():
        writer.write(number, scalars)
    writer.close()
    return directory / "training.csv"


def test_rows_are_read_back_exactly(tmp_path):
    rows = {
        1: {"loss": 1 / 3, "error": 1e-30},
        2: {"loss": np.float32(0.1), "error": 2},
    }
    path = write(tmp_path, rows)
    assert run_log.read_rows(path) == [
        {"step": 1, "loss": 1 / 3, "error": 1e-30},
        {"step": 2, "loss": float(np.float32(0.1)), "error": 2.0},
    ]


def test_a_resumed_run_repeats_no_row(tmp_path):
    write(tmp_path, {step: {"loss": step} for step in (10, 20, 30)})
    path = write(tmp_path, {step: {"loss": -step} for step in (30, 40)}, step=20)
    losses = [(row["step"], row["loss"]) for row in run_log.read_rows(path)]
    assert losses == [(10, 10.0), (20, 20.0), (30, -30.0), (40, -40.0)]


def test_a_new_run_starts_an_empty_file(tmp_path):
    write(tmp_path, {1: {"loss": 1.0}})
    path = write(tmp_path, {1: {"loss": 2.0, "error": 3.0}})
    assert run_log.read_rows(path) == [{"step": 1, "loss": 2.0, "error": 3.0}]


def test_a_row_cut_off_in_writing_is_dropped(tmp_path):
    path = write(tmp_path, {1: {"loss": 1.0}, 2: {"loss": 2.0}})
    path.write_text(path.read_text() + "3,1.23")
    assert [row["step"] for row in run_log.read_rows(path)] == [1, 2]
    write(tmp_path, {3: {"loss": 3.0}}, step=2)
    assert path.read_text().splitlines() == ["step,loss", "1,1.0", "2,2.0", "3,3.0"]


def test_a_file_cut_off_in_its_header_is_empty(tmp_path):
    path = tmp_path / "training.csv"
    path.write_text("ste")
    assert run_log.read_rows(path) == []
    write(tmp_path, {1: {"loss": 1.0}}, step=0)
    assert run_log.read_rows(path) == [{"step": 1, "loss": 1.0}]


def test_columns_stay_the_same(tmp_path):
    path = write(tmp_path, {1: {"loss": 1.0, "error": 2.0}})
    write(tmp_path, {2: {"error": 4.0, "loss": 3.0}}, step=1)
    assert run_log.read_rows(path)[1] == {"step": 2, "loss": 3.0, "error": 4.0}
    writer = run_log.RunLog(tmp_path, "training", 2)
    with pytest.raises(ValueError, match="has columns"):
        writer.write(3, {"loss": 1.0})
    writer.close()


def test_tensorboard_gets_the_same(tmp_path):
    write(tmp_path, {1: {"loss": 1.0}, 2: {"loss": 0.5}})
    (path,) = (tmp_path / "tensorboard" / "training").glob("events.out.tfevents.*")
    data, events = path.read_bytes(), []
    while data:
        # Length, its checksum, the event, its checksum.
        (length,) = struct.unpack("<Q", data[:8])
        events.append(event_pb2.Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    version, start, *scalars = events
    assert version.file_version == "brain.Event:2"
    assert (start.step, start.session_log.status) == (0, event_pb2.SessionLog.START)
    values = [(event.step, event.summary.value[0]) for event in scalars]
    assert [(step, one.tag, one.simple_value) for step, one in values] == [
        (1, "training/loss", 1.0),
        (2, "training/loss", 0.5),
    ]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a full disk of Linux")
@pytest.mark.parametrize("which", ["training.csv", "events"])
def test_a_full_disk_is_one_error(tmp_path, which, capfd):
    before = threading.active_count()
    log = run_log.RunLog(tmp_path, "training")
    log.write(0, {"loss": 1.0})  # which opens the event file
    full = open("/dev/full", "wb" if which == "events" else "w")
    holder, name = (log, "_file")
    if which == "events":
        holder, name = (log._events, "_writer")
    getattr(holder, name).close()
    setattr(holder, name, full)
    with pytest.raises(OSError, match="No space left"), contextlib.closing(log):
        for step in range(1, 2000):
            log.write(step, {"loss": 1.0})
    assert threading.active_count() == before
    assert capfd.readouterr().err == ""
