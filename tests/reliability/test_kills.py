"""SIGKILL at random moments: what the same commands make in the end is the same."""

import json
import shutil
import sys
import time

import chex
import numpy as np
import pytest

from meta_lrpinn import generators
from meta_lrpinn.learning import checkpoints, run_log

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="ends groups of processes")
# Names of what is not whole.
PARTIAL = ("partial", "tmp", "deleted", "damaged", ".lock", ".parts")


def kill_until(count, commands, make, compare):
    """Kills commands at random moments, so often in all.

    Args:
        count: Number of kills.
        commands: Fixture.
        make: Number of a round to arguments, and the lock that the command holds.
        compare: Given the number of a round that has ended.
    """
    seconds = commands.seconds_at_work(*make(0))
    rng = np.random.default_rng(0)
    kills = rounds = 0
    while kills < count:
        rounds += 1
        kills += commands.kill_at_random(*make(rounds), seconds, rng, count - kills)
        compare(rounds)
        print(
            f"{kills} kills in {rounds} runs, within {seconds:.1f} s of the lock",
            flush=True,
        )


def leftovers(folder):
    return [path for path in folder.rglob("*") if any(p in path.name for p in PARTIAL)]


@pytest.mark.counts(slow=3, reliability=100)
def test_meta_training(commands, count):
    """Parameters and moments bit for bit, the same rows, and nothing left."""

    def out(number):
        return commands.folder / f"run{number}"

    def make(number):
        options = ("meta-train", "--preset=tiny", f"--out={out(number)}", "--quiet")
        return options, out(number) / ".lock"

    def state(folder):
        record = json.loads((folder / "checkpoints/20/record/metadata").read_text())
        columns = {
            "training": ("step", "loss", "gradient_norm"),
            "evaluation": ("step", "loss"),
        }
        rows = {
            name: [
                [row[c] for c in names] for row in run_log.read_rows(folder / f"{name}.csv")
            ]
            for name, names in columns.items()
        }
        return record["checksums"], rows

    def compare(number):
        assert state(out(number)) == state(out(0))
        params, _, _ = checkpoints.load_run_parameters(out(number), "best")
        # A command that was killed after its last word has written one more.
        made = list(out(number).glob("initialisation*"))
        assert made
        for one in made:
            chex.assert_trees_all_equal(checkpoints.load_initialisation(one)[0], params)
        assert leftovers(out(number)) == []
        shutil.rmtree(out(number))

    kill_until(count, commands, make, compare)


@pytest.mark.slow
def test_a_second_run_in_the_folder_is_refused(commands):
    """Of each command that goes on, while the first is at work; the first ends well."""
    make_models(commands.folder)
    for options, lock in (
        (("meta-train", "--preset=tiny", "--out=run"), "run/.lock"),
        (TASKS, "tasks.parts/.lock"),
        (SURVEY, "survey.zarr/.lock"),
    ):
        lock = commands.folder / lock
        first = commands.meta_lrpinn(*options)
        while not lock.exists():
            assert first.poll() is None, first.communicate()
            time.sleep(0.005)
        first.send_signal(19)  # SIGSTOP: it keeps its lock
        second = commands.meta_lrpinn(*options)
        _, errors = second.communicate(timeout=300)
        first.send_signal(18)  # SIGCONT
        assert second.returncode == 2, errors
        assert len(errors.splitlines()) == 1 and "in use by another run" in errors
        commands.finish(first)


TASKS = (
    "make-tasks", "--preset=tiny_layer", "--random=420", "--wavefields", "--points=20",
    "--quiet", "--out=tasks.npz",
)  # fmt: skip


@pytest.mark.counts(slow=2, reliability=20)
def test_make_tasks(commands, contents, count):
    def make(number):
        folder = commands.folder / f"made{number}"
        return (*TASKS, f"--out={folder}/tasks.npz"), folder / "tasks.parts/.lock"

    def compare(number):
        folder = commands.folder / f"made{number}"
        assert sorted(contents(folder)) == ["tasks.json", "tasks.npz"]
        assert contents(folder) == contents(commands.folder / "made0")

    kill_until(count, commands, make, compare)


SURVEY = (
    "survey", "--velocity=models.npy", "--spacing=0.05", "--sources=0.1:0.4:3,0.05",
    "--frequencies=3,4", "--solver=finite_differences", "--refinement=1",
    "--models_per_chunk=2", "--quiet", "--out=survey.zarr",
)  # fmt: skip


def make_models(folder, number=60):
    velocities = [
        generators.random_velocity(seed, (11, 11), 0.05).velocity for seed in range(number)
    ]
    np.save(folder / "models.npy", np.stack(velocities))


@pytest.mark.counts(slow=2, reliability=20)
def test_survey(commands, contents, count):
    pytest.importorskip("zarr")
    make_models(commands.folder)

    def out(number):
        return commands.folder / f"survey{number}.zarr"

    def make(number):
        return (*SURVEY, f"--out={out(number)}"), out(number) / ".lock"

    def compare(number):
        assert contents(out(number)) == contents(out(0))
        assert leftovers(out(number)) == []

    kill_until(count, commands, make, compare)
