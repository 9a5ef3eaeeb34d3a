"""Tasks for meta-training: the same for the same seed, of one shape, in files."""

import dataclasses
import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import meta_lrpinn as ml
from meta_lrpinn import generators, models
from meta_lrpinn.learning import (
    adaptation,
    configs,
    evaluation,
    networks,
    objectives,
    output_layer,
    pipeline,
    task_files,
    task_sets,
)
from meta_lrpinn.learning.configs import TaskDistribution
from meta_lrpinn.learning.training import TrainingConfig
from meta_lrpinn.linear import lattice as lattices
from meta_lrpinn.metrics import relative_l2
from meta_lrpinn.physics.velocity import VelocityModel
from meta_lrpinn.reference import analytic
from meta_lrpinn.solvers.solve import solve

DISTRIBUTION = TaskDistribution(
    smallest_size=11,
    largest_size=16,
    spacing=0.05,
    velocities_per_task=2,
    minimum_frequency=2.5,
    maximum_frequency=4.0,
    absorbing=True,
)
TRAINING = TrainingConfig(tasks_per_batch=3)


@pytest.fixture(scope="module")
def sample():
    return task_sets.streaming_sampler(DISTRIBUTION, TRAINING)


@pytest.fixture(scope="module")
def tasks():
    rng = np.random.default_rng(7)
    return [task_sets.draw_tasks(DISTRIBUTION, rng)[0] for _ in range(8)]


def test_batches_are_functions_of_seed_and_step(sample):
    first = sample(1, 5)
    chex.assert_trees_all_equal(first, sample(1, 5))
    for other in (sample(1, 6), sample(2, 5)):
        assert not np.array_equal(other[0].velocities, first[0].velocities)
        assert not np.array_equal(other[0].problem.omega, first[0].problem.omega)


FIXED = dataclasses.replace(
    DISTRIBUTION, velocities_per_task=1, fixed_models=2, fixed_frequencies=3
)


def test_a_fixed_set_is_drawn_once_and_every_batch_is_of_it():
    tasks = task_sets.fixed_tasks(FIXED, 4)
    assert len(tasks.velocities) == 6
    frequencies = np.asarray(tasks.problem.omega) / (2 * np.pi)
    ends = FIXED.minimum_frequency, FIXED.maximum_frequency
    np.testing.assert_allclose(frequencies, 2 * [*np.linspace(*ends, 3)], rtol=1e-6)
    np.testing.assert_array_equal(tasks.velocities[0], tasks.velocities[2])
    assert not np.array_equal(tasks.velocities[0], tasks.velocities[3])
    assert len({float(x) for x in tasks.problem.source[:, 0]}) == 6

    config = configs.MetaConfig(tasks=FIXED, training=dataclasses.replace(TRAINING, seed=4))
    sampler = pipeline._make_sampler(config, ())
    sources = set()
    for step in range(4):
        support, query = sampler(4, step)
        batch = [*support.problem.source[:, 0], *query.problem.source[:, 0]]
        assert len({float(x) for x in batch}) == 6  # support and query are different
        sources |= {float(x) for x in batch}
    assert sources == {float(x) for x in tasks.problem.source[:, 0]}
    few = dataclasses.replace(FIXED, fixed_models=1)
    with pytest.raises(ValueError, match="the fixed set holds 3 tasks, a batch needs 6"):
        pipeline._make_sampler(dataclasses.replace(config, tasks=few), ())


def test_a_fixed_set_is_what_a_file_of_the_same_seed_holds(tmp_path):
    path = tmp_path / "tasks.npz"
    number = task_files.make_task_set(path, FIXED, models=2, seed=4, progress=False)
    assert number == 6
    chex.assert_trees_all_equal(
        task_files.load_task_set(path, FIXED), task_sets.fixed_tasks(FIXED, 4)
    )
    other = task_sets.fixed_tasks(FIXED, 5)
    assert not np.array_equal(other.velocities, task_sets.fixed_tasks(FIXED, 4).velocities)


def test_batch_shapes(sample):
    support, query = sample(0, 0)
    for batch in (support, query):
        chex.assert_shape(batch.velocities, (3, 2, 16, 16))
        chex.assert_shape(batch.background_velocities, (3, 2))
        chex.assert_shape(batch.problem.model.velocity, (3, 16, 16))
        chex.assert_shape(batch.problem.source, (3, 2))
        chex.assert_shape(batch.problem.omega, (3,))
        for leaf in jax.tree.leaves(batch):
            assert isinstance(leaf, np.ndarray)
            assert leaf.dtype in (np.float32, np.complex64)
    assert not np.array_equal(support.velocities, query.velocities)
    same = dataclasses.replace(TRAINING, algorithm=configs.MAML(same_task=True))
    support, query = task_sets.streaming_sampler(DISTRIBUTION, same)(0, 0)
    chex.assert_trees_all_equal(support, query)


def test_layer_of_a_fraction_of_the_default():
    thinner = dataclasses.replace(DISTRIBUTION, layer_fraction=0.5)
    whole, half = (
        task_sets.draw_tasks(distribution, np.random.default_rng(3))[0].problem
        for distribution in (DISTRIBUTION, thinner)
    )
    thickness = float(whole.layer.thickness)
    assert thickness > 0
    np.testing.assert_allclose(half.layer.thickness, thickness / 2, rtol=1e-6)
    np.testing.assert_array_equal(half.layer.upper, whole.layer.upper)
    with pytest.raises(ValueError, match="layer_fraction must be positive, got 0"):
        dataclasses.replace(DISTRIBUTION, layer_fraction=0)


def test_shapes_are_equal_whatever_the_size(tasks):
    sizes = {round(float(task.problem.layer.upper[0]) / 0.05) + 1 for task in tasks}
    assert len(sizes) > 2
    assert sizes <= set(range(11, 17))
    for task in tasks:
        chex.assert_trees_all_equal_shapes_and_dtypes(task, tasks[0])


def test_values_are_in_range(tasks):
    for task in tasks:
        frequency = float(task.problem.omega) / (2 * np.pi)
        assert 2.5 <= frequency <= 4.0
        assert 1.5 <= task.velocities.min() and task.velocities.max() <= 5.0
        x, z = task.problem.source
        assert 0 <= x <= task.problem.layer.upper[0] and z == np.float32(0.025)
        assert task.problem.layer.thickness > 0.3
        assert not np.array_equal(*task.velocities)


def test_models_continue_by_their_edges():
    """And the layer begins where the model, not the grid, ends."""
    models = [
        generators.random_velocity(seed, (12, 12), 0.05, minimum=1.5, maximum=5.0)
        for seed in (0, 1)
    ]
    (task,) = task_sets.make_tasks(models, 3.0, [0.2], DISTRIBUTION)
    for got, model in zip(task.velocities, models, strict=True):
        np.testing.assert_allclose(got[:12, :12], model.velocity, rtol=1e-6)
        np.testing.assert_array_equal(got[12:], np.tile(got[11], (4, 1)))
        np.testing.assert_array_equal(got[:, 12:], np.tile(got[:, 11:12], 4))
    np.testing.assert_allclose(task.problem.layer.upper, 0.55, rtol=1e-6)
    at_source = [float(model.at(np.array([[0.2, 0.025]]))[0]) for model in models]
    np.testing.assert_allclose(task.background_velocities, at_source, rtol=1e-5)
    assert task.problem.background_velocity == task.background_velocities[0]


def test_without_a_layer_the_papers_setting():
    paper = dataclasses.replace(DISTRIBUTION, absorbing=False)
    task = task_sets.draw_tasks(paper, np.random.default_rng(0))[0]
    assert task.problem.layer.thickness == 0 and task.problem.layer.strength == 0


def test_frequencies_may_be_uniform_in_their_logarithm():
    wide = dataclasses.replace(
        DISTRIBUTION, minimum_frequency=1.0, maximum_frequency=16.0, largest_size=11
    )
    medians = []
    for is_log in (False, True):
        drawn = dataclasses.replace(wide, log_frequency=is_log, velocities_per_task=1)
        rng = np.random.default_rng(0)
        tasks = [task_sets.draw_tasks(drawn, rng)[0] for _ in range(60)]
        medians.append(np.median([t.problem.omega for t in tasks]) / (2 * np.pi))
    assert 6 < medians[0] < 11 and 2.5 < medians[1] < 6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"minimum_frequency": 0.0}, "frequencies must be positive and in order"),
        ({"minimum_frequency": 9.0}, "got 9.0 to 4.0 Hz"),
        ({"known_points": 5, "absorbing": False}, "no one wavefield to know"),
        ({"smallest_size": 20}, "smallest_size must not exceed largest_size"),
    ],
)
def test_bad_distributions(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(DISTRIBUTION, **changes)


@pytest.fixture
def file(tmp_path, tasks):
    path = tmp_path / "tasks.npz"
    task_files.save_task_set(path, tasks, DISTRIBUTION, seed=7)
    return path


def test_files_give_back_what_was_saved(file, tasks):
    loaded = task_files.load_task_set(file, DISTRIBUTION)
    chex.assert_trees_all_equal(loaded, task_sets.stack_tasks(tasks))
    manifest = json.loads(file.with_suffix(".json").read_text())
    assert manifest["tasks"] == 8 and manifest["seed"] == 7
    assert manifest["distribution"] == dataclasses.asdict(DISTRIBUTION)
    frequencies = [float(task.problem.omega) / (2 * np.pi) for task in tasks]
    np.testing.assert_allclose(manifest["frequencies"], frequencies, atol=1e-6)
    assert sorted(p.name for p in file.parent.iterdir()) == ["tasks.json", "tasks.npz"]


def test_files_keep_known_wavefields(tmp_path, tasks):
    """Several files count as one, if all of them have wavefields or none."""
    known = [
        task.replace(
            points=np.full((9, 2), i, np.float32),
            scattered=np.full((2, 9), i + 1j, np.complex64),
        )
        for i, task in enumerate(tasks)
    ]
    paths = [tmp_path / f"{name}.npz" for name in ("first", "second", "unknown")]
    task_files.save_task_set(paths[0], known[:5], DISTRIBUTION, seed=7)
    task_files.save_task_set(paths[1], known[5:], DISTRIBUTION, seed=7)
    task_files.save_task_set(paths[2], tasks, DISTRIBUTION, seed=7)
    loaded = task_files.load_task_set(paths[0], DISTRIBUTION)
    chex.assert_trees_all_equal(loaded, task_sets.stack_tasks(known[:5]))
    four = dataclasses.replace(TRAINING, tasks_per_batch=4)
    support, query = task_files.file_sampler(paths[:2], DISTRIBUTION, four)(0, 0)
    drawn = np.concatenate([support.scattered, query.scattered])[:, 0, 0]
    assert sorted(drawn.real) == list(range(8))
    with pytest.raises(ValueError, match="only some hold wavefields"):
        task_files.file_sampler(paths, DISTRIBUTION, four)


def test_file_sampler_draws_distinct_tasks(file, tasks):
    sample = task_files.file_sampler([file], DISTRIBUTION, TRAINING)
    support, query = sample(0, 3)
    chex.assert_shape(support.velocities, (3, 2, 16, 16))
    drawn = np.concatenate([support.problem.omega, query.problem.omega])
    assert len(set(drawn.tolist())) == 6
    assert set(drawn.tolist()) <= {float(task.problem.omega) for task in tasks}
    chex.assert_trees_all_equal((support, query), sample(0, 3))
    assert not np.array_equal(sample(0, 4)[0].problem.omega, support.problem.omega)


def test_bad_files(file, tmp_path):
    too_large = dataclasses.replace(TRAINING, tasks_per_batch=5)
    with pytest.raises(ValueError, match="holds 8 tasks, a batch needs 10"):
        task_files.file_sampler([file], DISTRIBUTION, too_large)
    other_grid = dataclasses.replace(DISTRIBUTION, largest_size=17)
    with pytest.raises(
        ValueError, match=r"of shape \(8, 16, 16\), .* expects \(8, 17, 17\)"
    ):
        task_files.load_task_set(file, other_grid)
    other_spacing = dataclasses.replace(DISTRIBUTION, spacing=0.025)
    with pytest.raises(ValueError, match="spacing"):
        task_files.load_task_set(file, other_spacing)
    for name, content in (("noise.npz", b"noise"), ("empty.npz", b"")):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"{name} is not a task set"):
            task_files.load_task_set(path, DISTRIBUTION)
    np.savez(tmp_path / "other.npz", velocity=np.ones((3, 3)))
    with pytest.raises(ValueError, match="other.npz is not a task set"):
        task_files.load_task_set(tmp_path / "other.npz", DISTRIBUTION)
    with pytest.raises(ValueError, match="absent.npz is not a task set"):
        task_files.load_task_set(tmp_path / "absent.npz", DISTRIBUTION)


class Trap:
    """Leaves a file where it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (".velocities", lambda x: x[:-1], r"of shape \(7, 2, 16, 16\), training expects"),
        (".velocities", lambda x: x.astype("U8"), "of type <U8, training expects numbers"),
        (".velocities", lambda x: 1j * x, "of type complex64, training expects numbers"),
        (".velocities", lambda x: np.nan * x, "not finite"),
        (".problem.omega", lambda x: x[0], r"of shape \(\), training expects \(8,\)"),
        ("spacing", lambda x: np.array(0.05), "is not a task set"),
        ("spacing", lambda x: np.array([Trap("opened")], object), "is not a task set"),
        (".velocities", lambda x: np.array([Trap("opened")], object), "is not a task set"),
    ],
)
def test_hostile_files_are_one_clear_error(
    tasks, tmp_path, monkeypatch, name, change, message
):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "tasks.npz"
    task_files.save_task_set(path, tasks, DISTRIBUTION, 7)
    with np.load(path) as file:
        arrays = dict(file)
    arrays[name] = change(arrays[name])
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=message) as error:
        task_files.load_task_set(path, DISTRIBUTION)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300
    assert not (tmp_path / "opened").exists()


def test_damaged_files_are_one_clear_error(tasks, tmp_path):
    path = tmp_path / "tasks.npz"
    task_files.save_task_set(path, tasks, DISTRIBUTION, 7)
    good, rng, refusals = path.read_bytes(), np.random.default_rng(0), 0
    for _ in range(60):
        bad = bytearray(good)
        for _ in range(3):
            bad[rng.integers(len(bad))] = rng.integers(256)
        path.write_bytes(bad[: rng.integers(len(bad))] if rng.random() < 0.2 else bad)
        try:
            task_files.load_task_set(path, DISTRIBUTION)
        except ValueError as error:
            refusals += 1
            assert "\n" not in str(error) and len(str(error)) <= 300
    assert refusals > 50  # some bytes of a file mean nothing


def test_a_full_disk_leaves_no_part_of_a_file(tasks, tmp_path, monkeypatch):
    def fail(file, **arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", fail)
    with pytest.raises(OSError, match="No space left on device: .*tasks.npz"):
        task_files.save_task_set(tmp_path / "tasks.npz", tasks, DISTRIBUTION, 7)
    assert list(tmp_path.iterdir()) == []


def test_wavefields_are_those_of_finer_grids_and_of_solve():
    models = [
        generators.random_velocity(seed, (12, 12), 0.05, minimum=1.8, maximum=4.0)
        for seed in (3, 4)
    ]
    (task,) = task_sets.make_tasks(models, 3.0, [0.2], DISTRIBUTION)
    (known,) = task_sets.with_scattered([task], 500, seed=1)
    chex.assert_shape(known.scattered, (2, 500))
    assert known.scattered.dtype == np.complex64
    problem, source = task.problem, (0.2, 0.025)
    thickness = float(problem.layer.thickness)
    inside = np.all((known.points >= 0) & (known.points <= 0.55), axis=1)
    assert 20 < np.sum(inside) < 450
    assert np.all(known.points >= problem.lower - 1e-5)
    assert np.all(known.points <= problem.upper + 1e-5)
    points = np.asarray(known.points, float)
    solved = solve(models[0], 3.0, source, ml.PlaneWaves(unknowns=250), thickness=thickness)
    expected = solved.at(points[inside])
    assert relative_l2(known.scattered[0, inside], expected) < 0.03
    for model, got in zip(models, known.scattered, strict=True):
        truth = ml.reference_wavefield(model, 3.0, source, refinement=3, tolerance=None)
        assert relative_l2(got[inside], truth.at(points[inside])) < 0.005


def test_wavefields_of_the_layer_are_those_of_the_task():
    """Where a plane-wave solve in the same layer has them too."""
    model = generators.random_velocity(5, (16, 16), 0.05, minimum=1.8, maximum=4.0)
    (task,) = task_sets.make_tasks([model], 3.0, [0.3], DISTRIBUTION)
    (known,) = task_sets.with_scattered([task], 500, seed=1)
    in_layer = np.any((known.points < 0) | (known.points > 0.75), axis=1)
    with jax.enable_x64(True):
        problem = evaluation._double(task.problem)
    lattice = lattices.make_lattice(problem, 3.0)
    own = problem.source[None], problem.background_velocity[None]
    points = np.asarray(known.points[in_layer], float)
    solution = lattices.solve(problem, lattice, *own)
    expected = lattices.evaluate(problem, lattice, solution.weights, points)
    assert np.linalg.norm(expected) > 0.01 * np.linalg.norm(known.scattered)
    assert relative_l2(known.scattered[0, in_layer], expected[0]) < 0.05


def test_wavefields_of_a_homogeneous_model_are_exact():
    """The shifted background at complex distances, in the layer too."""
    model = VelocityModel(np.full((16, 16), 2.0), 0.05)
    (task,) = task_sets.make_tasks([model], 3.0, [0.3], DISTRIBUTION)
    task = task.replace(background_velocities=np.array([2.3], np.float32))
    (known,) = task_sets.with_scattered([task], 500, seed=1)
    points, layer = np.asarray(known.points, float), task.problem.layer
    beyond = np.maximum(points - 0.75, 0) + np.minimum(points, 0)
    omega = 2 * np.pi * 3.0
    integral = float(layer.strength) * beyond**3 / (3 * float(layer.thickness) ** 2)
    offset = points - (0.3, 0.025) - 1j * integral / omega
    there, here = (analytic.point_source(offset, omega / v) for v in (2.0, 2.3))
    in_layer = np.any(beyond != 0, axis=1)
    for where, tolerance in ((~in_layer, 5e-3), (in_layer, 0.01)):
        assert np.count_nonzero(where) > 30
        exact = (there - here)[where]
        assert relative_l2(known.scattered[0, where], exact) < tolerance


def test_wavefields_of_several_sources_are_each_ones_own():
    models = [
        generators.random_velocity(seed, (14, 14), 0.05, minimum=1.8, maximum=4.0)
        for seed in (5, 6)
    ]
    tasks = task_sets.make_tasks(models, 3.0, [0.1, 0.5], DISTRIBUTION)
    for task, known in zip(
        tasks, task_sets.with_scattered(tasks, 200, seed=2), strict=True
    ):
        inside = np.all((known.points >= 0) & (known.points <= 0.65), axis=1)
        points = np.asarray(known.points[inside], float)
        source = np.asarray(task.problem.source, float)
        for model, got in zip(models, known.scattered, strict=True):
            truth = ml.reference_wavefield(
                model, 3.0, source, refinement=2, tolerance=None
            ).at(points)
            assert relative_l2(got[inside], truth) < 0.005


def test_known_wavefields_leave_the_tasks_as_they_are():
    drawn = dataclasses.replace(DISTRIBUTION, known_points=20)
    (plain,), (known,), (again,) = (
        task_sets.draw_tasks(distribution, np.random.default_rng(3))
        for distribution in (DISTRIBUTION, drawn, drawn)
    )
    chex.assert_trees_all_equal(known, again)
    chex.assert_trees_all_equal(known.replace(points=None, scattered=None), plain)


@pytest.mark.parametrize("absorbing", [True, False])
def test_held_tasks_never_change(absorbing):
    """Two velocities at seven settings, up to 10 Hz; known where there is a layer."""
    distribution = dataclasses.replace(
        DISTRIBUTION, smallest_size=21, largest_size=24, spacing=0.1, absorbing=absorbing
    )
    tasks = evaluation.held_tasks(distribution)
    chex.assert_trees_all_equal(tasks, evaluation.held_tasks(distribution))
    frequencies = [float(task.problem.omega) / (2 * np.pi) for task in tasks]
    np.testing.assert_allclose(frequencies, [3, 4, 5, 5, 6, 8, 10], rtol=1e-6)
    stacked = task_sets.stack_tasks(tasks)
    chex.assert_shape(stacked.velocities, (7, 2, 24, 24))
    assert (stacked.scattered is not None) == absorbing
    if absorbing:
        chex.assert_shape(stacked.scattered, (7, 2, 2048))
        assert np.all(np.isfinite(stacked.scattered))


def test_sources_share_velocities_and_layer():
    rng = np.random.default_rng(3)
    drawn = dataclasses.replace(DISTRIBUTION, known_points=20)
    first, second = task_sets.draw_tasks(drawn, rng, sources=2)
    assert first.problem.source[0] != second.problem.source[0]
    chex.assert_trees_all_equal(first.problem.layer, second.problem.layer)
    np.testing.assert_array_equal(first.velocities, second.velocities)
    assert first.problem.omega == second.problem.omega
    chex.assert_shape(first.scattered, (2, 20))
    assert not np.array_equal(first.points, second.points)
    assert not np.array_equal(first.scattered, second.scattered)


@pytest.mark.parametrize("name", configs.OBJECTIVES)
def test_wavefields_are_solved_only_for_objectives_that_learn_from_them(name):
    config = configs.MetaConfig(
        objective=configs.ObjectiveConfig(name=name, points=20),
        tasks=dataclasses.replace(
            DISTRIBUTION, known_points=20, absorbing=True, velocities_per_task=1
        ),
        training=dataclasses.replace(
            TRAINING, tasks_per_batch=1, algorithm=configs.JointTraining()
        ),
    )
    support, _ = pipeline._make_sampler(config, ())(0, 0)
    learns = name == "projection"
    assert (support.scattered is not None) == learns
    assert (support.points is not None) == learns


TINY = dataclasses.replace(
    DISTRIBUTION, smallest_size=21, largest_size=21, spacing=0.1, velocities_per_task=1
)


def test_evaluation_is_the_error_of_the_solved_fields(monkeypatch):
    """Of every velocity by itself, by the way `solve` goes, in double precision."""
    monkeypatch.setattr(evaluation, "_HELD", ((2.0, 0.4), (3.0, 1.5)))
    config = configs.MetaConfig(
        network=configs.NetworkConfig("pinn", width=300, depth=1, first_scale=3.0),
        objective=configs.ObjectiveConfig(name="projection", points=900),
        tasks=dataclasses.replace(TINY, largest_size=24, absorbing=True),
    )
    model = networks.make_network(config.network)
    params = models.initial_parameters(model, jax.random.key(0))
    objective = objectives.make_objective(config.objective, model)
    figures = evaluation.make_evaluation(config, model, objective)(params, 7)
    assert list(figures) == ["error", "2Hz_0.4km", "3Hz_1.5km"]
    mean, first, second = figures.values()
    assert first != second
    np.testing.assert_allclose(mean, (first + second) / 2, rtol=1e-6)

    task, errors = evaluation.held_tasks(config.tasks, evaluation._HELD)[0], []
    inside = np.all((task.points >= 0) & (task.points <= 2.3), axis=1)
    assert 50 < np.sum(inside) < len(inside)
    for velocity, v0, known in zip(
        task.velocities, task.background_velocities, task.scattered, strict=True
    ):
        own = task.member(velocity, v0)
        weights = output_layer.solve(model, params, own, double=True)
        field = output_layer.FeatureField(model, params, own, weights, double=True)
        errors.append(relative_l2(field(task.points[inside]), known[inside]))
    assert max(errors) < 0.5
    np.testing.assert_allclose(first, np.mean(errors), rtol=0.05)


def test_evaluation_of_own_output_is_its_error_after_steps():
    """Of Adam at a decaying rate, clipped, by the way that adaptation goes."""
    config = configs.MetaConfig(
        network=configs.NetworkConfig("pinn", width=30, depth=1, first_scale=3.0),
        objective=configs.ObjectiveConfig(name="own_output", points=225),
        tasks=dataclasses.replace(TINY, absorbing=True),
    )
    model = networks.make_network(config.network)
    objective = objectives.make_objective(config.objective, model)
    params = models.initial_parameters(model, jax.random.key(0))
    settings, steps = ((2.0, 0.4), (3.0, 1.5)), (0, 3, 8)
    evaluate = evaluation.own_output_evaluation(
        config.tasks, model, objective, settings, steps
    )
    figures = evaluate(params, 7)
    assert list(figures) == ["error", "error_0", "error_3", "2Hz_0.4km", "3Hz_1.5km"]
    tasks = evaluation.held_tasks(config.tasks, settings, velocities=1)
    optimiser = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(2e-3, 8))
    )
    gradient = jax.jit(jax.grad(objective, has_aux=True))
    errors = []
    for task in tasks:
        task = jax.tree.map(jnp.asarray, task)
        own, state, curve = params, optimiser.init(params), []
        inside = np.all((task.points >= 0) & (task.points <= 2.0), axis=1)
        for step in range(9):
            outputs = objectives.output_function(model, own, task.problem)(task.points)
            field = task.problem.amplitude * (outputs[:, 0] + 1j * outputs[:, 1])
            curve.append(relative_l2(field[inside], task.scattered[0][inside]))
            key = jax.random.fold_in(jax.random.key(evaluation._HELD_SEED), step)
            updates, state = optimiser.update(gradient(own, task, key)[0], state, own)
            own = optax.apply_updates(own, updates)
        errors.append([curve[number] for number in steps])
    errors = np.array(errors)
    for number, name in enumerate(("error_0", "error_3", "error")):
        np.testing.assert_allclose(figures[name], errors[:, number].mean(), rtol=1e-3)
    np.testing.assert_allclose(figures["3Hz_1.5km"], errors[1, -1], rtol=1e-3)
    assert errors[0, -1] != errors[0, 0]


def test_evaluation_of_the_published_losses_is_after_published_steps(monkeypatch, capsys):
    """Of AdamW with decay, not clipped; without a layer it is the loss that counts."""
    monkeypatch.setattr(evaluation, "_OWN_HELD", ((3.0, 1.5),))
    monkeypatch.setattr(evaluation, "_OWN_STEPS", (0, 4))
    config = configs.MetaConfig(
        network=configs.NetworkConfig("pinn", width=30, depth=1, first_scale=3.0),
        objective=configs.ObjectiveConfig(name="paper", points=100),
        tasks=dataclasses.replace(TINY, absorbing=False),
    )
    model = networks.make_network(config.network)
    objective = objectives.make_objective(config.objective, model)
    params = models.initial_parameters(model, jax.random.key(0))
    figures = evaluation.make_evaluation(config, model, objective, progress=True)(params, 0)
    assert "evaluation: 100%" in capsys.readouterr().err
    assert list(figures) == ["loss", "loss_0", "3Hz_1.5km"]

    (task,) = evaluation.held_tasks(config.tasks, ((3.0, 1.5),), velocities=1)
    task = jax.tree.map(jnp.asarray, task)
    optimiser = optax.adamw(1e-3, weight_decay=4e-5)
    seed = jax.random.key(evaluation._HELD_SEED)
    held_out = jax.random.fold_in(seed, adaptation.HELD_OUT_FOLD)
    loss_of, state = jax.jit(objective), optimiser.init(params)
    expected = [float(loss_of(params, task, held_out)[0])]
    for step in range(4):
        key = jax.random.fold_in(seed, step)
        gradient = jax.grad(objective, has_aux=True)(params, task, key)[0]
        updates, state = optimiser.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    expected.append(float(loss_of(params, task, held_out)[0]))
    found = [figures["loss_0"], figures["loss"]]
    np.testing.assert_allclose(found, expected, rtol=1e-3)
    assert figures["3Hz_1.5km"] == figures["loss"] < figures["loss_0"]


def test_stacked_tasks_unstack():
    model = VelocityModel(np.full((11, 11), 2.0), 0.05)
    (task,) = task_sets.make_tasks([model], 3.0, [0.1], DISTRIBUTION)
    stacked = task_sets.stack_tasks([task, task])
    chex.assert_trees_all_equal(jax.tree.map(lambda leaf: leaf[1], stacked), task)
