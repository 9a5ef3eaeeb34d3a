"""What every network called with (points, source, frequency) has to do."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.random_waves import PlaneWaves
from meta_lrpinn.models import (
    LRPINN,
    PINN,
    FrequencyEmbedding,
    MetaLRPINN,
    initial_parameters,
    make_meta_lrpinn,
    orthogonal_factors,
    orthonormal_bases,
    prune_hypernetwork,
    truncate,
)

KEY = jax.random.key(0)
WIDTH, DEPTH, RANK = 24, 3, 8


@functools.cache
def _meta(ndim):
    model = make_meta_lrpinn(width=WIDTH, depth=DEPTH, rank=RANK, ndim=ndim)
    return model, initial_parameters(model, KEY)


@functools.cache
def _pruned(ndim):
    return prune_hypernetwork(*_meta(ndim), 5.0)


@functools.cache
def _reduced(ndim):
    return truncate(*_pruned(ndim), fraction=0.5)


@functools.cache
def _pinn(ndim):
    model = PINN(width=WIDTH, depth=DEPTH, ndim=ndim)
    return model, initial_parameters(model, KEY)


@functools.cache
def _pinn_of_frequency(ndim):
    model = PINN(width=WIDTH, depth=DEPTH, ndim=ndim, frequency_input=True)
    return model, initial_parameters(model, KEY)


@functools.cache
def _plane_waves(ndim):
    model = PlaneWaves(ndim=ndim, number=WIDTH)
    return model, initial_parameters(model, KEY)


def _apply(model, params, *inputs, method="__call__"):
    return model.apply({"params": params}, *inputs, method=method)


NETWORKS = [_meta, _pruned, _reduced, _pinn, _pinn_of_frequency, _plane_waves]
USE_FREQUENCY = [_meta, _pinn_of_frequency]
USE_SOURCE = [_meta, _pruned, _reduced, _pinn, _pinn_of_frequency]
every_network = pytest.mark.parametrize("make", NETWORKS)


def _inputs(ndim, number=7):
    points = jax.random.uniform(jax.random.key(1), (number, ndim), maxval=2.0)
    return points, jnp.linspace(0.5, 1.0, ndim - 1), 5.0


NARROW_INPUTS = _inputs(2)


@every_network
@pytest.mark.parametrize("ndim", [2, 3])
def test_shapes(make, ndim):
    model, params = make(ndim)
    assert model.ndim == ndim
    inputs = _inputs(ndim)
    output = _apply(model, params, *inputs)
    features = _apply(model, params, *inputs, method="features")
    chex.assert_shape(output, (7, 2))
    chex.assert_shape(features, (7, WIDTH))
    chex.assert_type([output, features], jnp.float32)


@every_network
def test_output_is_the_last_layer_of_the_features(make):
    model, params = make(2)
    features = _apply(model, params, *_inputs(2), method="features")
    last = params.get("network", params)["last"]
    expected = features @ last["kernel"] + last["bias"]
    output = _apply(model, params, *_inputs(2))
    np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-6)


@every_network
def test_float64_is_kept_throughout(make):
    model, params = make(2)
    narrow = _apply(model, params, *_inputs(2))
    with jax.enable_x64(True):
        wide, inputs = jax.tree.map(
            lambda leaf: jnp.asarray(leaf, jnp.float64), (params, NARROW_INPUTS)
        )

        def field(points, source, frequency):
            return model.apply({"params": wide}, points, source, frequency)

        assert "f32" not in str(jax.make_jaxpr(field)(*inputs))
        np.testing.assert_allclose(field(*inputs), narrow, atol=1e-4)


@every_network
def test_rows_do_not_see_each_other(make):
    model, params = make(2)
    points, source, frequency = _inputs(2)
    together = _apply(model, params, points, source, frequency)
    alone = _apply(model, params, points[3], source, frequency)
    np.testing.assert_allclose(together[3], alone, rtol=1e-4, atol=1e-5)


@every_network
def test_jvp_through_the_batch_is_the_jacobian_of_each_point(make):
    model, params = make(2)
    points, source, frequency = _inputs(2)

    def field(points):
        return _apply(model, params, points, source, frequency)

    jacobian = jax.jit(jax.vmap(jax.jacrev(field)))(points)
    for axis in range(2):
        direction = jnp.zeros_like(points).at[:, axis].set(1.0)
        _, tangent = jax.jvp(field, (points,), (direction,))
        np.testing.assert_allclose(tangent, jacobian[..., axis], rtol=1e-3, atol=1e-4)


@every_network
def test_every_parameter_has_a_gradient(make):
    model, params = make(2)
    points, source, frequency = _inputs(2)

    def loss(params):
        return jnp.mean(_apply(model, params, points, source, frequency) ** 2)

    gradients = jax.jit(jax.grad(loss))(params)
    chex.assert_trees_all_equal_shapes_and_dtypes(gradients, params)
    for path, gradient in jax.tree_util.tree_leaves_with_path(gradients):
        assert jnp.all(jnp.isfinite(gradient)), path
        assert jnp.max(jnp.abs(gradient)) > 0, path


@every_network
def test_vmap_over_tasks(make):
    model, params = make(2)
    points, _, _ = _inputs(2)
    tasks = jax.tree.map(lambda leaf: np.stack([leaf, 1.1 * leaf]), params)
    sources, frequencies = jnp.array([[0.5], [1.0]]), jnp.array([5.0, 8.0])

    def field(params, source, frequency):
        return _apply(model, params, points, source, frequency)

    together = jax.jit(jax.vmap(field))(tasks, sources, frequencies)
    chex.assert_shape(together, (2, 7, 2))
    for task in range(2):
        own = jax.tree.map(lambda leaf, task=task: leaf[task], tasks)
        alone = field(own, sources[task], frequencies[task])
        np.testing.assert_allclose(together[task], alone, rtol=1e-3, atol=1e-4)


@every_network
def test_which_inputs_matter(make):
    model, params = make(2)
    points, source, frequency = _inputs(2)
    output = _apply(model, params, points, source, frequency)
    higher = _apply(model, params, points, source, frequency + 5.0)
    moved = _apply(model, params, points, source + 1.0, frequency)
    assert jnp.array_equal(output, higher) == (make not in USE_FREQUENCY)
    assert jnp.array_equal(output, moved) == (make not in USE_SOURCE)


@pytest.mark.parametrize("make", USE_FREQUENCY)
def test_each_point_may_have_its_source_and_frequency(make):
    model, params = make(2)
    points, _, _ = _inputs(2)
    sources, frequencies = jnp.linspace(0, 1, 7)[:, None], jnp.linspace(3.0, 9.0, 7)
    together = _apply(model, params, points, sources, frequencies)
    alone = _apply(model, params, points[2], sources[2], frequencies[2])
    np.testing.assert_allclose(together[2], alone, rtol=1e-4, atol=1e-5)


@every_network
def test_points_of_another_dimension(make):
    model, params = make(2)
    with pytest.raises(AssertionError, match="equal to .2. on axis .-1. but got .3."):
        _apply(model, params, jnp.zeros((4, 3)), jnp.zeros(1), 5.0)


@pytest.mark.parametrize("make", USE_SOURCE)
def test_source_with_its_depth(make):
    model, params = make(2)
    with pytest.raises(ValueError, match=r"1 horizontal coordinate.* got shape \(2,\)"):
        _apply(model, params, jnp.zeros((4, 2)), jnp.zeros(2), 5.0)


def test_missing_frequency():
    model, params = _pinn_of_frequency(2)
    with pytest.raises(ValueError, match="frequency_input needs a frequency"):
        _apply(model, params, jnp.zeros((4, 2)), jnp.zeros(1))


def test_pinn_normalises_its_frequency():
    model, params = _pinn_of_frequency(2)
    points, source = jnp.zeros((1, 2)), jnp.zeros(1)
    _, state = model.apply(
        {"params": params},
        points,
        source,
        20.0,
        capture_intermediates=True,
        mutable=["intermediates"],
    )
    (seen,) = state["intermediates"]["first"]["__call__"]
    first = params["first"]
    np.testing.assert_allclose(seen[0], first["kernel"][3] + first["bias"], rtol=1e-6)


def _layer_deviations(model, params):
    """Standard deviation of the activations of each layer over points and units."""
    points = jax.random.uniform(jax.random.key(2), (256, 2), maxval=3.0)
    _, state = model.apply(
        {"params": params},
        points,
        jnp.ones(1),
        5.0,
        capture_intermediates=True,
        mutable=["intermediates"],
    )
    layers = state["intermediates"]
    layers = layers.get("network", layers)
    names = ["first", *(f"hidden_{layer}" for layer in range(6))]
    return [float(jnp.std(jnp.sin(layers[name]["__call__"][0]))) for name in names]


@pytest.mark.parametrize(
    "model",
    [
        make_meta_lrpinn(),
        make_meta_lrpinn(rank=25),
        pytest.param(make_meta_lrpinn(last_width=900), marks=pytest.mark.slow),
        make_meta_lrpinn(last_width=120),
        PINN(),
    ],
    ids=["rank 100", "rank 25", "last 900", "last 120", "dense"],
)
def test_activations_keep_their_scale_through_six_layers(model):
    deviations = _layer_deviations(model, initial_parameters(model, KEY))
    # 0.63 is the fixed point that the gain is made for.
    np.testing.assert_allclose(deviations[1:], 0.63, atol=0.04)


def test_published_start_is_the_published():
    """Glorot's U and V, and everywhere else weights and biases in ±1/√inputs."""
    params = initial_parameters(make_meta_lrpinn(initialisation="xavier"), KEY)
    for layer in range(6):
        for basis in params["network"][f"hidden_{layer}"].values():
            np.testing.assert_allclose(jnp.std(basis), np.sqrt(2 / 420), rtol=0.05)
    embedding = params["embedding"]
    dense = [
        *((3, params["network"]["first"]), (320, params["network"]["last"])),
        *((1, embedding["dense_0"]), (80, embedding["dense_1"])),
        *((80, embedding["dense_2"]), (80, embedding["head_5"])),
    ]
    for inputs, layer in dense:
        largest = 1 / np.sqrt(inputs)
        chex.assert_shape(layer["kernel"], (inputs, None))
        for values in layer.values():
            assert jnp.abs(values).max() <= largest and jnp.abs(values).max() > 0
        if layer["kernel"].size > 200:
            spread = jnp.std(layer["kernel"])
            np.testing.assert_allclose(spread, largest / np.sqrt(3), rtol=0.1)
        if layer["bias"].size > 50:
            np.testing.assert_allclose(
                jnp.std(layer["bias"]), largest / np.sqrt(3), rtol=0.2
            )


def test_published_start_vanishes():
    model = make_meta_lrpinn(initialisation="xavier")
    deviations = _layer_deviations(model, initial_parameters(model, KEY))
    assert all(np.diff(np.log(deviations)) < np.log(0.2))
    assert deviations[-1] < 1e-6


def test_first_layer_starts_as_plane_waves_of_the_scale_asked_for():
    model = make_meta_lrpinn(width=1000, depth=1, rank=1, ndim=3, first_scale=12.0)
    first = initial_parameters(model, KEY)["network"]["first"]
    deviations = jnp.std(first["kernel"], axis=1)
    np.testing.assert_allclose(deviations, [12, 12, 12, 2, 2], rtol=0.1)
    assert jnp.abs(first["bias"]).max() <= jnp.pi
    np.testing.assert_allclose(jnp.std(first["bias"]), np.pi / np.sqrt(3), rtol=0.1)


def test_parameter_tree_of_the_paper():
    draw = functools.partial(initial_parameters, make_meta_lrpinn())
    params = jax.eval_shape(draw, KEY)
    assert set(params) == {"network", "embedding"}
    shapes = jax.tree.map(lambda leaf: leaf.shape, params["network"])
    hidden = {"U": (320, 100), "V": (320, 100)}
    assert shapes == {f"hidden_{layer}": hidden for layer in range(6)} | {
        "first": {"kernel": (3, 320), "bias": (320,)},
        "last": {"kernel": (320, 2), "bias": (2,)},
    }


@pytest.mark.parametrize("last_width", [40, 10])
def test_a_last_layer_of_its_own_width(last_width):
    sizes = {"width": WIDTH, "depth": DEPTH, "rank": RANK}
    model = make_meta_lrpinn(**sizes, last_width=last_width)
    params = initial_parameters(model, KEY)
    network = model.network
    assert network.number_of_features == last_width
    assert network.widths == (WIDTH, WIDTH, last_width)
    # Those before are as they were, of the same gain too.
    plain, plain_params = _meta(2)
    assert network.gains[:-1] == plain.network.gains[:-1]
    for name in ("first", "hidden_0", "hidden_1"):
        chex.assert_trees_all_equal(params["network"][name], plain_params["network"][name])
    shapes = jax.tree.map(lambda leaf: leaf.shape, params["network"])
    assert shapes["hidden_2"] == {"U": (last_width, RANK), "V": (WIDTH, RANK)}
    assert shapes["last"] == {"kernel": (last_width, 2), "bias": (2,)}
    features = _apply(model, params, *_inputs(2), method="features")
    chex.assert_shape(features, (7, last_width))
    last = params["network"]["last"]
    np.testing.assert_allclose(
        _apply(model, params, *_inputs(2)),
        features @ last["kernel"] + last["bias"],
        rtol=1e-5,
        atol=1e-6,
    )


def test_the_last_layer_is_as_wide_as_the_others_by_default():
    sizes = {"width": WIDTH, "depth": DEPTH, "rank": RANK}
    model, params = _meta(2)
    assert model.network.number_of_features == WIDTH
    named = make_meta_lrpinn(**sizes, last_width=WIDTH)
    assert named.network.gains == model.network.gains
    chex.assert_trees_all_equal(initial_parameters(named, KEY), params)


@pytest.mark.parametrize("last_width", [40, 10])
def test_a_dense_last_layer_of_its_own_width(last_width):
    model = PINN(width=WIDTH, depth=DEPTH, last_width=last_width)
    params = initial_parameters(model, KEY)
    assert model.number_of_features == last_width
    plain, plain_params = _pinn(2)
    assert plain.number_of_features == WIDTH
    for name in ("first", "hidden_0", "hidden_1"):
        chex.assert_trees_all_equal(params[name], plain_params[name])
    shapes = jax.tree.map(lambda leaf: leaf.shape, params)
    assert shapes["hidden_2"] == {"kernel": (WIDTH, last_width), "bias": (last_width,)}
    assert shapes["last"] == {"kernel": (last_width, 2), "bias": (2,)}
    features = _apply(model, params, *_inputs(2), method="features")
    chex.assert_shape(features, (7, last_width))
    named = PINN(width=WIDTH, depth=DEPTH, last_width=WIDTH)
    chex.assert_trees_all_equal(initial_parameters(named, KEY), plain_params)


def test_a_last_layer_narrower_than_its_rank():
    model = make_meta_lrpinn(width=WIDTH, depth=DEPTH, rank=RANK, last_width=RANK - 1)
    with pytest.raises(ValueError, match="got rank 8 for 24 inputs and 7 units"):
        initial_parameters(model, KEY)


def test_orthogonal_factors():
    _, params = _meta(2)
    factors = orthogonal_factors(params)
    assert len(factors) == DEPTH
    for layer, (U, V) in enumerate(factors):
        held = params["network"][f"hidden_{layer}"]
        chex.assert_trees_all_equal({"U": U, "V": V}, held)
        np.testing.assert_allclose(U.T @ U, np.eye(RANK), atol=1e-6)
        np.testing.assert_allclose(V.T @ V, np.eye(RANK), atol=1e-6)


def test_orthonormal_bases_are_the_nearest():
    _, params = _meta(2)
    moved = jax.tree.map(lambda leaf: leaf + 0.1 * jnp.cos(jnp.arange(leaf.size)).reshape(
        leaf.shape), params)  # fmt: skip
    bases = orthonormal_bases(moved)
    kept = {**moved, "network": {**moved["network"]}}
    for name in (f"hidden_{layer}" for layer in range(DEPTH)):
        for factor in ("U", "V"):
            old, new = moved["network"][name][factor], bases["network"][name][factor]
            np.testing.assert_allclose(new.T @ new, np.eye(RANK), atol=1e-5)
            # Of all orthonormal bases the nearest: Uᵀ times the old is positive.
            product = new.T @ old
            np.testing.assert_allclose(product, product.T, atol=1e-5)
            assert np.all(np.linalg.eigvalsh(product) > 0)
        kept["network"][name] = bases["network"][name]
    chex.assert_trees_all_equal(bases, kept)


def test_low_rank_network_by_hand():
    network = LRPINN(width=6, depth=2, rank=(3, 2))
    sigma = jnp.array([1.0, 0.5, 2.0]), jnp.array([1.5, 0.7])
    points, source, _ = _inputs(2)
    variables = network.init(KEY, points, source, sigma)
    params = variables["params"]
    rows = jnp.column_stack([points, jnp.full(7, 0.5)])
    hidden = jnp.sin(rows @ params["first"]["kernel"] + params["first"]["bias"])
    for layer, rank in enumerate((3, 2)):
        factors = params[f"hidden_{layer}"]
        weights = factors["U"] @ jnp.diag(sigma[layer]) @ factors["V"].T
        hidden = jnp.sin(np.sqrt(2 * 6 / rank) * hidden @ weights.T)
    expected = hidden @ params["last"]["kernel"] + params["last"]["bias"]
    output = network.apply(variables, points, source, sigma)
    np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-5)


def test_network_and_hypernetwork_must_agree():
    model = MetaLRPINN(
        network=LRPINN(width=WIDTH, depth=3, rank=RANK),
        embedding=FrequencyEmbedding(rank=RANK, depth=2),
    )
    with pytest.raises(AssertionError, match="2 != 3"):
        initial_parameters(model, KEY)
