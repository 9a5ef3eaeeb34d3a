"""Finite differences against exact solutions of every kind, and their symmetries."""

import functools

import chex
import numpy as np
import pytest

import meta_lrpinn as ml
from meta_lrpinn.linear import stencils
from meta_lrpinn.metrics import relative_l2
from meta_lrpinn.physics.velocity import VelocityModel
from meta_lrpinn.reference import (
    analytic,
    depth_profile,
    factorise,
    grids,
    layered_medium,
)


def along_x(velocity, count, spacing):
    """A model v(z) of so many columns."""
    column = np.asarray(velocity, float)[:, None]
    return VelocityModel(np.repeat(column, count, axis=1), spacing)


# On one grid, unless a tolerance is asked for.
reference_wavefield = functools.partial(ml.reference_wavefield, tolerance=None)
Z = np.arange(41) / 40
GRADIENT = 1.5 + 1.5 * Z
# Model, frequency and source.
CASES = {
    "half-spaces": (along_x(np.where(Z < 0.499, 1.5, 3.0), 61, 0.025), 6.0, (0.7, 0.05)),
    "guide": (
        along_x(np.where(abs(Z - 0.5) < 0.11, 1.5, 4.5), 61, 0.025), 6.0, (0.7, 0.05)
    ),
    "source in the guide": (
        along_x(np.where(abs(Z - 0.5) < 0.11, 1.5, 4.5), 61, 0.025), 6.0, (0.7, 0.5)
    ),
    "thin layer": (
        along_x(np.where(abs(Z - 0.5) < 0.01, 2.0, 4.0), 61, 0.025), 6.0, (0.7, 0.05)
    ),
    "long and flat": (along_x(GRADIENT[::2], 201, 0.025), 5.0, (0.2, 0.05)),
    "long, little contrast": (along_x(2 + 0.2 * Z[::2], 201, 0.025), 5.0, (0.2, 0.05)),
    "wavelength of 2.5 models": (along_x(GRADIENT, 41, 0.025), 0.9, (0.5, 0.05)),
    "wavelength of 50 models": (along_x(GRADIENT, 41, 0.025), 0.045, (0.5, 0.05)),
    "wavelength of 1e3 models": (along_x(GRADIENT, 41, 0.025), 2.25e-3, (0.5, 0.05)),
    "60 by 20 m": (along_x(0.3 + 0.3 * Z[::2], 61, 0.001), 60.0, (0.03, 0.002)),
    "2 mm": (along_x(GRADIENT, 41, 5e-8), 1.5e6, (1e-6, 1e-7)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_error_and_estimate(name):
    """A tenth of a per cent everywhere, and the estimate within a factor of three."""
    model, frequency, source = CASES[name]
    exact = layered_medium(
        model.grid_points(), frequency, np.array(source), *depth_profile(model)
    )
    field = reference_wavefield(model, frequency, source, tolerance=3e-3)
    error = relative_l2(field.scattered, exact.reshape(model.shape))
    assert error < 1e-3
    assert error / 3 < field.error_estimate < 3 * error
    assert field.converged and field.history[-1]["converged"]


@pytest.mark.parametrize(("inside", "largest"), [(1.5, 0.021), (3.0, 0.015), (4.5, 0.016)])
def test_a_drawn_cylinder(inside, largest):
    """Values at the nodes: of three radii the one that was drawn fits best."""
    centre, source = np.array([1.003, 1.004]), np.array([1.0, 0.3])
    grid = VelocityModel(np.ones((201, 201)), 0.01)
    distance = np.linalg.norm(grid.grid_points() - centre, axis=1).reshape(grid.shape)
    model = VelocityModel(np.where(distance <= 0.3, inside, 2.0), 0.01)
    field = reference_wavefield(model, 10.0, source, tolerance=None).scattered
    exact = [
        analytic.circular_inclusion(
            grid.grid_points(), 10.0, source, centre, radius, inside, 2.0
        ).reshape(grid.shape)
        for radius in (0.297, 0.3, 0.303)
    ]
    thinner, true, thicker = (relative_l2(field, wave) for wave in exact)
    assert true < largest and true < thinner and true < thicker


def test_smaller_tolerances_give_smaller_errors():
    model, frequency, source = CASES["half-spaces"]
    exact = layered_medium(
        model.grid_points(), frequency, np.array(source), *depth_profile(model)
    )
    for tolerance in (1e-2, 1e-4):
        field = reference_wavefield(model, frequency, source, tolerance=tolerance)
        error = relative_l2(field.scattered, exact.reshape(model.shape))
        assert error < tolerance and field.error_estimate < tolerance


def test_three_dimensions():
    z = np.arange(11) * 0.05
    velocity = np.broadcast_to((1.6 + 1.2 * z)[:, None, None], (11, 13, 13))
    model, source = VelocityModel(velocity.copy(), 0.05), np.array([0.2, 0.3, 0.05])
    exact = layered_medium(model.grid_points(), 4.0, source, *depth_profile(model))
    field = reference_wavefield(model, 4.0, source)
    assert relative_l2(field.scattered, exact.reshape(model.shape)) < 2e-3


@pytest.mark.parametrize("ndim", [2, 3])
def test_another_background_is_a_closed_form_away(ndim):
    """A homogeneous model scatters nothing of its own; elsewhere u₀ + δu stays."""
    model = VelocityModel(np.full((7,) * ndim, 2.0), 0.05)
    source = np.array([0.1, 0.2, 0.05])[-ndim:]  # a node
    field = reference_wavefield(model, 5.0, source, background_velocity=1.9)
    exact = analytic.shifted_background(model.grid_points(), 5.0, source, 2.0, 1.9)
    np.testing.assert_allclose(field.scattered.ravel(), exact, atol=1e-12)
    varied = along_x(np.linspace(1.5, 3.0, 7), 7, 0.05) if ndim == 2 else model
    one, other = (
        reference_wavefield(varied, 5.0, source, background_velocity=v0).total
        for v0 in (1.7, 2.6)
    )
    assert relative_l2(one, other) < 1e-10


@pytest.mark.parametrize("scale", [1e-6, 1e3])
@pytest.mark.parametrize("tolerance", [None, 3e-3])
def test_scale(scale, tolerance):
    """Lengths times s and frequency over s: the same field, the same estimate."""
    model, frequency, source = rough_model(), 5.0, np.array([0.2, 0.1])
    field = reference_wavefield(model, frequency, source, tolerance=tolerance)
    scaled = reference_wavefield(
        VelocityModel(model.velocity, scale * model.spacing[0]),
        frequency / scale,
        scale * source,
        tolerance=tolerance,
    )
    assert relative_l2(scaled.scattered, field.scattered) < 1e-10
    assert relative_l2(scaled.background, field.background) < 1e-10
    if tolerance is not None:
        assert scaled.error_estimate == pytest.approx(field.error_estimate, rel=1e-6)
        assert len(scaled.history) == len(field.history)


def rough_model():
    velocity = np.random.default_rng(0).uniform(1.5, 3.0, (17, 21))
    return VelocityModel(velocity, 0.05)


def test_mirror_symmetry():
    model = rough_model()
    field = reference_wavefield(model, 5.0, (0.3, 0.1), refinement=2)
    for axes, source in (((1,), (0.7, 0.1)), ((0,), (0.3, 0.7)), ((0, 1), (0.7, 0.7))):
        mirrored = model.replace_velocity(np.flip(model.velocity, axes))
        other = reference_wavefield(mirrored, 5.0, source, refinement=2)
        assert relative_l2(np.flip(other.scattered, axes), field.scattered) < 1e-10


def test_superposition_and_conjugation():
    """Linear in the amplitude; its conjugate is not the conjugate field."""
    model, source = rough_model(), (0.3, 0.1)
    unit, rotated = (
        reference_wavefield(model, 5.0, source, amplitude=a, refinement=1).scattered
        for a in (0.25j, 3 - 0.25j)
    )
    assert relative_l2(rotated, unit * (3 - 0.25j) / 0.25j) < 1e-12
    incoming = reference_wavefield(
        model, 5.0, source, amplitude=-0.25j, refinement=1
    ).scattered
    assert relative_l2(incoming, -unit) < 1e-12
    assert relative_l2(incoming, np.conj(unit)) > 0.5


def test_reciprocity_at_low_frequency_and_grazing():
    for name in ("long and flat", "wavelength of 50 models"):
        model, frequency, source = CASES[name]
        far = (model.upper[0] - 0.2, 0.45)
        total = reference_wavefield(
            model, frequency, np.array([source, far]), tolerance=1e-3
        )
        there = total.at(np.array([far]), "total")[0, 0]
        back = total.at(np.array([source]), "total")[1, 0]
        assert abs(there - back) < 1e-3 * abs(there), name


@pytest.mark.parametrize("growth", [0.2, 0.4])
def test_layers_of_complex_steps_are_of_fourth_order(growth):
    """What a layer of one axis reflects falls with the fourth power of the step."""
    wavenumber, step = 2 * np.pi, 0.1
    layer = grids.GradedLayer(extent=30.0, growth=growth)
    model = VelocityModel(np.full((3, 3), 1.0), step)
    for cosine in (1.0, 0.5, 0.2, -0.5j):  # a wave at an angle, or an evanescent one
        reflected = []
        for refinement in (2, 4):
            lines = grids.grid_lines(model, refinement, layer, wavenumber)[0]
            axis = stencils.make_axis(
                lines.positions, lines.stretched, 4, step / refinement
            )
            operator = axis.second + (cosine * wavenumber) ** 2 * axis.mass
            reflected.append(reflection(operator, cosine * wavenumber * axis.step))
        assert reflected[0] < 1e-4
        assert reflected[1] < reflected[0] / 10 or reflected[1] < 1e-8


def reflection(operator, phase):
    """|R| at the upper end of the model, of a wave that leaves through the layer."""
    ratio = 0.0  # of the next line's value to this one's
    middle = len(operator) // 2
    for lower, own, upper in operator[:middle:-1]:
        ratio = -lower / (own + upper * ratio)
    lower, own, upper = operator[middle]
    roots = np.roots([upper, own, lower])
    out = roots[np.argmin(abs(roots - np.exp(-1j * phase)))]
    return abs((out - ratio) / (ratio - 1 / out))


def test_estimate_of_what_does_not_converge():
    """Above the tolerance, and said in the history."""
    model, frequency, source = CASES["guide"]
    field = reference_wavefield(
        model, frequency, source, tolerance=1e-6, maximum_refinement=2
    )
    assert field.converged is False and field.history[-1]["converged"] is False
    assert field.error_estimate > 1e-6


def test_every_source_has_its_estimate():
    model, frequency, source = CASES["half-spaces"]
    sources = np.array([source, (0.7, 0.9)])
    field = reference_wavefield(model, frequency, sources, tolerance=3e-3)
    estimates = []
    for place in sources:
        exact = layered_medium(model.grid_points(), frequency, place, *depth_profile(model))
        estimates.append(exact.reshape(model.shape))
    errors = [relative_l2(a, b) for a, b in zip(field.scattered, estimates, strict=True)]
    chex.assert_shape(field.error_estimates, (2,))
    np.testing.assert_array_less(field.error_estimates / 3, errors)
    np.testing.assert_array_less(errors, 3 * field.error_estimates)


def test_a_thickness_is_enlarged_by_the_tolerance():
    model, frequency, source = CASES["half-spaces"]
    exact = layered_medium(
        model.grid_points(), frequency, np.array(source), *depth_profile(model)
    ).reshape(model.shape)
    options = {"thickness": 0.05, "reflection": 0.05}
    thin = reference_wavefield(model, frequency, source, refinement=2, **options)
    field = reference_wavefield(model, frequency, source, tolerance=3e-3, **options)
    assert relative_l2(thin.scattered, exact) > 0.01
    assert relative_l2(field.scattered, exact) < 3e-3
    assert field.history[-1]["layer"] > 0


UNKNOWNS = r"need .* unknowns and about .* GiB, .* is the spacing in metres, not km\?$"


@pytest.mark.parametrize(
    ("ndim", "spacing", "frequency", "options", "message"),
    [
        (2, 25.0, 5.0, {}, UNKNOWNS),
        (2, 25.0, 5.0, {"tolerance": 1e-3}, UNKNOWNS),
        (2, 0.025, 1e300, {}, "is the frequency in Hz"),
        (2, 0.025, 1e-300, {}, "is the frequency in Hz"),
        (2, 0.025, 5.0, {"thickness": 1e6}, "is it in metres"),
        (2, 0.025, 5.0, {"refinement": 2**31}, "refinement must be at most"),
        (3, 25.0, 5.0, {}, UNKNOWNS),
    ],
)
def test_sizes_are_refused_before_anything_is_built(
    ndim, spacing, frequency, options, message
):
    model = VelocityModel(np.linspace(1.5, 3.0, 11**ndim).reshape((11,) * ndim), spacing)
    with pytest.raises(ValueError, match=message) as caught:
        reference_wavefield(model, frequency, (0.1 * spacing,) * ndim, **options)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize("shape", [(60, 60), (20, 200), (15, 15, 15)])
def test_entries_of_the_factors_are_foreseen(shape):
    model = VelocityModel(np.full(shape, 2.0), 0.05)
    solver = factorise(model, 3.0, refinement=1)
    assert solver.shape == grids.grid_shape(
        model, 1, grids.graded_layer(model, 3.0, refinement=1)
    )
    true = solver.inverse.factors.L.nnz + solver.inverse.factors.U.nnz
    assert 0.8 < stencils.factor_entries(solver.shape) / true < 1.25
