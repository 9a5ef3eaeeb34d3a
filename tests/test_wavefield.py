"""The result type, and the distance that everything is measured by."""

import numpy as np
import pytest

from meta_lrpinn.metrics import relative_l2
from meta_lrpinn.physics.velocity import VelocityModel
from meta_lrpinn.reference import analytic
from meta_lrpinn.wavefield import Wavefield

MODEL = VelocityModel(np.full((3, 4), 2.0), 0.1)


def field_of(**changes):
    values = {
        "model": MODEL,
        "frequency": 5.0,
        "source": np.array([0.1, 0.0]),
        "scattered": np.full((3, 4), 1 - 2j),
        "amplitude": 0.25j,
        "background_velocity": np.array(2.0),
        "solver": "by hand",
        "settings": None,
        "elapsed": 0.0,
        **changes,
    }
    return Wavefield(**values)


def test_total_is_the_sum():
    field = field_of(source=np.array([0.15, 0.05]))
    offsets = MODEL.grid_points() - field.source
    background = analytic.point_source(offsets, 2 * np.pi * 5.0 / 2.0)
    np.testing.assert_allclose(field.background, background.reshape(3, 4))
    np.testing.assert_array_equal(field.total, field.background + 1 - 2j)
    assert not np.any(field.total.mask)


def test_a_node_with_a_source_is_masked():
    total = field_of().total
    expected = np.zeros((3, 4), bool)
    expected[0, 1] = True
    np.testing.assert_array_equal(total.mask, expected)
    assert total.data[0, 1] == 0 and np.all(np.abs(total.compressed()) > 1)


def test_estimates_of_several_sources():
    assert field_of().error_estimate is None
    several = field_of(error_estimates=np.array([0.1, np.nan, 0.3]))
    assert several.error_estimate == 0.3
    assert field_of(error_estimates=np.array(np.nan)).error_estimate is None


def test_at_evaluates_points():
    field = field_of(evaluate=lambda points: (points @ np.array([1.0, 2.0j]))[None])
    values = field.at(np.array([[0.1, 0.2], [0.3, 0.0]]))
    np.testing.assert_allclose(values, [0.1 + 0.4j, 0.3])


def test_at_gives_every_part():
    field = field_of(evaluate=lambda points: np.full((1, len(points)), 1 + 2j))
    points = np.array([[0.25, 0.15], [0.05, 0.1]])
    background = analytic.point_source(points - field.source, 2 * np.pi * 5.0 / 2.0)
    np.testing.assert_allclose(field.at(points, "background"), background)
    np.testing.assert_allclose(field.at(points, "total"), background + 1 + 2j)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (np.zeros(2), r"points must have shape \(n, 2\), got \(2,\)"),
        (np.zeros((5, 3)), r"points must have shape \(n, 2\), got \(5, 3\)"),
        (np.zeros((5, 2)), "known on its grid only"),
        (np.full((5, 2), 9.0), "point .* lies outside the model"),
    ],
)
def test_at_refuses(points, message):
    with pytest.raises(ValueError, match=message):
        field_of().at(points)


def test_fields_are_not_changed_by_accident():
    with pytest.raises(AttributeError):
        field_of().frequency = 6.0


def test_relative_l2():
    truth = np.array([[3.0, 4.0j], [0.0, 0.0]])
    assert relative_l2(truth, truth) == 0
    assert relative_l2(truth + np.array([[0, 0], [1, 0]]), truth) == pytest.approx(0.2)
    assert relative_l2(-truth, truth) == pytest.approx(2.0)
    # Not symmetric: the truth is what is divided by.
    assert relative_l2(2 * truth, truth) == pytest.approx(1.0)
    assert relative_l2(truth, 2 * truth) == pytest.approx(0.5)


def test_relative_l2_refuses():
    with pytest.raises(ValueError, match=r"cannot compare shapes \(2,\) and \(2, 2\)"):
        relative_l2(np.ones(2), np.ones((2, 2)))
    with pytest.raises(ValueError, match="reference field is zero"):
        relative_l2(np.ones(2), np.zeros(2))
