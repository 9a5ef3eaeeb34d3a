"""Figures show what they are given."""

import numpy as np
import pytest

from experiments import histories, panels


def test_every_field_stands_beside_its_difference():
    truth = np.array([[1.0, 2.0], [3.0, 4.0]]) + 0j
    rows = {
        "some case": {
            "velocity": np.full((2, 2), 2.0),
            "bounds": np.array([[0.0, 0.0], [1.0, 2.0]]),
            "reference": truth,
            "adapted": 1.5 * truth,
        }
    }
    axes = panels.wavefields(rows).axes[:4]
    assert axes[0].get_title() == "some case"
    assert axes[2].get_title() == "adapted: 50 %"
    shown = [np.asarray(one.images[0].get_array()) for one in axes]
    np.testing.assert_allclose(shown[1], truth.real)
    np.testing.assert_allclose(shown[3], 0.5 * truth.real)
    limits = {one.images[0].get_clim() for one in axes[1:]}
    assert len(limits) == 1  # one scale, so that a difference can be judged
    assert axes[0].images[0].get_extent() == [0.0, 1.0, 2.0, 0.0]  # depth points down


def test_bars_of_a_group_stand_side_by_side():
    groups = {"one": {"a": 1.0, "b": 10.0}, "two": {"b": 100.0}}
    axes = histories.bars(groups, "seconds").axes[0]
    assert axes.get_xscale() == "log" and axes.get_xlabel() == "seconds"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["one", "two"]
    widths = {c.get_label(): [bar.get_width() for bar in c] for c in axes.containers}
    assert widths["a"] == pytest.approx([1.0, np.nan], nan_ok=True)
    assert widths["b"] == pytest.approx([10.0, 100.0])
    places = [c[0].get_y() for c in axes.containers]
    assert places[0] != places[1]
