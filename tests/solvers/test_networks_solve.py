"""Solves by networks: exact output layers, adaptation, the paper's meta-testing."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import meta_lrpinn as ml
from meta_lrpinn import models
from meta_lrpinn.learning import checkpoints, configs, networks
from meta_lrpinn.metrics import relative_l2
from meta_lrpinn.physics.problem import default_thickness
from meta_lrpinn.physics.velocity import VelocityModel
from meta_lrpinn.solvers import network_features
from meta_lrpinn.solvers.solve import solve

FREQUENCY, SOURCE = 3.0, (0.3, 0.1)
SMALL = configs.NetworkConfig(width=40, depth=1, rank=10, first_scale=6.0)


@pytest.fixture(scope="module")
def model():
    depth = np.linspace(1.6, 2.4, 11)[:, None]
    return VelocityModel(np.array(np.broadcast_to(depth, (11, 11))), 0.08)


@pytest.fixture(scope="module")
def truth(model):
    # Nothing to compile.
    return ml.reference_wavefield(model, FREQUENCY, SOURCE, refinement=3)


def network_of(kind="lrpinn", **changes):
    config = dataclasses.replace(SMALL, kind=kind, **changes)
    module = networks.make_network(config)
    return ml.Network(module, models.initial_parameters(module, jax.random.key(0)))


class Sines(nn.Module):
    """What `NetworkFeatures` needs of a network, and nothing else."""

    ndim: int = 2
    layer_fraction: float = 0.5

    @nn.compact
    def features(self, points, source, frequency):
        spread, phase = nn.initializers.normal(8.0), nn.initializers.uniform(6.3)
        return jnp.sin(nn.Dense(160, kernel_init=spread, bias_init=phase)(points))


def test_a_network_of_ones_own(model, truth):
    arguments = jnp.zeros((1, 2)), jnp.zeros(1), jnp.ones(())
    params = Sines().init(jax.random.key(0), *arguments, method="features")["params"]
    network = ml.Network(Sines(), params)
    field = solve(model, FREQUENCY, SOURCE, ml.NetworkFeatures(network))
    assert field.stats.unknowns == 160
    assert relative_l2(field.scattered, truth.scattered) < 0.05


@pytest.fixture(scope="module")
def pruned():
    return network_of().prune(FREQUENCY)


@pytest.fixture
def kept(monkeypatch):
    """Parameters before and after adaptation, whichever way it goes."""
    seen = {}

    def record(module, name):
        function = getattr(module, name)

        def recording(first, params, *args, **kwargs):
            result = function(first, params, *args, **kwargs)
            seen.update(before=jax.device_get(params), after=jax.device_get(result[0]))
            return result

        monkeypatch.setattr(module, name, recording)

    from meta_lrpinn.learning import adaptation

    record(adaptation, "finetune")
    return seen


def check(field, truth, steps):
    """Every step is in the history, and what was kept is its best record."""
    if field.solver == "gradient_training":
        figure = [record.get("held_out", 0.0) for record in field.history]
        assert field.error_estimate is None
    else:
        figure = [record["error_estimate"] for record in field.history]
        np.testing.assert_allclose(field.error_estimate, min(figure), rtol=1e-4)
    assert field.stats.unknowns == 40 and field.stats.steps == steps
    assert [record["step"] for record in field.history] == list(range(steps + 1))
    error = relative_l2(field.scattered, truth.scattered)
    recorded = [record["relative_l2"] for record in field.history]
    np.testing.assert_allclose(recorded[np.argmin(figure)], error, rtol=1e-3)
    values = field.at(field.model.grid_points())
    np.testing.assert_allclose(values, field.scattered.ravel(), rtol=1e-3, atol=1e-5)


def test_exact_solve_of_a_dense_network(model, truth):
    network = network_of("pinn")
    settings = ml.NetworkFeatures(network, precision="single")
    field = solve(model, FREQUENCY, SOURCE, settings, truth=truth.scattered)
    check(field, truth, 0)
    assert field.stats.rank is None
    assert field.provenance.initialisation == network.checksum()


def test_the_checksum_is_that_of_the_parameters():
    network = network_of()
    same = network.with_parameters(jax.tree.map(np.array, network.params))
    assert network.checksum() == same.checksum()
    assert network.checksum() != network.reinitialised(7).checksum()


def test_reduced_rank_and_frozen_bases(model, truth, kept):
    """U and V keep the columns of the largest |σ| and every bit; the rest moves."""
    settings = ml.GradientTraining(
        network_of().prune(FREQUENCY).truncate(fraction=0.3).freeze_bases(),
        optimiser=ml.AdamW(steps=15, report_every=1, learning_rate=1e-2, points=300),
    )
    field = solve(model, FREQUENCY, SOURCE, settings, truth=truth.scattered)
    assert field.stats.rank == (3,)
    losses = [record["held_out"] for record in field.history]
    assert min(losses) < losses[0]
    before, after = kept["before"], kept["after"]
    for params in (before, after):
        assert params["embedding"]["hidden_0"].shape == (3,)
    for factor in ("U", "V"):
        np.testing.assert_array_equal(
            before["network"]["hidden_0"][factor], after["network"]["hidden_0"][factor]
        )
    assert np.all(before["embedding"]["hidden_0"] != after["embedding"]["hidden_0"])


@pytest.mark.parametrize(
    "loss", ["relative", pytest.param("published", marks=pytest.mark.slow)]
)
def test_gradient_training_with_the_hypernetwork(model, truth, kept, loss):
    adamw = ml.AdamW(steps=3, learning_rate=1e-4, report_every=1, points=300)
    settings = ml.GradientTraining(network_of(), optimiser=adamw, loss=loss)
    field = solve(model, FREQUENCY, SOURCE, settings, truth=truth.scattered)
    check(field, truth, 3)
    leaves = [jax.tree.leaves(kept[name]["embedding"]) for name in ("before", "after")]
    assert len(leaves[0]) > 1
    assert any(np.any(a != b) for a, b in zip(*leaves, strict=True))


@pytest.mark.parametrize("kind", [ml.AdamW, ml.SOAP])
def test_gradient_training_lowers_the_error(model, truth, kind):
    """The network's own output, from random parameters, by the relative loss."""
    adamw = kind(steps=120, learning_rate=1e-2, points=600, report_every=40)
    settings = ml.GradientTraining(network_of().prune(FREQUENCY), optimiser=adamw)
    field = solve(model, FREQUENCY, SOURCE, settings, truth=truth.scattered)
    errors = [record["relative_l2"] for record in field.history]
    assert errors[-1] < 0.6 * errors[0]


def test_own_output_knows_the_phase_of_the_amplitude(model, pruned):
    adamw = ml.AdamW(steps=2, points=200)
    settings = ml.GradientTraining(pruned, optimiser=adamw)
    one, other = (
        solve(model, FREQUENCY, SOURCE, settings, amplitude=a) for a in (1.0, 0.5j)
    )
    np.testing.assert_allclose(other.scattered, 0.5j * one.scattered, rtol=1e-5)


def test_where_gradient_training_starts_and_how_it_ends(model):
    network, none = network_of("pinn"), ml.AdamW(steps=0)
    own, solved, polished = (
        solve(model, FREQUENCY, SOURCE, settings).scattered
        for settings in (
            ml.GradientTraining(network, optimiser=none),
            ml.GradientTraining(network, optimiser=none, output_start="solved"),
            ml.GradientTraining(network, optimiser=none, polish=True),
        )
    )
    exactly = solve(model, FREQUENCY, SOURCE, ml.NetworkFeatures(network)).scattered
    assert relative_l2(solved, exactly) < 0.02
    np.testing.assert_allclose(polished, exactly)
    assert relative_l2(own, exactly) > 0.1


def test_error_estimate_is_the_change_by_the_last_third(model):
    """Over the first two thirds of the features."""
    network = network_of()
    field = solve(model, FREQUENCY, SOURCE, ml.NetworkFeatures(network))
    part = ml.NetworkFeatures(network.leading(round(40 / 1.5)))
    fewer = solve(model, FREQUENCY, SOURCE, part)
    assert (field.stats.unknowns, fewer.stats.unknowns) == (40, 27)
    change = relative_l2(fewer.scattered, field.scattered)
    expected = change / network_features.CHANGE_OVER_ERROR
    np.testing.assert_allclose(field.error_estimate, expected, rtol=1e-3)


def test_a_field_of_zeros_has_no_estimate():
    """Nor has one without a coarser one beside it."""
    assert np.isnan(network_features.estimate(np.zeros((3, 2))))
    assert np.isnan(network_features.estimate(np.ones((3, 1))))
    half = np.array([[1.0, 0.5], [-1.0, -0.5]])
    assert network_features.estimate(half) == pytest.approx(
        0.5 / network_features.CHANGE_OVER_ERROR
    )


def test_features_are_solved_for_in_the_layer_they_are_for(model):
    """Unless another is asked for; several sources share the thickest."""
    sources = np.array([[0.3, 0.1], [0.3, 0.7]])

    def field(fraction, **more):
        settings = ml.NetworkFeatures(network_of(layer_fraction=fraction))
        return solve(model, FREQUENCY, sources, settings, **more).scattered

    fastest = float(model.at(sources)[1])
    thickness = default_thickness(model, FREQUENCY, fastest, 0.5)
    half = field(0.5)
    chosen = field(1.0, thickness=thickness)  # of a velocity rounded otherwise
    np.testing.assert_allclose(half, chosen, atol=1e-6 * np.abs(half).max())
    assert relative_l2(half, field(1.0)) > 1e-3


def test_seeds_of_a_random_start_reproduce_and_differ(model, monkeypatch):
    network = dataclasses.replace(SMALL, layer_fraction=0.5)
    small = dataclasses.replace(configs.PRESETS["small"], network=network)
    monkeypatch.setitem(configs.PRESETS, "small", small)
    settings = ml.NetworkFeatures(None, precision="single")
    first, again, other = (
        solve(model, FREQUENCY, SOURCE, settings, seed=seed).scattered for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert relative_l2(other, first) > 1e-3


def test_what_a_network_cannot_be(model, tmp_path):
    dense, low_rank = network_of("pinn"), network_of()
    for call, message in (
        (lambda: dense.prune(5.0), "only an lrpinn can be pruned"),
        (lambda: dense.freeze_bases(), "adapted with frozen bases"),
        (lambda: dense.truncate(fraction=0.5), "reduced in rank"),
        (lambda: low_rank.truncate(fraction=0.5), "prune the hypernetwork before"),
        (lambda: low_rank.leading(9), "last layer's rank 10 to 40, got 9"),
        (lambda: low_rank.prune(1.0).prune(1.0), "pruned already"),
        (
            lambda: low_rank.prune(1.0).truncate(fraction=1.5),
            "above 0 and at most 1, got 1.5",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    cube = VelocityModel(np.ones((4, 4, 4)), 0.1)
    with pytest.raises(ValueError, match="the network is 2D, the model 3D"):
        solve(cube, 1.0, (0.1, 0.1, 0.1), ml.NetworkFeatures(low_rank))
    folder = tmp_path / "mine"
    settings = dataclasses.asdict(SMALL)
    checkpoints.save_initialisation(folder, low_rank.params, settings, {})
    loaded = ml.load_network(folder)
    chex.assert_trees_all_equal(loaded.params, low_rank.params)
    with pytest.raises(ValueError, match="is a 2D lrpinn; asked for a 2D pinn"):
        ml.load_network(folder, kind="pinn")


def test_every_part_has_a_key_of_its_own():
    from meta_lrpinn.solvers.protocol import keys_of

    data = [
        tuple(np.asarray(jax.random.key_data(key)))
        for seed in (0, 1)
        for key in keys_of(seed)
    ]
    assert len(set(data)) == 4


def test_every_source_has_a_history_of_its_own(model, truth, pruned):
    optimiser = ml.AdamW(steps=2, report_every=1, points=200)
    settings = ml.GradientTraining(pruned, optimiser=optimiser)
    field = solve(model, FREQUENCY, np.array([SOURCE, (0.5, 0.1)]), settings)
    taken = [(record["source"], record["step"]) for record in field.history]
    assert taken == [(source, step) for source in range(2) for step in range(3)]
    assert field.stats.steps == 2 and field.stats.rank == pruned.ranks
