"""The result type, and the distance that everything is measured by."""

import numpy as np
import pytest

from meta_lrpinn.metrics import relative_l2
from meta_lrpinn.velocity import VelocityModel
from meta_lrpinn.wavefield import Wavefield

MODEL = VelocityModel(np.full((3, 4), 2.0), 0.1)


def field_of(**changes):
    values = {
        "model": MODEL,
        "frequency": 5.0,
        "source": np.array([0.1, 0.0]),
        "scattered": np.full((3, 4), 1 - 2j),
        "background": np.full((3, 4), 3j),
        "method": "by hand",
        "elapsed": 0.0,
        **changes,
    }
    return Wavefield(**values)


def test_total_is_the_sum():
    np.testing.assert_array_equal(field_of().total, np.full((3, 4), 1 + 1j))


def test_at_evaluates_points():
    field = field_of(evaluate=lambda points: points @ np.array([1.0, 2.0j]))
    values = field.at(np.array([[0.1, 0.2], [0.3, 0.0]]))
    np.testing.assert_allclose(values, [0.1 + 0.4j, 0.3])


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (np.zeros(2), r"points must have shape \(n, 2\), got \(2,\)"),
        (np.zeros((5, 3)), r"points must have shape \(n, 2\), got \(5, 3\)"),
        (np.zeros((5, 2)), "known on its grid only"),
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
