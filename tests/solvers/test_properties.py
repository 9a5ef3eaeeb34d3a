"""Symmetries that wavefields of plane waves have, whatever the model.

Those of finite differences stand in tests/reference.
"""

import numpy as np
import pytest

import meta_lrpinn as ml
from meta_lrpinn import generators

FREQUENCY, SOURCE = 4.0, np.array([0.15, 0.1])
BACKGROUND = 1.8  # km/s


def make_model(scale=1.0, mirrored=False):
    """0.5 x 0.6 km of smooth random velocity."""
    velocity = generators.random_velocity(3, (11, 13), 0.05).velocity
    return ml.VelocityModel(velocity[:, ::-1] if mirrored else velocity, 0.05 * scale)


def solved(model, source=SOURCE, frequency=FREQUENCY, **options):
    return ml.solve(model, frequency, source, background_velocity=BACKGROUND, **options)


@pytest.fixture(scope="module")
def field():
    return solved(make_model())


@pytest.mark.parametrize("scale", [1e-6, 1e3])
def test_lengths_and_wavelengths_scale_together(field, scale):
    other = solved(make_model(scale), scale * SOURCE, FREQUENCY / scale)
    assert other.stats.unknowns == field.stats.unknowns
    assert ml.relative_l2(other.background, field.background) < 1e-12
    # Rounding, times the condition of the factored block.
    assert ml.relative_l2(other.scattered, field.scattered) < 1e-5
    assert other.error_estimate == pytest.approx(field.error_estimate, rel=1e-4)


def test_mirrored_model_has_the_mirrored_field(field):
    model = field.model
    source = np.array([model.upper[0] - SOURCE[0], SOURCE[1]])
    other = solved(make_model(mirrored=True), source)
    # The iterations end at a residual, and the order of their sums is another.
    assert ml.relative_l2(other.scattered[:, ::-1], field.scattered) < 1e-3
    assert ml.relative_l2(other.scattered, field.scattered) > 0.1


def test_linear_in_a_complex_amplitude(field):
    """A conjugate amplitude turns phases by a constant; it does not conjugate the field."""
    factor = (3 + 0.25j) / field.amplitude
    other = solved(make_model(), amplitude=3 + 0.25j)
    for name in ("scattered", "background"):
        expected = factor * getattr(field, name)
        assert ml.relative_l2(getattr(other, name), expected) < 1e-6
    conjugate = solved(make_model(), amplitude=np.conj(field.amplitude))
    assert ml.relative_l2(conjugate.scattered, -field.scattered) < 1e-6


def test_sources_do_not_see_each_other_and_change_places_with_receivers(field):
    """δu is reciprocal, as u and u₀ are where v₀ is the same."""
    other = np.array([0.45, 0.35])
    several = solved(make_model(), np.stack([other, SOURCE]))
    # Both stop at a residual, which they reach together.
    assert ml.relative_l2(several.scattered[1], field.scattered) < 5e-3
    there, here = several.at(np.stack([SOURCE, other]))
    assert abs(there[0] - here[1]) < 0.01 * abs(here[1])
    assert abs(there[1] - here[0]) > 0.1 * abs(here[1])
