"""Files are written together or not at all, and one run holds a folder."""

import os
import signal
import subprocess
import sys

import pytest

from meta_lrpinn.files import writing

HOLD = """
import sys, time
from meta_lrpinn.files import writing
with writing.locked(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def hold(folder):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=os.path.dirname(os.path.dirname(os.path.dirname(writing.__file__))),
    )
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_run_is_refused_and_a_killed_one_leaves_no_lock(tmp_path):
    folder = tmp_path / "run"
    with hold(folder) as first:
        try:
            with pytest.raises(BlockingIOError) as error, writing.locked(folder):
                pass
            assert str(folder) in str(error.value)
            assert f"process {first.pid}" in str(error.value)
            assert "\n" not in str(error.value)
        finally:
            first.send_signal(signal.SIGKILL)
    with hold(folder) as third:
        third.kill()
    with writing.locked(folder):
        pass
    assert os.listdir(folder) == []


def test_the_lock_is_let_go_after_a_failure(tmp_path):
    with pytest.raises(KeyError), writing.locked(tmp_path):
        raise KeyError
    with writing.locked(tmp_path), pytest.raises(BlockingIOError):
        with writing.locked(tmp_path):
            pass
    with writing.locked(tmp_path):
        assert os.listdir(tmp_path) == [".lock"]


def test_files_are_written_together_or_not_at_all(tmp_path):
    def fail(file):
        file.write(b"half")
        raise OSError("disk full")

    (tmp_path / "a").write_bytes(b"old")
    writers = {tmp_path / "a": lambda file: file.write(b"new"), tmp_path / "b": fail}
    with pytest.raises(OSError, match="disk full"):
        writing.write_together(writers)
    assert os.listdir(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


def test_what_a_killed_process_left_of_a_file_is_removed(tmp_path):
    script = (
        "import os, pathlib, signal, sys\n"
        "from meta_lrpinn.files import writing\n"
        "die = lambda file: os.kill(os.getpid(), signal.SIGKILL)\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "writing.write_together({path: die})\n"
    )
    folder = os.path.dirname(os.path.dirname(os.path.dirname(writing.__file__)))
    subprocess.run([sys.executable, "-c", script, tmp_path / "a"], cwd=folder)
    (left,) = tmp_path.iterdir()
    others = [f".b{left.name[2:]}", f".a.elsewhere.{left.name.split('.')[-2]}.partial"]
    own = left.name.replace(left.name.split(".")[-2], str(os.getpid()))
    for name in (*others, own):
        (tmp_path / name).write_text("being written")
    writing.write_together({tmp_path / "a": lambda file: file.write(b"new")})
    # This very process wrote to the file of its own name.
    assert sorted(os.listdir(tmp_path)) == sorted([*others, "a"])


def test_a_full_disk_names_the_file(tmp_path):
    def fail(file):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left on device: .*a'"):
        writing.write_together({tmp_path / "a": fail})


def test_more_than_a_disk_has_is_refused(tmp_path):
    writing.check_room(tmp_path, 1000)
    with pytest.raises(OSError) as error:
        writing.check_room(tmp_path, 2**62)
    assert error.value.filename == str(tmp_path)
    assert os.listdir(tmp_path) == []
