"""Task sets drawn part by part: stops, two calls at once, and damage."""

import dataclasses
import json

import numpy as np
import pytest

from meta_lrpinn.files import writing
from meta_lrpinn.learning import configs, task_files

DISTRIBUTION = configs.TaskDistribution(smallest_size=6, largest_size=6, spacing=0.1)


class Stop(Exception):
    pass


def collect(path, stop_after=None, number=9, **options):
    """So many tasks in parts of two; ends early after so many draws."""
    draw, left = task_files.at_random(DISTRIBUTION, number), iter(range(stop_after or 99))

    def draw_some(rng, done):
        if next(left, None) is None:
            raise Stop
        return draw(rng, done)

    options = {"part": 2, "progress": False, **options}
    task_files.collect(path, draw_some, number, 0, DISTRIBUTION, {}, **options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, contents):
    folder = tmp_path_factory.mktemp("whole")
    collect(folder / "tasks.npz")
    return contents(folder)


def test_the_same_call_goes_on(tmp_path, whole, contents):
    path = tmp_path / "tasks.npz"
    for draws in (1, 3, 5):
        with pytest.raises(Stop):
            collect(path, draws)
    assert sorted(contents(tmp_path / "tasks.parts")) == [
        *(f"{index}.{end}" for index in range(3) for end in ("json", "npz")), "state.json",
    ]  # fmt: skip
    collect(path)
    assert contents(tmp_path) == whole and sorted(whole) == ["tasks.json", "tasks.npz"]


def test_tasks_keep_their_order_whichever_is_solved_first(tmp_path, whole, contents):
    def backwards(function, tasks):
        return reversed([function(task) for task in tasks])

    collect(tmp_path / "tasks.npz", solve_all=backwards)
    assert contents(tmp_path) == whole


@pytest.mark.slow  # two processes that load JAX
def test_workers_solve_the_same_bytes(tmp_path, contents):
    pytest.importorskip("distributed")
    layer = dataclasses.replace(DISTRIBUTION, absorbing=True, maximum_frequency=3.0)
    for name, options in {"alone": {}, "workers": {"workers": 2}}.items():
        (tmp_path / name).mkdir()
        task_files.make_task_set(
            tmp_path / name / "tasks.npz",
            layer,
            random=5,
            sources=2,
            wavefields=True,
            points=20,
            progress=False,
            **options,
        )
    assert contents(tmp_path / "alone") == contents(tmp_path / "workers")


def test_a_stop_while_parts_are_removed_costs_no_error(
    tmp_path, whole, monkeypatch, contents
):
    def stop(folder):
        (folder / "0.npz").unlink()
        raise Stop

    path = tmp_path / "tasks.npz"
    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(task_files.shutil, "rmtree", stop)
        collect(path)
    collect(path)
    assert contents(tmp_path) == whole


def test_one_call_at_a_time(tmp_path):
    path = tmp_path / "tasks.npz"
    with writing.locked(path.with_suffix(".parts")):
        with pytest.raises(BlockingIOError, match="in use by another run"):
            collect(path)
    collect(path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"settings": {}, "sizes": "x"}'])
def test_a_damaged_state_is_one_clear_error(tmp_path, text):
    path = tmp_path / "tasks.npz"
    with pytest.raises(Stop):
        collect(path, 3)
    (path.with_suffix(".parts") / "state.json").write_text(text)
    with pytest.raises(ValueError, match="state.json is damaged .*; remove its folder"):
        collect(path)


def test_other_options_are_refused(tmp_path):
    path = tmp_path / "tasks.npz"
    with pytest.raises(Stop):
        collect(path, 3)
    with pytest.raises(ValueError, match="holds tasks of other options"):
        collect(path, number=8)
    state = json.loads((path.with_suffix(".parts") / "state.json").read_text())
    assert np.sum(state["sizes"]) == 2
