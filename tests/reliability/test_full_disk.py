"""A disk that is full, and then is not: one line, and the same command goes on."""

import json

import numpy as np
import pytest

import meta_lrpinn as ml
from meta_lrpinn import generators

pytestmark = pytest.mark.slow
KILOBYTE = 1024


def grow_until_done(commands, disk, arguments, sizes, check=lambda: None):
    """Runs a command on a disk that grows until there is room for all that it writes.

    Args:
        commands: Fixture.
        disk: Fixture.
        arguments: Of the command line.
        sizes: Of the disk, in order [bytes]; the last is enough.
        check: Of what a command that failed has left.
    """
    failures = 0
    for size in sizes:
        assert disk.resize(size)
        process = commands.meta_lrpinn(*arguments, "--quiet")
        output, errors = process.communicate(timeout=600)
        if process.returncode == 0:
            break
        failures += 1
        assert process.returncode == 2 and output == ""
        assert errors.startswith("meta-lrpinn: No space left on device"), errors
        assert errors.count("\n") == 1
        check()
    assert process.returncode == 0 and failures > 1
    print(f"{arguments[0]}: {failures} times full before {size} bytes were enough")


def doubled(first, last):
    return [first * 2**power for power in range(30) if first * 2**power <= last]


def test_meta_train(commands, small_disk):
    def run(folder):
        return ("meta-train", "--preset=tiny", "--iterations=12", f"--out={folder}")

    commands.finish(commands.meta_lrpinn(*run("whole")))
    out = small_disk.folder / "run"

    def check():
        assert not list(out.rglob("*tmp*")) and not (out / "initialisation").exists()

    sizes = [8 * KILOBYTE, *doubled(64 * KILOBYTE, 16 * 1024 * KILOBYTE)]
    grow_until_done(commands, small_disk, run(out), sizes, check)
    records = [
        json.loads((folder / "checkpoints/12/record/metadata").read_text())
        for folder in (out, commands.folder / "whole")
    ]
    assert records[0]["checksums"] == records[1]["checksums"]


def test_make_tasks(commands, small_disk, contents):
    def run(folder):
        return ("make-tasks", "--preset=tiny", "--random=250", f"--out={folder}/tasks.npz")

    commands.finish(commands.meta_lrpinn(*run("whole")))

    def check():
        names = [path.name for path in small_disk.folder.rglob("*")]
        assert not [name for name in names if "partial" in name or name == "tasks.npz"]

    sizes = doubled(16 * KILOBYTE, 4096 * KILOBYTE)
    grow_until_done(commands, small_disk, run(small_disk.folder), sizes, check)
    assert contents(small_disk.folder) == contents(commands.folder / "whole")


def test_survey(commands, small_disk, contents):
    pytest.importorskip("zarr")
    velocities = [generators.random_velocity(seed, (11, 11), 0.05) for seed in range(8)]
    np.save(commands.folder / "models.npy", np.stack([one.velocity for one in velocities]))

    def run(out):
        return (
            "survey", "--velocity=models.npy", "--spacing=0.05", "--sources=0.1,0.05",
            "--frequencies=3,4", "--solver=finite_differences", "--refinement=1",
            "--models_per_chunk=1", f"--out={out}",
        )  # fmt: skip

    commands.finish(commands.meta_lrpinn(*run("whole.zarr")))
    out = small_disk.folder / "survey.zarr"

    def check():
        assert not list(out.rglob("*.partial"))

    sizes = [20 * KILOBYTE, *range(40 * KILOBYTE, 2048 * KILOBYTE, 40 * KILOBYTE)]
    grow_until_done(commands, small_disk, run(out), sizes, check)
    assert contents(out) == contents(commands.folder / "whole.zarr")


@pytest.mark.parametrize("suffix", ["npz", "nc", "zarr", "h5"])
def test_solve(commands, small_disk, suffix):
    if suffix != "npz":
        pytest.importorskip("xarray")
    ml.save_velocity(
        commands.folder / "model.npz", generators.random_velocity(0, (11, 11), 0.05)
    )
    out = small_disk.folder / "out" / f"field.{suffix}"
    arguments = (
        "solve", "--velocity=model.npz", "--frequency=5", "--solver=finite_differences",
        "--refinement=1", f"--out={out}", "--report",
    )  # fmt: skip

    def check():
        assert list(out.parent.iterdir()) == []

    sizes = doubled(8 * KILOBYTE, 64 * 1024 * KILOBYTE)[::3]
    grow_until_done(commands, small_disk, arguments, sizes, check)
    assert sorted(path.name for path in out.parent.iterdir()) == sorted(
        ["field.png", "field.html", f"field.{suffix}"]
    )
