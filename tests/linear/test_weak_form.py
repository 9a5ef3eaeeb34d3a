"""The weak form over any features, against the lattice's and plain NumPy."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import meta_lrpinn as ml
from experiments import random_waves
from meta_lrpinn import models
from meta_lrpinn.learning import output_layer
from meta_lrpinn.linear import lattice as lattices
from meta_lrpinn.linear import weak_form
from meta_lrpinn.metrics import relative_l2
from meta_lrpinn.physics import problem as problems
from meta_lrpinn.physics.problem import make_problem
from meta_lrpinn.physics.velocity import VelocityModel

FREQUENCY, SOURCE = 4.0, np.array([0.3, 0.1])


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def problem():
    depth = np.linspace(1.6, 2.6, 9)[:, None]
    model = VelocityModel(np.array(np.broadcast_to(depth, (9, 9))), 0.1)
    return make_problem(model, FREQUENCY, SOURCE, thickness=0.4)


def test_quadrature_points(problem):
    points = np.asarray(weak_form.quadrature_points(problem, (4, 8)))
    chex.assert_shape(points, (32, 2))
    # Cells of 0.4 by 0.2 km over −0.4 to 1.2 km; the last coordinate runs fastest.
    np.testing.assert_allclose(points[0], [-0.2, -0.3], atol=1e-12)
    np.testing.assert_allclose(points[1], [-0.2, -0.1], atol=1e-12)
    np.testing.assert_allclose(points[-1], [1.0, 1.1], atol=1e-12)
    np.testing.assert_allclose(points.mean(0), 0.4, atol=1e-12)
    shifted = weak_form.quadrature_points(problem, (4, 8), jnp.array([0.0, 1.0]))
    np.testing.assert_allclose(shifted[0], [-0.4, -0.2], atol=1e-12)


def test_quadrature_shape_counts_points_per_shortest_wavelength(problem):
    # 1.6 km of wavelengths of 0.4 km.
    assert weak_form.quadrature_shape(problem, 5.9) == (24, 24)
    assert weak_form.quadrature_shape(problem, 6.1, 625) == (25, 25)
    assert weak_form.quadrature_shape(problem, 6.1, 2400) == (49, 49)


@pytest.fixture(scope="module")
def rough():
    """A velocity that changes from each point of its grid to the next."""
    velocity = np.random.default_rng(3).uniform(1.6, 2.6, (25, 25))
    return make_problem(VelocityModel(velocity, 0.04), FREQUENCY, SOURCE, thickness=0.3)


def test_refinement_resolves_the_velocity_grid(rough):
    # Cells of 0.08 and 0.04 km, of 0.06: at most 0.02, and never fewer than two parts.
    assert weak_form.refinement_of(rough, (20, 40)) == (4, 2)
    assert weak_form.refinement_of(rough, (160, 160)) == (2, 2)


@pytest.mark.parametrize("shift", [0.5, 0.1])
def test_integrals_on_the_grid_are_those_of_the_finer_grid(rough, shift):
    """Of slowness and source times any Fourier component that the grid can hold."""
    shape, refinement = (12, 9), (3, 4)
    points = weak_form.quadrature_points(rough, shape, shift)
    coarse = weak_form.collocate_grid(rough, shape, refinement, shift)
    np.testing.assert_allclose(coarse.points, points)
    fine_points = weak_form.quadrature_points(rough, (36, 36))
    finest = weak_form.quadrature_points(rough, (144, 144))
    blocks = np.asarray(rough.model.squared_slowness_at(finest)).reshape(36, 4, 36, 4)
    fine = problems.collocate(rough, fine_points)
    slowness = jnp.asarray(blocks.mean(axis=(1, 3)).ravel())
    fine = fine.replace(
        squared_slowness=slowness,
        scattering_source=problems.scattering_source_at(rough, fine_points, slowness),
    )
    size, lower = rough.upper - rough.lower, rough.lower
    for modes in [(0, 0), (1, -2), (5, 4), (-5, 3)]:

        def mean(values, at, modes=modes):
            phase = 2j * np.pi * ((np.asarray(at) - lower) / size) @ np.array(modes)
            return np.mean(np.asarray(values) * np.exp(phase))

        for name in ("squared_slowness", "scattering_source"):
            found = mean(getattr(coarse, name), coarse.points)
            expected = mean(getattr(fine, name), fine.points)
            np.testing.assert_allclose(found, expected, rtol=1e-9)
    sampled = problems.collocate(rough, points)
    assert np.std(sampled.squared_slowness) > 1.5 * np.std(coarse.squared_slowness)
    np.testing.assert_array_equal(coarse.stretch, sampled.stretch)


@pytest.mark.parametrize("count", [21, 23, 26])
def test_a_layer_of_one_node_keeps_its_thickness(count):
    """However the grid lies to it: the mean of m is that of the model."""
    velocity = np.full((41, 41), 4.0)
    velocity[17] = 2.0
    model = VelocityModel(velocity, 0.025)
    problem = make_problem(model, FREQUENCY, SOURCE, thickness=0.13)
    shape = (count, count)
    refinement = weak_form.refinement_of(problem, shape)
    coarse = weak_form.collocate_grid(problem, shape, refinement)
    finest = weak_form.quadrature_points(problem, (4, 20_000))
    expected = np.mean(model.squared_slowness_at(finest)) - 1 / 16
    np.testing.assert_allclose(
        np.mean(coarse.squared_slowness) - 1 / 16, expected, rtol=0.02
    )


def test_rough_velocities_are_not_aliased(rough, monkeypatch):
    """Random waves come as near to the lattice as their number lets them."""
    largest = 1.6 * float(rough.omega) / 1.6
    params = random_waves.plane_wave_parameters(jax.random.key(0), 220, largest, 2)
    waves = random_waves.PlaneWaves(ndim=2, number=220)
    lattice = lattices.make_lattice(rough, 3.0)
    exact = lattices.solve(
        rough, lattice, SOURCE[None], rough.background_velocity[None]
    ).fields[0]

    def error(refinement):
        chunks = output_layer._in_chunks(rough, (24, 24), refinement, rows=24)
        (weights,) = output_layer._galerkin(waves, params, chunks, rough, (1.0,), True).T
        field = output_layer.FeatureField(waves, params, rough, weights, double=True)
        return relative_l2(field(rough.model.grid_points()).reshape(25, 25), exact)

    resolved = error((4, 4))
    monkeypatch.setattr(weak_form, "_MEAN_POINTS", 1)
    jax.clear_caches()
    sampled = error((1, 1))
    assert resolved < 0.06 and sampled > 4 * resolved


def test_whitening_is_an_orthonormal_basis_of_what_can_be_told_apart():
    rng = np.random.default_rng(2)
    values = rng.normal(size=(50, 6)) * 10.0 ** np.arange(6)
    nearly = values[:, :1] + 1e-7 * rng.normal(size=(50, 1))
    values = np.concatenate([values, nearly], axis=1)
    for cut, rank in ((1e-6, 6), (1e-9, 7)):
        basis = values @ np.asarray(weak_form.whitening(jnp.asarray(values), cut))
        chex.assert_shape(basis, (50, 7))
        expected = np.diag(np.arange(7) < rank).astype(float)
        np.testing.assert_allclose(basis.T @ basis, expected, atol=1e-6)
        # Of the same span.
        left = values - basis @ (basis.T @ values)
        assert np.all(np.linalg.norm(left, axis=0) < 1e-5 * np.linalg.norm(values, axis=0))


@pytest.fixture(scope="module")
def assembled(problem):
    """Matrix, load and samples of some plane waves with the envelope."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        k, b = rng.normal(0, 8, (2, 14)), rng.uniform(-np.pi, np.pi, 14)
        features = weak_form.with_envelope(lambda x: jnp.sin(x @ k + b), problem)
        points = weak_form.quadrature_points(problem, (20, 20))
        cell = 1.6**2 / 400
        samples = weak_form.sample_features(features, points)
        collocation = problems.collocate(problem, points)
        matrix = weak_form.stiffness_matrix(samples, collocation.stretch, cell)
        matrix = matrix + weak_form.mass_matrix(samples.value, collocation, cell)
        load = weak_form.load_vector(samples.value, collocation, cell)
        return features, samples, collocation, cell, np.asarray(matrix), load


def test_slopes_of_the_samples(assembled):
    features, samples, collocation, *_ = assembled
    chex.assert_shape([samples.value, samples.gradient], [(400, 14), (400, 2, 14)])
    for axis in range(2):
        step = 1e-6 * jnp.eye(2)[axis]
        difference = features(collocation.points + step) - features(
            collocation.points - step
        )
        np.testing.assert_allclose(samples.gradient[:, axis], difference / 2e-6, atol=1e-4)


def test_matrix_is_complex_symmetric(assembled):
    matrix = assembled[4]
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-13 * np.abs(matrix).max())
    assert np.abs(matrix - matrix.conj().T).max() > 1e-2 * np.abs(matrix).max()


def test_matrix_and_load_are_the_integrals_of_the_weak_form(assembled):
    _, samples, collocation, cell, matrix, load = assembled
    phi, slope = np.asarray(samples.value), np.asarray(samples.gradient)
    s_x, s_z = np.asarray(collocation.stretch).T
    omega, m = float(collocation.omega), np.asarray(collocation.squared_slowness)
    for i, j in [(0, 0), (3, 7), (7, 3), (13, 2)]:
        density = (
            -(s_z / s_x) * slope[:, 0, i] * slope[:, 0, j]
            - (s_x / s_z) * slope[:, 1, i] * slope[:, 1, j]
            + omega**2 * m * s_x * s_z * phi[:, i] * phi[:, j]
        )
        np.testing.assert_allclose(matrix[i, j], np.sum(density) * cell, rtol=1e-9)
    source = np.asarray(collocation.scattering_source)
    expected = (source * s_x * s_z) @ phi * cell
    np.testing.assert_allclose(load, expected, rtol=1e-9)


def test_solution_does_not_depend_on_the_scale_of_features(assembled):
    _, samples, _, _, matrix, load = assembled
    factor = np.geomspace(1e-3, 1e3, 14)
    norm = np.sqrt(np.sum(np.asarray(samples.value) ** 2, axis=0))
    plain = weak_form.solve_weights(matrix, load, 1 / norm)
    scaled = weak_form.solve_weights(
        factor[:, None] * matrix * factor, factor * load, 1 / (factor * norm)
    )
    np.testing.assert_allclose(factor * scaled, plain, rtol=1e-6)
    np.testing.assert_allclose(matrix @ plain, load, atol=1e-10 * np.abs(load).max())


def test_several_right_hand_sides(assembled):
    _, _, _, _, matrix, load = assembled
    both = weak_form.solve_weights(matrix, jnp.stack([load, 2j * load], 1), jnp.ones(14))
    chex.assert_shape(both, (14, 2))
    np.testing.assert_allclose(both[:, 1], 2j * both[:, 0], rtol=1e-6)


def test_damping_bounds_the_weights_of_dependent_features():
    """Equal features share one weight instead of two infinite ones."""
    matrix = jnp.array([[2.0, 2.0], [2.0, 2.0]], complex)
    load = jnp.array([1.0, 1.0], complex)
    weights = weak_form.solve_weights(matrix, load, jnp.ones(2), damping=1e-8)
    np.testing.assert_allclose(weights, [0.25, 0.25], rtol=1e-6)


@pytest.fixture(scope="module")
def reference(problem):
    return ml.reference_wavefield(problem.model, FREQUENCY, SOURCE, tolerance=2e-3)


def test_random_waves_agree_with_the_lattice_and_finite_differences(problem, reference):
    """Two discretisations of one weak form, by sampling and by FFT."""
    largest = 1.6 * float(problem.omega) / 1.6
    params = random_waves.plane_wave_parameters(jax.random.key(0), 260, largest, 2)
    waves = random_waves.PlaneWaves(ndim=2, number=260)
    weights = output_layer.solve(waves, params, problem, double=True)
    chex.assert_shape(weights, (260,))
    field = output_layer.FeatureField(waves, params, problem, weights, double=True)
    field = field(problem.model.grid_points()).reshape(9, 9)

    lattice = lattices.make_lattice(problem, 2.0)
    on_lattice = lattices.solve(
        problem, lattice, SOURCE[None], problem.background_velocity[None]
    ).fields[0]
    assert relative_l2(field, reference.scattered) < 0.03
    assert relative_l2(field, on_lattice) < 0.03
    # e^{−iωt} would give the complex conjugate.
    assert relative_l2(field.conj(), reference.scattered) > 0.3


def test_chunks_sum_to_the_whole(problem):
    """The number of points sampled at a time changes nothing."""
    params = random_waves.plane_wave_parameters(jax.random.key(0), 12, 15.0, 2)
    waves = random_waves.PlaneWaves(ndim=2, number=12)

    def weights(rows):
        chunks = output_layer._in_chunks(problem, (24, 24), (2, 2), rows)
        chex.assert_shape(chunks.points, (24 // rows, 24 * rows, 2))
        return output_layer._galerkin(waves, params, chunks, problem, (0.5, 1), True)

    with jax.enable_x64(True):
        wide, narrow = weights(24), weights(3)
    np.testing.assert_allclose(narrow, wide, rtol=1e-6)
    assert np.all(wide[6:, 0] == 0) and np.all(wide[:, 1] != 0)


def test_replaced_output_layer_gives_the_solved_field(problem):
    """For both trees: with a hypernetwork beside the network, and without."""
    model = models.make_meta_lrpinn(width=10, depth=1, rank=3)
    params = models.initial_parameters(model, jax.random.key(1))
    rng = np.random.default_rng(0)
    weights = jnp.asarray(rng.normal(size=(10, 2)) @ [1, 1j])
    points = rng.uniform(-0.3, 1.1, (6, 2))
    replaced = output_layer.replace(params, weights)
    solved = output_layer.FeatureField(model, params, problem, weights, True)
    own = output_layer.OwnField(model, replaced, problem)
    np.testing.assert_allclose(own(points), solved(points), atol=1e-5)
    chex.assert_trees_all_equal(replaced["embedding"], params["embedding"])
    plain = output_layer.replace(params["network"], weights)
    chex.assert_trees_all_equal(plain, replaced["network"])


def test_with_envelope_multiplies_every_feature():
    problem = make_problem(VelocityModel(np.full((3, 3), 2.0), 0.5), 4.0, (0.5, 0.5))
    features = weak_form.with_envelope(lambda x: jnp.ones((len(x), 3)), problem)
    value = np.asarray(features(jnp.array([[0.5, 0.5], [1.3, 0.5]])))
    np.testing.assert_array_equal(value[0], 1.0)
    assert np.all(value[1] == value[1, 0]) and 0 < value[1, 0] < 0.9
