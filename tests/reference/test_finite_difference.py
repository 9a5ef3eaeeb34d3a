"""Reference solver: exact solutions, measured order, published fields."""

import functools

import chex
import numpy as np
import pytest

import meta_lrpinn as ml
from meta_lrpinn.linear import interpolation, stencils
from meta_lrpinn.metrics import relative_l2
from meta_lrpinn.physics import absorbing
from meta_lrpinn.physics.velocity import VelocityModel
from meta_lrpinn.reference import analytic, factorised, grids
from meta_lrpinn.reference.factorised import factorise

SOURCE = np.array([0.3, 0.05])
# On one grid, unless a tolerance is asked for.
reference_wavefield = functools.partial(ml.reference_wavefield, tolerance=None)


def gaussian_model(count=21, ndim=2):
    """One square (cubic) kilometre, 2 km/s with a smooth fast body off its middle."""
    spacing = 1.0 / (count - 1)
    grid = VelocityModel(np.full((count,) * ndim, 2.0), spacing)
    distance = np.linalg.norm(grid.grid_points() - 0.55, axis=1)
    bump = np.exp(-((distance / 0.2) ** 2))
    return grid.replace_velocity((2.0 + bump).reshape(grid.shape))


def round_model(centre, radius, inside, outside, count, samples):
    """Inclusion in the unit box; every node has the mean 1/v² of its own cell."""
    ndim = len(centre)
    spacing = 1.0 / (count - 1)
    within = (np.arange(samples) + 0.5) / samples - 0.5
    axis = ((np.arange(count)[:, None] + within) * spacing).ravel()
    place = np.meshgrid(*[axis] * ndim, indexing="ij")
    squared = sum((x - c) ** 2 for x, c in zip(place, centre[::-1], strict=True))
    slowness = np.where(squared < radius**2, inside**-2.0, outside**-2.0)
    slowness = slowness.reshape((count, samples) * ndim)
    mean = slowness.mean(axis=tuple(range(1, 2 * ndim, 2)))
    return VelocityModel(mean**-0.5, spacing)


def solved(model, frequency, source, **options):
    return reference_wavefield(model, frequency, source, **options).scattered


@pytest.mark.parametrize(("order", "lowest", "highest"), [(4, 3.8, 4.3), (2, 1.8, 2.2)])
def test_measured_order(order, lowest, highest):
    model = gaussian_model()
    fields = [
        solved(model, 6.0, SOURCE, refinement=r, scheme_order=order) for r in (2, 4, 8)
    ]
    changes = [np.linalg.norm(b - a) for a, b in zip(fields, fields[1:], strict=False)]
    assert lowest < np.log2(changes[0] / changes[1]) < highest


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize(("is_corrected", "order"), [(False, 4), (True, 6)])
def test_plane_waves_obey_the_stencils(ndim, is_corrected, order):
    """In a homogeneous medium the correction leaves a sixth-order phase error."""
    direction = np.array([0.3, 0.5, -0.8])[:ndim]
    direction /= np.linalg.norm(direction)
    k = 12.0

    def residual(step):
        nodes = step * np.arange(-1, 2)
        axes = [stencils.make_axis(nodes, nodes + 0j, 4, step)] * ndim
        operator = stencils.laplacian(axes)
        operator = operator + k**2 * stencils.outer([a.mass for a in axes])
        if is_corrected:
            operator = operator + stencils.dispersion_correction(
                axes, np.full((1,) * ndim, k)
            )
        wave = stencils.outer([np.exp(-1j * k * c * nodes) for c in direction])
        return abs(np.sum(operator.reshape((3,) * ndim) * wave)) / step**ndim

    assert abs(np.log2(residual(0.04) / residual(0.02)) - order) < 0.3


def test_order_four_beats_order_two():
    model = gaussian_model()
    truth = solved(model, 6.0, SOURCE, refinement=5)
    errors = [
        relative_l2(solved(model, 6.0, SOURCE, refinement=2, scheme_order=order), truth)
        for order in (4, 2)
    ]
    assert errors[0] < 5e-4 and errors[0] < 0.02 * errors[1]


@pytest.mark.parametrize(("ndim", "count", "tolerance"), [(2, 51, 3e-3), (3, 17, 2e-2)])
def test_shifted_background(ndim, count, tolerance):
    """δu = u₀(v) − u₀(v₀) everywhere, with the default fundamental amplitude."""
    model = VelocityModel(np.full((count,) * ndim, 2.0), 1 / (count - 1))
    source = np.array([0.41, 0.33, 0.213])[-ndim:]
    frequency = {2: 6.0, 3: 3.0}[ndim]
    field = solved(model, frequency, source, background_velocity=2.3, refinement=1)
    chex.assert_shape(field, model.shape)
    exact = analytic.shifted_background(
        model.grid_points(), frequency, source, 2.0, 2.3
    ).reshape(model.shape)
    assert relative_l2(field, exact) < tolerance
    assert relative_l2(np.conj(field), exact) > 0.5


def test_circular_inclusion():
    """The sharp edge is smeared over a cell; the error falls with the cell."""
    centre, radius = (0.6, 0.6), 0.2
    errors = []
    for count in (31, 61):
        model = round_model(centre, radius, 2.6, 2.0, count, samples=8)
        exact = analytic.circular_inclusion(
            model.grid_points(), 6.0, SOURCE, centre, radius, 2.6, 2.0
        )
        field = solved(model, 6.0, SOURCE)
        errors.append(relative_l2(field, exact.reshape(model.shape)))
    assert errors[1] < 0.02 and errors[1] < 0.6 * errors[0]


def test_spherical_inclusion():
    centre, radius, source = (0.55, 0.5, 0.6), 0.25, np.array([0.3, 0.45, 0.1])
    model = round_model(centre, radius, 2.6, 2.0, count=17, samples=5)
    field = solved(model, 3.0, source, thickness=0.25, refinement=1)
    exact = analytic.spherical_inclusion(
        model.grid_points(), 3.0, source, centre, radius, 2.6, 2.0
    )
    assert relative_l2(field, exact.reshape(model.shape)) < 0.08


def test_several_sources_are_each_source_alone():
    model = gaussian_model()
    sources = np.array([[0.3, 0.05], [0.7, 0.4], [0.5, 0.9]])
    together = reference_wavefield(model, 5.0, sources)
    chex.assert_shape(together.scattered, (3, *model.shape))
    chex.assert_shape(together.background, (3, *model.shape))
    points = np.array([[0.2, 0.3], [0.81, 0.77]])
    chex.assert_shape(together.at(points), (3, 2))
    for index, source in enumerate(sources):
        alone = reference_wavefield(model, 5.0, source)
        chex.assert_trees_all_close(
            together.scattered[index], alone.scattered, rtol=1e-9, atol=1e-12
        )
        chex.assert_trees_all_close(
            together.background[index], alone.background, rtol=1e-12
        )
        chex.assert_trees_all_close(together.at(points)[index], alone.at(points), rtol=1e-8)


def test_reciprocity():
    """u(A from B) = u(B from A), though v₀ and hence u₀ differ at A and B."""
    model = gaussian_model()
    nodes = (3, 2), (12, 14)  # array order
    sources = [np.array(node[::-1]) * model.spacing[0] for node in nodes]
    total = reference_wavefield(model, 6.0, np.stack(sources), refinement=3).total
    there, back = total[0][nodes[1]], total[1][nodes[0]]
    assert abs(there - back) < 1e-3 * abs(there)
    assert abs(there) > 0.01


def test_amplitude_is_a_factor():
    model = gaussian_model()
    unit = reference_wavefield(model, 5.0, SOURCE)
    scaled = reference_wavefield(model, 5.0, SOURCE, amplitude=1.925j)
    chex.assert_trees_all_close(scaled.scattered, 7.7 * unit.scattered, rtol=1e-10)
    chex.assert_trees_all_close(scaled.background, 7.7 * unit.background, rtol=1e-10)


def test_layer_absorbs():
    """The default layer against one of thrice the thickness, and one that is thin."""
    model = gaussian_model()
    default = solved(model, 4.0, SOURCE, refinement=2)
    thick = solved(model, 4.0, SOURCE, refinement=2, thickness=1.2, reflection=1e-7)
    thin = solved(model, 4.0, SOURCE, refinement=2, thickness=0.03)
    assert relative_l2(default, thick) < 2e-4
    assert relative_l2(thin, thick) > 1e-2


def test_unequal_spacing_and_origin():
    """The same medium on another grid at another place gives the same field."""
    model = VelocityModel(np.full((26, 41), 2.0), spacing=(0.04, 0.025), origin=(-3.0, 1.0))
    source = np.array([-2.59, 1.213])
    field = solved(model, 5.0, source, background_velocity=2.3, refinement=2)
    exact = analytic.shifted_background(model.grid_points(), 5.0, source, 2.0, 2.3)
    assert relative_l2(field, exact.reshape(model.shape)) < 2e-3


def test_refinement_follows_the_wavelength():
    model = gaussian_model()  # 0.05 km, 2 km/s and more
    assert grids.refinement_for(model, 4.0) == 1
    assert grids.refinement_for(model, 4.1) == 2
    record = reference_wavefield(model, 8.0, SOURCE).history[-1]
    assert record["refinement"] == 2
    assert record["points_per_wavelength"] == pytest.approx(10.0, rel=1e-3)


def test_tolerance_refines_until_it_is_met():
    model = gaussian_model()
    field = reference_wavefield(model, 6.0, SOURCE, tolerance=1e-3)
    changes = [record["change"] for record in field.history[1:]]
    assert changes[-1] < 1e-3
    assert all(change >= 1e-3 for change in changes[:-1])
    truth = solved(model, 6.0, SOURCE, refinement=6)
    error = relative_l2(field.scattered, truth)
    assert error < 1e-3
    assert error / 4 < field.error_estimate < 4 * error
    capped = reference_wavefield(model, 6.0, SOURCE, tolerance=1e-6, maximum_refinement=2)
    assert [record["refinement"] for record in capped.history] == [1, 2]
    assert capped.error_estimate > 1e-9


def test_off_grid_values():
    """At nodes the field itself; between them the field of a finer model grid."""
    model = gaussian_model()
    field = reference_wavefield(model, 5.0, SOURCE, refinement=2)
    at_nodes = field.at(model.grid_points()).reshape(model.shape)
    chex.assert_trees_all_close(at_nodes, field.scattered, rtol=1e-9, atol=1e-12)
    fine = VelocityModel(
        np.asarray(model.at(model.resampled(0.025).grid_points()), float).reshape(41, 41),
        0.025,
    )
    chex.assert_trees_all_close(
        field.at(fine.grid_points()).reshape(fine.shape),
        solved(fine, 5.0, SOURCE, refinement=1),
        atol=2e-3 * np.max(np.abs(field.scattered)),
    )
    with pytest.raises(ValueError, match="lies outside the model"):
        field.at(np.array([[0.5, 0.5], [0.5, 1.5]]))


def test_squared_slowness_is_that_of_the_model():
    model = gaussian_model()
    x, z = np.linspace(-0.3, 1.2, 37), np.linspace(-0.1, 1.4, 23)
    points = np.stack(np.meshgrid(x, z), axis=-1)
    chex.assert_trees_all_close(
        interpolation.squared_slowness_on(model, (z, x)),
        np.asarray(model.squared_slowness_at(points), float),
        rtol=1e-5,
    )


def test_homogeneous_model_scatters_nothing():
    model = VelocityModel(np.full((11, 11), 2.0), 0.05)
    field = reference_wavefield(model, 5.0, (0.2, 0.2), tolerance=1e-3)
    assert not np.any(field.scattered)


def test_solver_is_shared_by_sources():
    model = gaussian_model()
    solver = factorise(model, 5.0)
    field = solver.on_model_grid(solver.solve(SOURCE, 0.25j, 2.0))
    expected = solved(model, 5.0, SOURCE, background_velocity=2.0)
    chex.assert_trees_all_close(field, expected, rtol=1e-12)


def layer_of(model, thickness, velocity, reflection=factorised.REFLECTION):
    return absorbing.make_layer(model.lower, model.upper, thickness, velocity, reflection)


def solution(solver):
    return solver.solve(SOURCE, 0.25j, 2.0)


def test_a_given_layer_is_that_of_its_thickness_and_reflection():
    model = gaussian_model()
    built = factorise(model, 5.0, layer=factorised.make_layer(model, 5.0, 1, 0.23, 1e-3))
    given = factorise(model, 5.0, layer=layer_of(model, 0.23, model.maximum, 1e-3))
    assert given.margins == built.margins and given.shape == built.shape
    chex.assert_trees_all_close(solution(given), solution(built), rtol=1e-10)
    weak = factorise(model, 5.0, layer=layer_of(model, 0.23, 1e-3))
    assert weak.shape == built.shape
    fields = [solver.on_model_grid(solution(solver)) for solver in (weak, built)]
    assert relative_l2(*fields) > 0.05


def test_fields_of_the_layer_are_stretched_waves():
    """Exact: the shifted background at complex distances."""
    model = VelocityModel(np.full((41, 41), 2.0), 0.025)
    layer = layer_of(model, 0.4, 2.0, 1e-6)
    solver = factorise(model, 5.0, layer=layer, refinement=1)
    field = solver.solve(SOURCE, 0.25j, 2.3)
    points = np.random.default_rng(0).uniform(-0.4, 1.4, (400, 2))
    got = solver.interpolate(field, points, layer=True)
    beyond = np.maximum(points - 1, 0) + np.minimum(points, 0)
    omega = 2 * np.pi * 5.0
    integral = layer.strength * beyond**3 / (3 * 0.4**2)
    offset = points - SOURCE - 1j * integral / omega
    exact = analytic.point_source(offset, omega / 2.0, 0.25j) - analytic.point_source(
        offset, omega / 2.3, 0.25j
    )
    depth = np.max(np.abs(beyond), axis=1)
    inner = (depth > 0) & (depth < 0.2)
    # Grazing waves are not quite gone at the outer edge, where the grid ends.
    for where, tolerance in ((depth == 0, 1e-3), (inner, 1e-3), (depth >= 0.2, 0.02)):
        assert np.count_nonzero(where) > 50
        assert relative_l2(got[where], exact[where]) < tolerance


def test_points_of_the_layer_are_accepted_on_request_only():
    model = gaussian_model()
    solver = factorise(
        model, 5.0, refinement=2, layer=factorised.make_layer(model, 5.0, 2, 0.2)
    )
    field = solution(solver)
    z, x = (axis.positions for axis in solver.axes)
    edge, node = np.array([[-0.2, 0.5], [1.2, 1.2]]), np.array([[x[3], z[4]]])
    assert np.all(node < 0)  # in the layer
    got = solver.interpolate(field, node, layer=True)
    np.testing.assert_allclose(got, field[4, 3], rtol=1e-8)
    assert np.all(np.isfinite(solver.interpolate(field, edge, layer=True)))
    with pytest.raises(ValueError, match="2 of 2 points lie outside the model$"):
        solver.interpolate(field, edge)
    with pytest.raises(ValueError, match="1 of 3 points .* the model and its layer$"):
        solver.interpolate(field, np.vstack([edge, [[0.5, 1.23]]]), layer=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frequency": -3.0}, "frequency must be positive, got -3.0 Hz"),
        ({"source": (2.0, 0.5)}, r"source \(2.0, 0.5\) lies outside the model"),
        ({"source": (0.1, 0.2, 0.3)}, "source must have 2 coordinates"),
        ({"refinement": 0}, "refinement must be positive, got 0"),
        ({"scheme_order": 3}, "order must be 2 or 4, got 3"),
        ({"tolerance": 0.0}, "tolerance must be positive, got 0.0"),
        ({"thickness": 0.0}, "absorbing layer thickness must be positive, got 0.0 km"),
        ({"background_velocity": -1.0}, "background velocity must be positive"),
        ({"background_velocity": [1.0, 2.0]}, "background velocity must be one number"),
        ({"reflection": 2.0}, "reflection must lie between 0 and 1"),
    ],
)
def test_bad_arguments(changes, message):
    arguments = {"frequency": 5.0, "source": SOURCE, **changes}
    with pytest.raises(ValueError, match=message):
        reference_wavefield(gaussian_model(11), **arguments)


def test_published_layered_field(data_dir):
    case = np.load(data_dir / "layered_5hz.npz")
    field = solved(
        VelocityModel(case["velocity"], float(case["spacing"])),
        float(case["frequency"]),
        case["source"],
        amplitude=complex(case["amplitude"]),
        background_velocity=float(case["v0"]),
        refinement=2,
    )
    assert relative_l2(field, case["scattered"]) < 0.02


def test_published_nine_sources(data_dir):
    case = np.load(data_dir / "layered_4hz_9sources.npz")
    sources = np.stack(np.broadcast_arrays(case["source_x"], case["source_z"]), axis=-1)
    field = solved(
        VelocityModel(case["velocity"], float(case["spacing"])),
        float(case["frequency"]),
        sources,
        amplitude=complex(case["amplitude"]),
        background_velocity=float(case["v0"]),
        refinement=2,
    )
    errors = [
        relative_l2(ours, theirs)
        for ours, theirs in zip(field, case["scattered"], strict=True)
    ]
    assert len(errors) == 9 and max(errors) < 0.025
