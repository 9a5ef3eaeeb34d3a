"""Files are written together or not at all, and one run holds a folder."""

import os
import signal
import subprocess
import sys

import pytest

from meta_lrpinn import files

HOLD = """
import sys, time
from meta_lrpinn import files
with files.locked(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def hold(folder):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=os.path.dirname(os.path.dirname(files.__file__)),
    )
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_run_is_refused_and_a_killed_one_leaves_no_lock(tmp_path):
    folder = tmp_path / "run"
    with hold(folder) as first:
        try:
            with pytest.raises(BlockingIOError) as error, files.locked(folder):
                pass
            assert str(folder) in str(error.value)
            assert f"process {first.pid}" in str(error.value)
            assert "\n" not in str(error.value)
        finally:
            first.send_signal(signal.SIGKILL)
    with hold(folder) as third:
        third.kill()
    with files.locked(folder):
        pass
    assert os.listdir(folder) == []


def test_the_lock_is_let_go_after_a_failure(tmp_path):
    with pytest.raises(KeyError), files.locked(tmp_path):
        raise KeyError
    with files.locked(tmp_path), pytest.raises(BlockingIOError):
        with files.locked(tmp_path):
            pass
    with files.locked(tmp_path):
        assert os.listdir(tmp_path) == [".lock"]


def test_files_are_written_together_or_not_at_all(tmp_path):
    def fail(file):
        file.write(b"half")
        raise OSError("disk full")

    (tmp_path / "a").write_bytes(b"old")
    writers = {tmp_path / "a": lambda file: file.write(b"new"), tmp_path / "b": fail}
    with pytest.raises(OSError, match="disk full"):
        files.write_together(writers)
    assert os.listdir(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"
