"""The report, as a browser shows it."""

import html
import importlib.util
import json
import re
import shutil
import subprocess

import numpy as np
import pytest

import meta_lrpinn as ml
from meta_lrpinn.results import report

pytest.importorskip("plotly")

BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
MODEL = ml.VelocityModel(np.linspace(1.5, 3.0, 63).reshape(7, 9), 0.1, origin=(1.0, 0.0))
SOURCES = np.array([[1.2, 0.1], [1.6, 0.2]])
ROW, COLUMN = 3, 4
# Appended to the page: what the panels show at one node, as text that can be read.
PROBE = f"""<script>
const shown = [...document.querySelectorAll("#panels figure")].map(figure =>
  [figure.firstChild.textContent, figure.lastChild.data[0].z[{ROW}][{COLUMN}],
   figure.lastChild.data[0].x[{COLUMN}], figure.lastChild.data[0].y[{ROW}],
   figure.lastChild.querySelectorAll(".heatmaplayer image").length]);
document.body.dataset.shown = JSON.stringify(shown);
</script>"""


def wave(shape, seed):
    rng = np.random.default_rng(seed)
    return rng.normal(size=shape) + 1j * rng.normal(size=shape)


def field_of(frequency=4.0, source=SOURCES, model=MODEL):
    shape = (*np.shape(source)[:-1], *model.shape)
    return ml.Wavefield(
        model=model,
        frequency=frequency,
        source=np.asarray(source),
        amplitude=0.25j,
        background_velocity=np.full(np.shape(source)[:-1], 2.0),
        scattered=wave(shape, int(frequency)),
        solver="plane_waves",
        settings="</script><b>bold</b>",
        elapsed=0.1,
        error_estimates=np.full(np.shape(source)[:-1], 0.0123),
    )


def opened(path, view=""):
    """The page after its scripts have run: its text, and what the panels show."""
    if BROWSER is None:
        pytest.skip("no Chromium is installed")
    page = path.with_name("probed.html")
    page.write_text(path.read_text() + PROBE)
    options = "--headless --no-sandbox --disable-gpu --no-first-run --dump-dom"
    quiet = "--disable-background-networking --virtual-time-budget=5000"
    profile = f"--user-data-dir={path.parent / 'profile'}"
    text = subprocess.run(
        [BROWSER, *options.split(), *quiet.split(), profile, f"{page.as_uri()}{view}"],
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    ).stdout
    shown = re.search(r'data-shown="([^"]*)"', text)
    assert shown, "the scripts of the page did not run to their end"
    panels = {name: tuple(rest) for name, *rest in json.loads(html.unescape(shown[1]))}
    return text, panels


def test_panels_show_the_wavefield_on_physical_axes(tmp_path):
    field = field_of()
    reference = 1.05 * field.scattered
    field.report(tmp_path / "a.html", reference)
    text, panels = opened(tmp_path / "a.html", "#part=total&source=1")
    total = field.total[1, ROW, COLUMN]
    expected = {
        "Velocity km/s": MODEL.velocity[ROW, COLUMN],
        "Real part": total.real,
        "Imaginary part": total.imag,
        "Amplitude": abs(total),
        "Phase rad": np.angle(total),
        "Error of the scattered wavefield": abs(0.05 * field.scattered[1, ROW, COLUMN]),
    }
    assert list(panels) == list(expected)
    for name, value in expected.items():
        shown, x, z, images = panels[name]
        assert shown == pytest.approx(value, rel=1e-4, abs=1e-6), name
        assert (x, z) == pytest.approx((1.4, 0.3))
        assert images == 1, name
    caption = re.search(r'<p id="caption">([^<]*)</p>', text)[1]
    assert caption == (
        "4 Hz · source 2 of 2 at (1.6, 0.2) km · plane waves · estimated error 1.23 % · "
        "relative L2 error 4.76 %"
    )
    assert 'data-drawn="total 0 1"' in text
    # Text of the settings is text, never part of the page.
    assert "<b>bold</b>" not in text and "&lt;/script&gt;&lt;b&gt;bold" in text


def test_a_slider_chooses_the_frequency(tmp_path):
    fields = [field_of(frequency, SOURCES[0]) for frequency in (3.0, 5.0)]
    ml.write_report(tmp_path / "a.html", fields)
    text, panels = opened(tmp_path / "a.html", "#frequency=1")
    value = fields[1].scattered[ROW, COLUMN].real
    assert panels["Real part"][0] == pytest.approx(value, rel=1e-4)
    assert "Error of the scattered wavefield" not in panels
    assert re.search(r'<label id="sources" hidden="">', text)
    assert '<label id="frequencies">' in text


def test_a_volume_is_cut_at_the_source(tmp_path):
    model = ml.VelocityModel(np.linspace(1.5, 3.0, 7 * 5 * 9).reshape(7, 5, 9), 0.1)
    field = field_of(source=[[0.2, 0.1, 0.1], [0.2, 0.32, 0.1]], model=model)
    field.report(tmp_path / "a.html")
    text, panels = opened(tmp_path / "a.html", "#source=1")
    value = field.scattered[1, ROW, 3, COLUMN].imag
    assert panels["Imaginary part"][0] == pytest.approx(value, rel=1e-4)
    assert panels["Velocity km/s"][0] == pytest.approx(model.velocity[ROW, 3, COLUMN])
    assert "plane y = 0.3 km" in text


def test_the_page_asks_nothing_of_the_network(tmp_path):
    field_of().report(tmp_path / "a.html")
    # The text of the plotting library is left out: it names addresses that it never asks.
    library = re.compile(r"<script>/\*\*.*?</script>", re.DOTALL)
    page = library.sub("", (tmp_path / "a.html").read_text(), count=1)
    assert len(page) < 100_000
    assert not re.findall(r"(?:src|href)=|https?://|url\(", page)


@pytest.mark.parametrize(
    ("fields", "references", "message"),
    [
        ([], None, "a report needs at least one wavefield"),
        ([field_of(), field_of(source=SOURCES[0])], None, "must share model and sources"),
        ([field_of()], [np.zeros((7, 9))], r"shapes \[\(7, 9\)\], the fields"),
    ],
)
def test_what_does_not_fit_together_is_refused(tmp_path, fields, references, message):
    with pytest.raises(ValueError, match=message):
        ml.write_report(tmp_path / "a.html", fields, references)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_written_is_refused(tmp_path, monkeypatch):
    field = field_of()
    with pytest.raises(ValueError, match="reports are written as .html, got .*a.pdf"):
        field.report(tmp_path / "a.pdf")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        field.report(tmp_path / "nowhere" / "a.html")
    monkeypatch.setattr(report, "_LARGEST", 1000.0)
    with pytest.raises(ValueError, match="the report would have 0 MB.*fewer frequencies"):
        field.report(tmp_path / "a.html")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ValueError, match=r"a report needs plotly: pip install .*\[report\]"
    ):
        field.report(tmp_path / "a.html")
    assert not list(tmp_path.iterdir())
