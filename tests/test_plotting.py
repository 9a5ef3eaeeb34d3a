"""What a reader of a figure is told; not how it looks."""

import dataclasses
import io
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.colors import to_hex

import meta_lrpinn as ml
from meta_lrpinn import plotting


def random_field(shape, seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    return scale * (rng.normal(size=shape) + 1j * rng.normal(size=shape))


def wavefield(shape=(12, 16), sources=None, history=(), scale=1.0):
    velocity = np.linspace(1.5, 3.0, np.prod(shape)).reshape(shape)
    model = ml.VelocityModel(velocity, 0.1)
    if sources is None:
        sources = (model.lower + model.upper) / 2
    sources = np.asarray(sources, float)
    grids = (*sources.shape[:-1], *shape)
    return ml.Wavefield(
        model=model,
        frequency=5.0,
        source=sources,
        scattered=random_field(grids, 0, scale),
        amplitude=0.25j,
        background_velocity=np.full(sources.shape[:-1], 2.0),
        solver="plane_waves",
        settings=None,
        elapsed=0.1,
        history=tuple(history),
    )


def titles(figure):
    return [axes.get_title(loc="left") for axes in figure.axes]


def pictures(figure):
    """Title to image."""
    shown = [axes for axes in figure.axes if axes.images]
    return {axes.get_title(loc="left"): axes.images[0] for axes in shown}


def headline(figure):
    return figure.get_suptitle()


def test_panels_without_a_reference():
    figure = plotting.wavefield_figure(wavefield())
    assert titles(figure) == ["Velocity", "Scattered wavefield", "Total wavefield"]
    assert "relative L2" not in headline(figure)


def test_panels_show_the_fields_on_their_grid():
    field = wavefield()
    truth = 1.05 * field.scattered
    figure = plotting.wavefield_figure(field, truth)
    shown = pictures(figure)
    assert list(shown)[:3] == ["Velocity", "Reference", "Prediction"]
    values = {
        "Velocity": field.model.velocity,
        "Reference": truth.real,
        "Prediction": field.scattered.real,
    }
    for name, expected in values.items():
        np.testing.assert_allclose(shown[name].get_array(), expected)
        # Pixels are centred on grid points 0.1 km apart, depth downwards.
        np.testing.assert_allclose(shown[name].get_extent(), (-0.05, 1.55, 1.15, -0.05))
        axes = shown[name].axes
        assert (axes.get_xlabel(), axes.get_ylabel()) == ("x (km)", "z (km)")
        np.testing.assert_allclose(axes.get_xlim(), (0, 1.5))
        np.testing.assert_allclose(axes.get_ylim(), (1.1, 0))


def test_all_fields_have_one_symmetric_scale():
    field = wavefield()
    figure = plotting.wavefield_figure(field, 1.05 * field.scattered)
    shown = pictures(figure)
    assert shown["Velocity"].get_clim() == pytest.approx((1.5, 3.0))
    scales = {image.get_clim() for name, image in shown.items() if name != "Velocity"}
    assert len(scales) == 1
    ((low, high),) = scales
    assert low == -high < 0


def test_the_scale_ignores_the_singularity_at_the_source():
    field = wavefield(shape=(21, 21))
    truth = field.scattered.copy()
    truth[10, 10] = 1e6
    figure = plotting.wavefield_figure(field, truth)
    assert pictures(figure)["Reference"].get_clim()[1] < 10


@pytest.mark.parametrize(
    ("error", "times"), [(0.6, ""), (0.3, " × 2"), (0.012, " × 50"), (1e-9, " × 1000")]
)
def test_the_difference_says_how_far_it_is_magnified(error, times):
    field = wavefield(shape=(30, 30))
    truth = field.scattered / (1 + error)
    figure = plotting.wavefield_figure(field, truth)
    name = f"Difference{times}"
    assert titles(figure)[3] == name
    magnification = int(times.strip(" ×") or 1)
    difference = magnification * (field.scattered - truth).real
    np.testing.assert_allclose(pictures(figure)[name].get_array(), difference)
    assert f"relative L2 {plotting.percent(error)}" in headline(figure)


def test_the_chosen_of_several_sources():
    sources = [[0.2, 0.1], [0.7, 0.1], [1.2, 0.1]]
    field = wavefield(sources=sources)
    truth = field.scattered * np.array([1.0, 0.5, 1.0])[:, None, None]
    figure = plotting.wavefield_figure(field, truth, source_index=1)
    assert "source 2 of 3 at (0.7, 0.1) km" in headline(figure)
    assert "relative L2 100 %" in headline(figure)
    image = pictures(figure)["Prediction"]
    np.testing.assert_allclose(image.get_array(), field.scattered[1].real)
    (star,) = figure.axes[0].lines
    assert (star.get_xdata()[0], star.get_ydata()[0]) == (0.7, 0.1)


def test_three_dimensions_are_cut_along_every_plane():
    field = wavefield(shape=(6, 7, 8))
    figure = plotting.wavefield_figure(field, 0.9 * field.scattered)
    shown = pictures(figure)
    assert len(shown) == 12
    planes = {
        "Prediction, y = 0.3 km": (field.scattered[:, 3, :], "x (km)", "z (km)"),
        "Prediction, x = 0.4 km": (field.scattered[:, :, 4], "y (km)", "z (km)"),
        "Prediction, z = 0.3 km": (field.scattered[3, :, :], "x (km)", "y (km)"),
    }
    for name, (values, across, down) in planes.items():
        np.testing.assert_allclose(shown[name].get_array(), values.real)
        axes = shown[name].axes
        assert (axes.get_xlabel(), axes.get_ylabel()) == (across, down)


def test_curves_appear_where_there_is_a_history():
    field = wavefield(history=[{"step": 0, "loss": 1.0}])
    assert "Convergence" not in titles(plotting.wavefield_figure(field))
    history = [
        {"step": step, "seconds": 0.1 * step, "loss": 1 / step, "relative_l2": 2 / step}
        for step in (10, 20, 40)
    ]
    figure = plotting.wavefield_figure(wavefield(history=history))
    assert titles(figure)[-1] == "Convergence"
    axes = figure.axes[-1]
    assert axes.get_yscale() == "log"
    assert axes.get_xlabel() == "Step"
    curves = {line.get_label(): line.get_xydata() for line in axes.lines}
    assert list(curves) == ["loss", "relative L2"]
    np.testing.assert_allclose(curves["loss"], [(10, 0.1), (20, 0.05), (40, 0.025)])


def test_curves_are_those_of_the_source_shown():
    history = [
        {"source": source, "step": step, "loss": 1.0 + source + step}
        for source in (0, 1)
        for step in (0, 10)
    ]
    field = wavefield(sources=[[0.2, 0.1], [0.7, 0.1]], history=history)
    (line,) = plotting.wavefield_figure(field, source_index=1).axes[-1].lines
    np.testing.assert_allclose(line.get_ydata(), [2, 12])


def test_convergence_curves_leave_out_what_no_axis_can_show():
    history = [
        {"step": 0, "relative_l2": 0.5, "loss": np.nan, "name": "a", "unknowns": 3},
        {"step": 10, "relative_l2": 0.0, "loss": 0.2, "layer": 1, "unknowns": 4},
        {"step": 20, "relative_l2": 0.1, "layer": 2, "unknowns": 5},
    ]
    curves = plotting.convergence_curves(history)
    assert list(curves) == ["relative_l2"]
    np.testing.assert_array_equal(curves["relative_l2"], [0.5, np.nan, 0.1])


def test_convergence_figure_pairs_solid_and_dashed():
    def history(start):
        return [{"step": step, "relative_l2": start / 2**step} for step in range(4)]

    labels = ["meta, exact", "meta, gradient", "random, exact", "random, gradient"]
    figure = plotting.convergence_figure(
        {label: history(1 + place) for place, label in enumerate(labels)},
        dashed=labels[2:],
    )
    (axes,) = figure.axes
    assert axes.get_yscale() == "log"
    assert axes.get_ylabel() == "relative L2"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == labels
    colors = [to_hex(line.get_color()) for line in axes.lines]
    assert colors[:2] == colors[2:] and colors[0] != colors[1]
    assert [line.get_linestyle() for line in axes.lines] == ["-", "-", "--", "--"]
    np.testing.assert_allclose(axes.lines[3].get_ydata(), 4 / 2.0 ** np.arange(4))


def test_convergence_figure_of_a_single_record():
    history = [{"step": 0, "relative_l2": 0.5}]
    (line,) = plotting.convergence_figure({"a": history}).axes[0].lines
    assert line.get_marker() == "o"
    with pytest.raises(ValueError, match="the histories hold no loss"):
        plotting.convergence_figure({"a": history}, "loss")


@pytest.mark.parametrize("shape", [(12, 16), (8, 40), (40, 8), (6, 7, 8)])
def test_every_shape_can_be_saved(shape):
    field = wavefield(shape=shape, history=[{"step": s, "loss": 1.0} for s in (1, 2)])
    file = io.BytesIO()
    plotting.wavefield_figure(field, field.scattered).savefig(file, dpi=40)
    assert file.getvalue().startswith(b"\x89PNG")


def test_degenerate_fields_can_be_shown():
    field = wavefield()
    still = ml.VelocityModel(np.full((12, 16), 2.0), 0.1)
    zero = np.zeros_like(field.scattered)
    flat = dataclasses.replace(field, model=still, scattered=zero)
    figure = plotting.wavefield_figure(flat, zero)
    for image in pictures(figure).values():
        low, high = image.get_clim()
        assert low < high
    assert "relative L2" not in headline(figure)


def test_bad_input_is_refused():
    field = wavefield()
    with pytest.raises(ValueError, match=r"the reference has shape \(3, 3\)"):
        plotting.wavefield_figure(field, np.ones((3, 3)))
    with pytest.raises(ValueError, match="source_index must be 0 to 0"):
        plotting.wavefield_figure(field, source_index=1)


@pytest.mark.parametrize(
    ("fraction", "text"),
    [(0.0162, "1.62 %"), (0.5, "50.0 %"), (1.0, "100 %"), (3.2, "320 %")],
)
def test_percent(fraction, text):
    assert plotting.percent(fraction) == text


def test_no_global_state_of_matplotlib_is_touched():
    script = "import sys, meta_lrpinn.plotting\nprint('matplotlib.pyplot' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=pathlib.Path(ml.__file__).parents[1],
    )
    assert result.stdout == "False\n"
    source = pathlib.Path(plotting.__file__).read_text()
    assert not re.search(r"pyplot|rcParams", source)
