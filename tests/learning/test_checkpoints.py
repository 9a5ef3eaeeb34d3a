import json
import shutil

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from meta_lrpinn.learning import checkpoints

PARAMS = {"network": {"U": jnp.arange(6.0).reshape(2, 3)}, "bias": jnp.ones(2)}
PROGRESS = {"moments": (jnp.zeros(3), jnp.full(3, 2.0)), "step": jnp.asarray(7)}
SETTINGS = {"training": {"seed": 1, "rate": 1e-3}, "network": {"widths": (3, 4)}}


@pytest.fixture
def run(tmp_path):
    run = checkpoints.RunCheckpoints(tmp_path / "run")
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
    return checkpoints.RunCheckpoints(run.directory)


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
    elif how == "truncated":
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


@pytest.mark.parametrize(
    "how", ["emptied", "without parameters", "without record", "truncated"]
)
def test_the_latest_good_one_takes_the_place_of_a_damaged_one(run, how):
    for step in (1, 2):
        save(run, step)
    damage(run.path(2), how)
    again = reopened(run)
    with pytest.warns(UserWarning, match="2 is not a whole.* that of step 1 is used"):
        restored = restore(again)
    assert restored.step == 1
    chex.assert_trees_all_equal(
        restored.params, jax.tree.map(lambda leaf: leaf + 1, PARAMS)
    )
    # What training does next; what was damaged is not lost.
    save(again, 2)
    assert restore(again).step == 2
    assert sorted(path.name for path in again.directory.iterdir()) == [
        "1", "2", "2.damaged",
    ]  # fmt: skip
    again.close()


def test_no_good_checkpoint_is_an_error_and_all_are_left(run):
    for step in (1, 2):
        damage(save(run, step), "truncated")
    again = reopened(run)
    with pytest.raises(ValueError, match=r"run.2 is not a whole, readable checkpoint"):
        restore(again)
    with pytest.raises(ValueError, match=r"run.1 is not a whole, readable checkpoint"):
        restore(again, step=1)
    assert sorted(path.name for path in again.directory.iterdir()) == ["1", "2"]
    again.close()


def test_other_settings_are_no_damage(run):
    for step in (1, 2):
        save(run, step)
    with pytest.raises(ValueError, match="2 was made under other settings"):
        restore(run, settings={"training": {"seed": 2}})


def test_looking_at_a_damaged_run_leaves_it_alone(run):
    for step, score in ((1, 0.2), (2, 0.1)):
        damage(save(run, step, score), "truncated" if step == 2 else "none")
    run.close()
    with pytest.warns(UserWarning, match="that of step 1 is used instead"):
        _, _, step = checkpoints.load_run_parameters(run.directory, "best")
    assert step == 1
    assert sorted(path.name for path in run.directory.iterdir()) == ["1", "2"]


def rewrite_record(path, change):
    file = path / "record" / "metadata"
    record = json.loads(file.read_text())
    change(record)
    file.write_text(json.dumps(record))


def test_values_that_were_altered_are_damage(run):
    save(run, 1)
    rewrite_record(
        save(run, 2), lambda record: record["checksums"].update(progress="0" * 64)
    )
    again = reopened(run)
    with pytest.warns(UserWarning, match="its progress have another checksum"):
        assert restore(again).step == 1
    again.close()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record: record.update(settings=[1]), "its settings are of another kind"),
        (lambda record: record.pop("settings"), "KeyError: 'settings'"),
        (lambda record: record.pop("checksums"), "KeyError: 'checksums'"),
        (lambda record: record.update(record="x"), "its record are of another kind"),
        (
            lambda record: record["settings"].update(of_a_later_version={"a": 1}),
            "of_a_later_version.a was 1, is (absent)",
        ),
    ],
)
def test_foreign_and_newer_checkpoints_are_one_clear_error(run, change, message):
    rewrite_record(save(run, 1), change)
    with pytest.raises(ValueError) as error:
        restore(reopened(run))
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.slow  # forty restores
def test_any_damage_is_noticed(run):
    """Bytes replaced anywhere: the same values, or one error; nothing is executed."""
    save(run, 1)
    run.close()
    files = sorted(path for path in run.path(1).rglob("*") if path.is_file())
    rng = np.random.default_rng(0)
    noticed = 0
    for _ in range(40):
        file = files[rng.integers(len(files))]
        good = file.read_bytes()
        bad = bytearray(good)
        for _ in range(rng.integers(1, 4)):
            if bad:
                bad[rng.integers(len(bad))] = rng.integers(256)
        file.write_bytes(bad)
        again = checkpoints.RunCheckpoints(run.directory)
        try:
            restored = restore(again)
        except ValueError as error:
            noticed += 1
            assert "\n" not in str(error)
        else:
            chex.assert_trees_all_equal(restored.progress, PROGRESS)
        again.close()
        file.write_bytes(good)
    assert noticed > 5


def full_disk(*_, **__):
    raise OSError(28, "No space left on device")


def test_a_full_disk_is_one_error_that_leaves_nothing(run, monkeypatch):
    save(run, 1)
    with monkeypatch.context() as patch:
        patch.setattr("os.posix_fallocate", full_disk)
        with pytest.raises(OSError, match="No space left on device: .*run"):
            save(run, 2)
        with pytest.raises(OSError, match="No space left on device"):
            checkpoints.save_initialisation(run.directory / "own", PARAMS, {}, {})
    assert [path.name for path in run.directory.iterdir()] == ["1"]
    save(run, 2)
    assert restore(run).step == 2


def test_a_disk_that_is_full_only_now_is_one_error(run, monkeypatch, capfd):
    """Orbax meets it while it writes, in a thread of its own."""

    async def fail(*_, **__):
        full_disk()

    save(run, 1)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.ocp.JsonCheckpointHandler, "async_save", fail)
        with pytest.raises(OSError, match="2 cannot be written: .* No space left"):
            save(run, 2)
    assert capfd.readouterr().err == ""


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
