"""The command line in processes that are killed, and small disks."""

import dataclasses
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest

ROOT = str(pathlib.Path(__file__).parents[2])
# The command line with one more preset, of a network and tasks that take no time.
TINY = """
import dataclasses
import sys

from meta_lrpinn import cli
from meta_lrpinn.learning import configs

configs.PRESETS["tiny"] = configs.MetaConfig(
    network=configs.NetworkConfig(width=16, depth=2, rank=4),
    objective=configs.ObjectiveConfig(points=32),
    tasks=configs.TaskDistribution(smallest_size=11, largest_size=11, spacing=0.2),
    training=configs.TrainingConfig(
        iterations=20, tasks_per_batch=2, checkpoint_every=2, evaluate_every=5, log_every=2
    ),
)
configs.PRESETS["tiny_layer"] = dataclasses.replace(
    configs.PRESETS["tiny"],
    tasks=configs.TaskDistribution(
        smallest_size=11, largest_size=11, spacing=0.05, maximum_frequency=5.0,
        absorbing=True,
    ),
)
if __name__ == "__main__":
    sys.exit(cli.main(sys.argv[1:]))
"""


@dataclasses.dataclass(frozen=True)
class Commands:
    """Command lines that run in a folder, each as a session of its own processes."""

    folder: pathlib.Path

    def start(self, *arguments):
        """A process; its workers end with it."""
        return subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": ROOT, "JAX_PLATFORMS": "cpu"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def meta_lrpinn(self, *arguments):
        """A process of the command line with the presets tiny and tiny_layer."""
        script = self.folder / "tiny.py"
        if not script.exists():
            script.write_text(TINY)
        return self.start(script, *arguments)

    @staticmethod
    def finish(process):
        """Waits until it ends well; its output."""
        output, errors = process.communicate(timeout=1800)
        assert process.returncode == 0, errors
        return output

    @staticmethod
    def kill(process):
        """Ends it with its workers."""
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)

    def kill_at_random(self, arguments, lock, seconds, rng, most):
        """Kills a command at random moments while it holds a lock, until it ends.

        Args:
            arguments: Of the command line.
            lock: File that it holds while it works.
            seconds: A kill comes at most so much after the lock.
            rng: Generator of the moments.
            most: After so many kills it is left to end.

        Returns:
            How often it was killed.
        """
        for kills in range(most):
            process = self.meta_lrpinn(*arguments)
            while not lock.exists() and process.poll() is None:
                time.sleep(0.005)
            try:
                process.wait(rng.uniform(0, seconds))
            except subprocess.TimeoutExpired:
                self.kill(process)
            else:
                self.finish(process)
                return kills
        self.finish(self.meta_lrpinn(*arguments))
        return most

    def seconds_at_work(self, arguments, lock):
        """Runs a command to its end; how long it held the lock."""
        process = self.meta_lrpinn(*arguments)
        while not lock.exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.005)
        began = time.perf_counter()
        self.finish(process)
        return time.perf_counter() - began


@pytest.fixture
def commands(tmp_path):
    return Commands(tmp_path)


class SmallDisk:
    """A file system of a size that grows."""

    def __init__(self, folder):
        self.folder = folder

    def resize(self, size):
        options = f"size={size}" + (",remount" if os.path.ismount(self.folder) else "")
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.folder)]
        return subprocess.run(command, capture_output=True).returncode == 0


@pytest.fixture
def small_disk(tmp_path):
    if shutil.which("mount") is None:
        pytest.skip("there is no mount")
    disk = SmallDisk(tmp_path / "disk")
    disk.folder.mkdir()
    if not disk.resize(4096):
        pytest.skip("file systems cannot be mounted here")
    yield disk
    subprocess.run(["umount", str(disk.folder)], check=True)
