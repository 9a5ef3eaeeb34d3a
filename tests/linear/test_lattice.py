"""Plane waves on a lattice: assembly, exact fields, gradient, error estimate."""

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import meta_lrpinn as ml
from meta_lrpinn import generators
from meta_lrpinn.linear import lattice as lattices
from meta_lrpinn.linear.interpolation import squared_slowness
from meta_lrpinn.linear.lattice import operator
from meta_lrpinn.metrics import relative_l2
from meta_lrpinn.physics import absorbing
from meta_lrpinn.physics.problem import make_problem
from meta_lrpinn.physics.velocity import VelocityModel
from meta_lrpinn.reference import analytic

FREQUENCY, SOURCE = 5.0, np.array([0.4, 0.05])


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def cube(ndim, count=9, velocity=2.0, spacing=0.1):
    return VelocityModel(np.full((count,) * ndim, velocity), spacing)


def gradient_model(ndim=2, count=9, spacing=0.1, origin=None):
    depth = np.linspace(1.8, 2.8, count).reshape((count,) + (1,) * (ndim - 1))
    velocity = np.array(np.broadcast_to(depth, (count,) * ndim))
    velocity[..., count // 2 :] += 0.3
    return VelocityModel(velocity, spacing, origin)


def solution_of(problem, lattice):
    own = problem.source[None], problem.background_velocity[None]
    return lattices.solve(problem, lattice, *own, tolerance=1e-9)


def form_of(problem, lattice):
    discretisation = lattices.discretise(problem, lattice)
    return operator.weak_form(discretisation, squared_slowness(problem.model))


def assemble(form, indices=None):
    """Galerkin matrix (n, n) of waves with indices (n, ndim), by default of all.

    The test functions are the conjugate plane waves, which span the same space.
    """
    lattice = form.discretisation.lattice
    waves = lattice.indices if indices is None else np.asarray(indices)
    coefficients = np.fft.fftn(form.kernel) / form.kernel.size
    difference = waves[:, None, :] - waves[None, :, :]
    matrix = coefficients[
        tuple(difference[..., d] % n for d, n in enumerate(form.kernel.shape))
    ]
    rows = (waves + np.asarray(lattice.extent)).T
    for matrices in form.stiffness:
        matrix = matrix - math.prod(
            of_axis[row[:, None], row] for of_axis, row in zip(matrices, rows, strict=True)
        )
    return matrix


def test_lattice_size_follows_volume_and_frequency():
    flat = make_problem(gradient_model(), FREQUENCY, SOURCE)
    deep = make_problem(gradient_model(3), 3.0, (0.4, 0.3, 0.05))
    for problem, frequency, ratio in ((flat, 5.0, 1.2), (flat, 5.0, 1.8), (deep, 3.0, 1.5)):
        lattice = lattices.make_lattice(problem, ratio)
        per_axis = (problem.upper - problem.lower) * ratio * 2 * frequency / 1.8
        # Rounded down to 2n + 1 waves along each axis.
        assert np.all(np.abs(np.array(lattice.shape) - per_axis) <= 1)
        assert lattice.number == len(lattice.indices) == np.prod(lattice.shape)
        found = lattices.wavenumber_ratio_for(problem, lattice.number)
        assert abs(found / ratio - 1) < 0.1


def test_lattice_is_symmetric_and_products_do_not_alias():
    lattice = lattices.make_lattice(make_problem(gradient_model(), FREQUENCY, SOURCE))
    np.testing.assert_array_equal(lattice.indices, -lattice.indices[::-1])
    for size, count in zip(lattice.extent, lattice.product_shape, strict=True):
        assert count > 4 * size
    check = lattice.for_check()
    assert 1.2 < lattice.number / check.number < 1.8


def test_smaller_lattice_is_a_block_of_the_larger():
    problem = make_problem(gradient_model(), FREQUENCY, SOURCE)
    small, large = (
        lattices.make_lattice(problem, wavenumber_ratio) for wavenumber_ratio in (0.8, 1.1)
    )
    few = assemble(form_of(problem, small))
    many = assemble(form_of(problem, large), small.indices)
    chex.assert_shape([few, many], (small.number,) * 2)
    np.testing.assert_allclose(few, many, atol=2e-4 * np.abs(few).max())


def layer_of_one_node(contrast):
    velocity = np.full((41, 41), 2.0)
    velocity[20] += contrast
    return make_problem(VelocityModel(velocity, 0.02), FREQUENCY, SOURCE)


def test_tighter_tolerances_and_rougher_models_begin_with_more_waves():
    smooth, rough = make_problem(gradient_model(), 5.0, SOURCE), layer_of_one_node(1.0)
    loose, tight, most = (
        lattices.wavenumber_ratio_for_tolerance(problem, tolerance)
        for problem, tolerance in ((smooth, 1e-2), (smooth, 1e-3), (rough, 1e-3))
    )
    assert loose < tight < most
    with pytest.raises(ValueError, match="wavenumber ratio must be positive, got 0"):
        lattices.make_lattice(smooth, 0)


def test_rough_models_have_more_waves():
    smooth, rough = make_problem(gradient_model(), 5.0, SOURCE), layer_of_one_node(1.0)
    ratios = [lattices.default_wavenumber_ratio(problem) for problem in (smooth, rough)]
    assert ratios[0] < ratios[1]
    assert lattices.missing_share(smooth, np.array(ratios[:1])) < 0.003
    numbers = [lattices.make_lattice(rough, ratio).number for ratio in ratios]
    assert numbers[1] < 4.2 * numbers[0]


def test_missing_share_is_that_of_a_thin_layer():
    """Nearly white: ω² m / q² beyond K has the norm K^{-3/2}, whatever the contrast."""
    ratios = np.array([1.5, 3.0])
    for contrast in (1e-3, 0.5):
        shares = lattices.missing_share(layer_of_one_node(contrast), ratios)
        assert 0.8 < shares[0] / shares[1] / 2**1.5 < 1.2
    homogeneous = layer_of_one_node(0.0)
    np.testing.assert_array_equal(lattices.missing_share(homogeneous, ratios), 0)


@pytest.mark.parametrize("ndim", [2, 3])
def test_fft_assembly_is_brute_force_quadrature(ndim):
    """Sums over the nodes in NumPy of the weak form as the module's docstring has it."""
    source = np.array([0.4, 0.3, 0.05])[:ndim]
    model = gradient_model(ndim, count=5, spacing=(0.2, 0.15, 0.25)[:ndim])
    problem = make_problem(model, 2.5, source, thickness=0.3)
    lattice = lattices.make_lattice(problem, {2: 0.8, 3: 0.5}[ndim], 4)
    form = form_of(problem, lattice)
    matrix = assemble(form)
    own = source[None], problem.background_velocity[None]
    rhs = operator.right_hand_sides(form, *own)[0]
    chex.assert_shape([matrix, rhs], [(lattice.number,) * 2, lattice.shape])
    # The same without the matrix, and symmetric with the waves of the rows turned round.
    columns = np.einsum(
        "rcn,r->cn", np.random.default_rng(0).normal(size=(2, 2, lattice.number)), [1, 1j]
    )
    product = form.product(columns.reshape(-1, *lattice.shape))
    expected = (matrix @ columns.T).T.reshape(product.shape)
    np.testing.assert_allclose(product, expected, rtol=1e-9)
    np.testing.assert_allclose(
        matrix[::-1], matrix[::-1].T, atol=1e-12 * np.abs(matrix).max()
    )

    omega, layer = float(problem.omega), problem.layer
    lower, period = problem.lower, problem.upper - problem.lower
    x = lower + np.stack(np.meshgrid(*lattice.nodes, indexing="ij"), -1).reshape(-1, ndim)
    cell = np.ravel(np.prod(np.meshgrid(*lattice.node_weights, indexing="ij"), axis=0))
    depth = np.maximum(x - layer.upper, 0) + np.minimum(x - layer.lower, 0)
    sigma = layer.strength * (depth / layer.thickness) ** 2
    integral = layer.strength * depth**3 / (3 * layer.thickness**2)
    s = 1 - 1j * sigma / omega
    volume = np.prod(s, axis=1) * cell
    v_e = problem.envelope_velocity
    envelope = np.exp(-(np.abs(integral) / v_e).sum(1))
    k = 2 * np.pi * lattice.indices / period
    trial = envelope[:, None] * np.exp(1j * (x - lower) @ k.T)
    # The test functions are conjugate waves with the same, real envelope.
    logarithmic = -np.sign(depth) * sigma / v_e
    expected = np.zeros_like(matrix)
    for axis in range(ndim):
        slope = (1j * k[:, axis] + logarithmic[:, axis, None]) * trial
        weight = volume / s[:, axis] ** 2
        expected -= slope.conj().T @ (weight[:, None] * slope)
    slowness = np.asarray(model.at(x)) ** -2
    expected += trial.conj().T @ ((omega**2 * slowness * volume)[:, None] * trial)
    np.testing.assert_allclose(matrix, expected, atol=1e-10 * np.abs(expected).max())

    v0 = float(problem.background_velocity)
    offset = x - source - 1j * integral / omega
    incident = analytic.point_source(offset, omega / v0)
    load = -(omega**2) * (slowness - v0**-2) * incident * volume
    expected = trial.conj().T @ load
    np.testing.assert_allclose(rhs.ravel(), expected, atol=1e-9 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("ndim", "frequency", "wavenumber_ratio", "tolerance"),
    [(2, 5.0, 2.0, 0.01), pytest.param(3, 2.0, 1.7, 0.06, marks=pytest.mark.slow)],
)
def test_shifted_background(ndim, frequency, wavenumber_ratio, tolerance):
    """A homogeneous medium seen from another background, away from the source."""
    source = np.array([0.4, 0.3, 0.2])[:ndim]
    model = cube(ndim, velocity=2.0)
    problem = make_problem(model, frequency, source, background_velocity=1.8)
    field = solution_of(problem, lattices.make_lattice(problem, wavenumber_ratio)).fields[0]
    points = model.grid_points()
    away = np.linalg.norm(points - source, axis=1) > 0.15
    exact = analytic.shifted_background(points[away], frequency, source, 2.0, 1.8)
    assert relative_l2(np.asarray(field).ravel()[away], exact) < tolerance
    # The other time convention, and u₀ not continued, would be far off.
    assert relative_l2(np.asarray(field).ravel()[away].conj(), exact) > 0.5


def step_model(spacing=0.05, count=13):
    velocity = np.full((count, count), 1.5)
    velocity[count // 2 :] = 3.0
    return VelocityModel(velocity, spacing)


def test_quadrature_integrates_the_interpolated_model():
    """Coefficients of m between the nodes of a step, against a thousand points a cell."""
    model = step_model()
    problem = make_problem(model, FREQUENCY, SOURCE, thickness=0.2)
    lattice = lattices.make_lattice(problem, 1.5)
    nodes, weights = lattice.nodes[1], lattice.node_weights[1]
    fine = (np.arange(20 * 1000) + 0.5) / 1000 * 0.05
    for index in (0, 1, 4):
        sums = [
            np.sum(w * np.asarray(model.at(np.stack([0 * z, z], 1))) ** -2 * np.exp(-q * z))
            for z, w, q in (
                (nodes - 0.2, weights, 2j * np.pi * index),
                (fine - 0.2, 0.05 / 1000, 2j * np.pi * index),
            )
        ]
        assert abs(sums[0] - sums[1]) < 2e-5 * 0.44


@pytest.mark.slow
def test_the_same_model_on_a_finer_grid_has_the_same_field():
    """Halving the cells of a sharp step changes nothing between the nodes."""
    coarse = step_model()
    fine = coarse.resampled(0.025)
    fields = []
    for model in (coarse, fine):
        problem = make_problem(model, FREQUENCY, SOURCE, thickness=0.3)
        fields.append(solution_of(problem, lattices.make_lattice(problem, 1.5)).fields[0])
    assert relative_l2(fields[1][::2, ::2], fields[0]) < 1e-3


@pytest.mark.slow  # test_properties scales what `solve` gives
@pytest.mark.parametrize("exponent", [-20, 10])
def test_lengths_and_frequency_scale(exponent):
    """Lengths times s, frequency over s: the same field; s a power of two, exactly."""
    scale = 2.0**exponent
    fields = []
    for s in (1.0, scale):
        model = VelocityModel(gradient_model().velocity, 0.1 * s)
        problem = make_problem(model, FREQUENCY / s, SOURCE * s)
        fields.append(solution_of(problem, lattices.make_lattice(problem, 1.5)).fields)
    np.testing.assert_allclose(fields[1], fields[0], rtol=1e-9, atol=1e-12)


def shifted_error(model, frequency, source, background_velocity):
    problem = make_problem(
        model, frequency, source, background_velocity=background_velocity
    )
    field = solution_of(problem, lattices.make_lattice(problem)).fields[0]
    exact = analytic.shifted_background(
        model.grid_points(), frequency, source, 2.0, background_velocity
    )
    return relative_l2(np.ravel(field), exact)


@pytest.mark.parametrize("wavelengths", [2.5, 12.5, 200])
def test_waves_longer_than_the_model(wavelengths):
    frequency = 2.0 / (wavelengths * 0.8)
    assert shifted_error(cube(2), frequency, SOURCE, 1.8) < 5e-3


def test_grazing_incidence():
    """A flat model, along which waves meet the layer at up to 86 degrees."""
    model = VelocityModel(np.full((6, 76), 2.0), 0.08)
    assert shifted_error(model, FREQUENCY, np.array([0.2, 0.02]), 1.9) < 5e-3


def test_too_many_waves_are_refused_before_anything_is_built():
    model = VelocityModel(np.full((41, 41), 2.0), 25.0)
    problem = make_problem(model, 5.0, (100.0, 25.0))
    with pytest.raises(ValueError, match=r"needs .* plane waves.*spacing in metres\?"):
        lattices.make_lattice(problem)


def test_circular_inclusion():
    """Series solution; the grid blurs the edge of the circle."""
    count, spacing = 41, 0.02
    centre, radius, inside, outside = np.array([0.45, 0.5]), 0.2, 2.6, 2.0
    fine = (np.arange(8) + 0.5) / 8 - 0.5
    axis = ((np.arange(count)[:, None] + fine) * spacing).ravel()
    squared = (axis - centre[0]) ** 2 + (axis[:, None] - centre[1]) ** 2
    slowness = np.where(squared < radius**2, inside**-2.0, outside**-2.0)
    slowness = slowness.reshape(count, 8, count, 8).mean(axis=(1, 3))
    model = VelocityModel(slowness**-0.5, spacing)
    problem = make_problem(model, FREQUENCY, SOURCE)
    field = solution_of(problem, lattices.make_lattice(problem, 2.2)).fields[0]
    exact = analytic.circular_inclusion(
        model.grid_points(), FREQUENCY, SOURCE, centre, radius, inside, outside
    )
    assert relative_l2(np.asarray(field).ravel(), exact) < 0.02


@pytest.fixture(scope="module")
def layered():
    """A small layered model, its reference, and solutions by wavenumber ratio."""
    model = generators.layered(3, shape=(31, 31), spacing=0.025)
    truth = ml.reference_wavefield(model, FREQUENCY, SOURCE, tolerance=1e-3).scattered
    with jax.enable_x64(True):
        problem = make_problem(model, FREQUENCY, SOURCE)
        solutions = {
            wavenumber_ratio: solution_of(
                problem, lattices.make_lattice(problem, wavenumber_ratio)
            )
            for wavenumber_ratio in (1.1, 1.5, 2.0)
        }
    return problem, truth, solutions


def test_layered_model_agrees_with_finite_differences(layered):
    _, truth, solutions = layered
    assert relative_l2(solutions[2.0].fields[0], truth) < 0.01


def test_error_falls_with_the_margin(layered):
    _, truth, solutions = layered
    errors = [relative_l2(s.fields[0], truth) for s in solutions.values()]
    assert errors[0] > 2 * errors[1] > 3 * errors[2]


def test_estimate_tracks_the_error(layered):
    _, truth, solutions = layered
    for wavenumber_ratio, solution in solutions.items():
        chex.assert_shape(solution.error_estimate, (1,))
        ratio = solution.error_estimate[0] / relative_l2(solution.fields[0], truth)
        # Where few waves resolve nothing yet, all that is certain is that it is bad.
        assert 0.4 < ratio < (20 if wavenumber_ratio < 1.5 else 8)


def test_evaluation_at_points_and_on_the_grid_agree(layered):
    problem, _, solutions = layered
    lattice = lattices.make_lattice(problem, 1.5)
    model, weights = problem.model, solutions[1.5].weights
    # Also on a grid that was continued into the layer.
    wider = VelocityModel(np.pad(model.velocity, ((0, 9), (0, 6)), "edge"), 0.025)

    own = problem.replace(model=wider)
    on_grid = lattices.evaluate_on_grid(own, lattice, weights)
    at_points = lattices.evaluate(own, lattice, weights, wider.grid_points())
    chex.assert_shape([on_grid, at_points], [(1, 40, 37), (1, 40 * 37)])
    np.testing.assert_allclose(on_grid.ravel(), at_points[0], rtol=1e-8)
    np.testing.assert_allclose(on_grid[:, :31, :31], solutions[1.5].fields, rtol=1e-8)


def test_many_sources_equal_each_alone(layered):
    """Also the problem's own source and background velocity are not used."""
    problem, _, solutions = layered
    lattice = lattices.make_lattice(problem, 1.5)
    sources = np.stack([[0.6, 0.3], SOURCE])
    v0 = float(problem.background_velocity)
    other = problem.replace(source=sources[0], background_velocity=np.asarray(2.2))
    prepared = lattices.prepare(other, lattice)

    def solve(*given):
        return prepared.solve(problem.model, *given, tolerance=1e-9)

    together = solve(sources, np.array([2.2, v0]))
    chex.assert_shape([together.fields, together.error_estimate], [(2, 31, 31), (2,)])
    # Each source has its own estimate, in whatever order they come.
    swapped = solve(sources[::-1], np.array([v0, 2.2]))
    np.testing.assert_allclose(
        swapped.error_estimate[::-1], together.error_estimate, rtol=1e-3
    )
    alone = solutions[1.5]
    assert relative_l2(together.fields[1], alone.fields[0]) < 3e-3
    assert relative_l2(together.fields[0], together.fields[1]) > 0.5


def test_axes_are_not_confused():
    """Unequal axes, an off-centre source, a nonzero origin: the same field, moved."""
    shape, spacing = (7, 6, 9), (0.1, 0.11, 0.09)
    velocity = np.random.default_rng(0).uniform(1.8, 2.4, shape)
    source, origin = np.array([0.25, 0.3, 0.4]), np.array([3.0, -1.0, 0.7])
    here = make_problem(VelocityModel(velocity, spacing), 3.0, source, thickness=0.3)
    there = make_problem(
        VelocityModel(velocity, spacing, origin), 3.0, source + origin, thickness=0.3
    )
    lattice = lattices.make_lattice(here, 1.0, 5)
    first, second = solution_of(here, lattice), solution_of(there, lattice)
    chex.assert_shape(first.fields, (1, *shape))
    np.testing.assert_allclose(
        first.fields, second.fields, atol=1e-8 * np.abs(first.fields).max()
    )
    points = here.model.grid_points()[::7] + origin
    off_grid = lattices.evaluate(there, lattice, second.weights, points)
    np.testing.assert_allclose(
        off_grid[0],
        first.fields.ravel()[::7],
        atol=1e-8 * np.abs(first.fields).max(),
    )


def test_homogeneous_model_scatters_nothing():
    problem = make_problem(cube(2), FREQUENCY, SOURCE)
    solution = solution_of(problem, lattices.make_lattice(problem, 1.1))
    np.testing.assert_allclose(solution.fields, 0.0, atol=1e-14)
    assert np.all(solution.error_estimate < 1e-3)


@pytest.mark.parametrize("quality", [None, 30.0])
def test_gradient_to_the_velocity(quality):
    """By the adjoint, of a misfit at receivers, against central differences."""
    model = gradient_model(count=6, spacing=0.12).replace_quality(quality)
    source = np.array([0.2, 0.03])
    problem = make_problem(model, 4.0, source, background_velocity=2.0, thickness=0.3)
    lattice = lattices.make_lattice(problem, 1.3)
    receivers = np.array([[0.1, 0.5], [0.33, 0.52], [0.55, 0.1]])
    observed = jnp.array([[0.1 - 0.05j, 0.02j, -0.03], [0.0, -0.01j, 0.02]])
    data = lattices.data_function(
        problem,
        lattice,
        np.array([source, [0.5, 0.1]]),
        np.array([2.0, 2.0]),
        receivers,
        1e-10,
    )

    @jax.jit
    def misfit(velocity):
        slowness = model.replace_velocity(velocity).squared_slowness
        return jnp.sum(jnp.abs(data(slowness) - observed) ** 2)

    velocity = jnp.asarray(model.velocity)
    gradient = jax.jit(jax.grad(misfit))(velocity)
    chex.assert_shape(gradient, (6, 6))
    for direction in np.random.default_rng(0).normal(size=(3, 6, 6)):
        one, two = (
            (misfit(velocity + h * direction) - misfit(velocity - h * direction)) / (2 * h)
            for h in (1e-4, 2e-4)
        )
        # Extrapolated to steps of zero length.
        np.testing.assert_allclose(
            np.sum(gradient * direction), (4 * one - two) / 3, rtol=1e-6
        )


def test_envelope_is_separable_over_the_axes():
    """What evaluation on a grid relies on."""
    layer = absorbing.make_layer((0, 0, 0), (1, 1, 1), 0.3, 2.0)
    point = np.array([[1.2, -0.1, 1.25]])
    whole = absorbing.envelope(layer, point, 2.0)[0][0]
    lines = np.where(np.eye(3, dtype=bool), point, 0.0)
    parts = absorbing.envelope(layer, lines, 2.0)[0]
    np.testing.assert_allclose(whole, np.prod(parts), rtol=1e-12)
