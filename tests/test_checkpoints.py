import shutil

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from meta_lrpinn import checkpoints

PARAMS = {"network": {"U": jnp.arange(6.0).reshape(2, 3)}, "bias": jnp.ones(2)}
PROGRESS = {"moments": (jnp.zeros(3), jnp.full(3, 2.0)), "step": jnp.asarray(7)}
SETTINGS = {"training": {"seed": 1, "rate": 1e-3}, "network": {"widths": (3, 4)}}


@pytest.fixture
def run(tmp_path):
    run = checkpoints.RunCheckpoints(tmp_path / "run", keep=2)
    yield run
    run.close()


def save(run, step, score=None, settings=SETTINGS):
    params = jax.tree.map(lambda leaf: leaf + step, PARAMS)
    record = {"elapsed": 1.5, "best": None}
    return run.save(step, params, PROGRESS, settings=settings, record=record, score=score)


def restore(run, settings=SETTINGS, **options):
    return run.restore(PARAMS, PROGRESS, settings=settings, **options)


def test_what_is_restored_is_what_was_saved(run):
    path = save(run, 3)
    restored = restore(run)
    chex.assert_trees_all_equal(
        restored.params, jax.tree.map(lambda leaf: leaf + 3, PARAMS)
    )
    chex.assert_trees_all_equal(restored.progress, PROGRESS)
    assert jax.tree.structure(restored.progress) == jax.tree.structure(PROGRESS)
    assert restored.record == {"elapsed": 1.5, "best": None}
    assert (restored.step, restored.path) == (3, path)


def test_nothing_to_restore(run):
    assert restore(run) is None


def test_best_and_latest_are_kept(run):
    scores = [0.5, 0.1, None, 0.3, float("nan"), 0.2]
    for step, score in enumerate(scores, 1):
        save(run, step, score)
    kept = sorted(int(path.name) for path in run.directory.iterdir())
    assert kept == [2, 5, 6]
    assert restore(run, step="best").step == 2
    assert restore(run, step="latest").step == 6
    assert restore(run, step=5).step == 5
    with pytest.raises(ValueError, match=r"of step 4, but of \[2, 5, 6\]"):
        restore(run, step=4)


def test_latest_counts_as_best_where_none_was_measured(run):
    save(run, 1)
    save(run, 2)
    assert restore(run, step="best").step == 2


def test_differing_settings_are_all_named(run):
    save(run, 1)
    other = {"training": {"seed": 2, "rate": 1e-3}, "network": {"depth": 6}}
    with pytest.raises(ValueError) as error:
        restore(run, settings=other)
    message = str(error.value)
    assert "training.seed was 1, is 2" in message
    assert "network.depth was (absent), is 6" in message
    assert "network.widths was [3, 4], is (absent)" in message
    assert "rate" not in message


def test_settings_may_be_free_to_change(run):
    save(run, 1)
    other = {**SETTINGS, "training": {"seed": 2, "rate": 1e-3}}
    assert restore(run, settings=other, ignored={"training.seed"}).step == 1


def test_another_network_does_not_fit(run):
    save(run, 1)
    wrong = {"network": PARAMS["network"], "bias": jnp.ones(5), "rank": jnp.ones(())}
    with pytest.raises(ValueError) as error:
        run.restore(wrong, PROGRESS, settings=SETTINGS)
    assert str(error.value) == (
        f"{run.path(1)} holds parameters of another network: bias was (2,), is (5,); "
        "rank was None, is ()"
    )


def reopened(run):
    run.close()
    return checkpoints.RunCheckpoints(run.directory, keep=2)


def test_an_unfinished_write_is_cleared_on_opening(run):
    save(run, 1)
    unfinished = run.directory / "2.orbax-checkpoint-tmp"
    (unfinished / "parameters").mkdir(parents=True)
    again = reopened(run)
    assert restore(again).step == 1
    save(again, 2)
    assert restore(again).step == 2
    assert not unfinished.exists()
    again.close()


def test_looking_at_a_run_in_progress_leaves_it_alone(run):
    save(run, 1)
    writing = run.directory / "2.orbax-checkpoint-tmp"
    writing.mkdir()
    params, settings, step = checkpoints.load_run_parameters(run.directory)
    assert step == 1 and writing.exists()
    assert settings["training"] == SETTINGS["training"]
    chex.assert_trees_all_equal(params, jax.tree.map(lambda leaf: leaf + 1, PARAMS))


def damage(path, how):
    if how == "emptied":
        shutil.rmtree(path)
        path.mkdir()
    elif how == "without parameters":
        shutil.rmtree(path / "parameters")
    elif how == "without record":
        shutil.rmtree(path / "record")
    else:
        for file in (path / "parameters").rglob("*"):
            if file.is_file():
                file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.mark.parametrize(
    "how", ["emptied", "without parameters", "without record", "truncated"]
)
def test_a_damaged_checkpoint_is_one_clear_error(run, how):
    damage(save(run, 1), how)
    again = reopened(run)
    with pytest.raises(ValueError) as error:
        restore(again)
    message = str(error.value)
    assert f"{again.path(1)} is not a whole, readable checkpoint" in message
    assert "\n" not in message
    again.close()


def test_a_directory_without_checkpoints_is_refused(tmp_path):
    with pytest.raises(ValueError, match="there is no checkpoint directory"):
        checkpoints.load_run_parameters(tmp_path / "absent")
    with pytest.raises(ValueError, match="holds no checkpoint"):
        checkpoints.load_run_parameters(tmp_path)


def test_initialisation_is_read_back(tmp_path):
    path = tmp_path / "assets" / "small"
    card = {"seconds": 5400.0, "curve": [[0, 1.0], [10, 0.5]]}
    checkpoints.save_initialisation(path, PARAMS, {"width": 3}, card)
    before = {file: file.stat().st_mtime_ns for file in path.rglob("*")}
    params, model, read = checkpoints.load_initialisation(path)
    chex.assert_trees_all_equal(params, PARAMS)
    assert (model, read) == ({"width": 3}, card)
    assert {file: file.stat().st_mtime_ns for file in path.rglob("*")} == before


def test_initialisation_does_not_tell_where_it_was_saved(tmp_path):
    path = tmp_path / "small"
    checkpoints.save_initialisation(path, PARAMS, {}, {})
    files = [file for file in path.rglob("*") if file.is_file()]
    assert files
    for file in files:
        assert str(tmp_path).encode() not in file.read_bytes(), file


def test_initialisation_is_small_on_disk(tmp_path):
    weights = np.random.default_rng(0).normal(size=(500, 1000)).astype(np.float32)
    path = tmp_path / "paper"
    checkpoints.save_initialisation(path, {"U": jnp.asarray(weights)}, {}, {})
    size = sum(file.stat().st_size for file in path.rglob("*"))
    assert size < 1.02 * weights.nbytes


def test_initialisation_is_not_overwritten(tmp_path):
    with pytest.raises(ValueError, match="exists already"):
        checkpoints.save_initialisation(tmp_path, PARAMS, {}, {})


def test_no_initialisation_is_one_clear_error(tmp_path):
    with pytest.raises(ValueError, match="is not a saved initialisation: card.json"):
        checkpoints.load_initialisation(tmp_path)
    checkpoints.save_initialisation(tmp_path / "damaged", PARAMS, {}, {})
    shutil.rmtree(tmp_path / "damaged" / "parameters")
    with pytest.raises(ValueError, match="not a whole, readable checkpoint"):
        checkpoints.load_initialisation(tmp_path / "damaged")
