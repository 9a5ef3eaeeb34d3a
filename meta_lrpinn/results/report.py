"""Wavefields as one HTML file that any browser opens, without a server or a network."""

import base64
import importlib.resources
import json
import os
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex

from meta_lrpinn.files import writing
from meta_lrpinn.physics.velocity import VelocityModel
from meta_lrpinn.plotting import FIELD_COLORS, VELOCITY_COLORS
from meta_lrpinn.results.storage import contents
from meta_lrpinn.runtime import machine

if TYPE_CHECKING:
    from meta_lrpinn.wavefield import Wavefield

# Perceptually even; that of the phase ends where it begins.
_COLORS = {
    "velocity": VELOCITY_COLORS,
    "field": FIELD_COLORS,
    "amplitude": "viridis",
    "phase": "twilight",
    "error": "inferno",
}
# Colours of each map, between which the browser interpolates: enough that no step is seen.
_SHADES = 33
# Bytes of text above which browsers have trouble. A guard, not tuned.
_LARGEST = 200e6
_WAVES = 3  # scattered, total and reference
_COMPLEX = 8  # bytes of a value, in single precision
_BASE64 = 4 / 3  # characters a byte


def write_report(
    path: str | os.PathLike,
    fields: Sequence["Wavefield"],
    references: Sequence[np.ndarray] | None = None,
) -> None:
    """Writes a report of wavefields that share a model and sources, all or nothing.

    It shows velocity, real and imaginary part, amplitude, phase and, with references, the
    error, of the scattered, background and total wavefield; sliders choose the frequency
    and the source. A 3D model is cut at the y of the source.

    Args:
        path: The file, ending in .html; replaced if it exists.
        fields: One wavefield for each frequency.
        references: For each field the δu to compare it with, of the same shape.

    Raises:
        ValueError: if the path has another ending, the fields differ in model or sources,
            a reference in its shape, the report would be too large to open, or plotly is
            not installed.
    """
    path = pathlib.Path(path)
    check_path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent} to write to")
    text = html(fields, references)
    writing.write_together({path: lambda file: file.write(text.encode())})


def check_path(path: pathlib.Path) -> None:
    """Refuses, before anything is computed, a report that cannot be written.

    Raises:
        ValueError: if its ending is not .html, plotly is not installed, or a folder is in
            its place.
    """
    if path.suffix.lower() != ".html":
        raise ValueError(f"reports are written as .html, got {path}")
    machine.require(("plotly",), "report", "a report")
    writing.check_file(path)


def check_size(model: VelocityModel, pictures: int) -> None:
    """Refuses, before anything is computed, a report too large for a browser.

    Raises:
        ValueError: if so many pictures, one for each frequency and source, are too many.
    """
    nodes = model.shape[0] * model.shape[-1]  # of a vertical plane
    size = nodes * pictures * _WAVES * _COMPLEX * _BASE64
    if size > _LARGEST:
        raise ValueError(
            f"the report would have {size / 1e6:.0f} MB, more than {_LARGEST / 1e6:.0f}: "
            "give fewer frequencies or sources, or a window of the model"
        )


def html(
    fields: Sequence["Wavefield"], references: Sequence[np.ndarray] | None = None
) -> str:
    """The text of a report; see `write_report`."""
    from plotly.offline import get_plotlyjs  # optional

    _check(fields, references)
    page = importlib.resources.files("meta_lrpinn.results").joinpath("report.html")
    template = page.read_text()
    # No text in the data may end the element that holds it.
    data = json.dumps(_payload(fields, references)).replace("</", r"<\/")
    for mark, text in {"@@DATA@@": data, "@@PLOTLY@@": get_plotlyjs()}.items():
        before, after = template.split(mark)
        template = before + text + after
    return template


def _check(fields: Sequence["Wavefield"], references: Sequence[np.ndarray] | None) -> None:
    if not fields:
        raise ValueError("a report needs at least one wavefield")
    first = fields[0]
    for field in fields:
        same = np.array_equal(field.source, first.source) and all(
            np.array_equal(getattr(field.model, name), getattr(first.model, name))
            for name in ("velocity", "spacing", "origin")
        )
        if not same:
            raise ValueError("the wavefields of a report must share model and sources")
    if references is not None:
        shapes = [np.shape(reference) for reference in references]
        expected = [np.shape(field.scattered) for field in fields]
        if shapes != expected:
            raise ValueError(f"the references have shapes {shapes}, the fields {expected}")
    check_size(first.model, len(fields) * len(first.marks))


def _payload(
    fields: Sequence["Wavefield"], references: Sequence[np.ndarray] | None
) -> dict[str, Any]:
    """All that the page shows; arrays as base64 of their float32."""
    first = fields[0]
    model, sources, axes = first.model, first.marks, first.model.axes()
    planes = [_plane(model, source) for source in sources]
    pictures = []
    for number, field in enumerate(fields):
        waves = {"scattered": field.scattered, "total": field.total.filled(np.nan)}
        if references is not None:
            waves["reference"] = references[number]
        by_source = {
            name: np.reshape(wave, (-1, *model.shape)) for name, wave in waves.items()
        }
        pictures.append(
            [
                {name: _encoded(wave[index][plane]) for name, wave in by_source.items()}
                for index, plane in enumerate(planes)
            ]
        )
    return {
        "x": axes[-1].tolist(),
        "z": axes[0].tolist(),
        "y": [axes[1][plane[1]].item() for plane in planes] if model.ndim == 3 else None,
        "velocity": [_encoded(np.asarray(model.velocity)[plane]) for plane in planes],
        "sources": sources.tolist(),
        "frequencies": [field.frequency for field in fields],
        "estimates": [_estimates(field, len(sources)) for field in fields],
        "fields": pictures,
        "colors": {name: _shades(color) for name, color in _COLORS.items()},
        "about": [contents(field).attributes for field in fields],
    }


def _plane(model: VelocityModel, source: np.ndarray) -> tuple[int | slice, ...]:
    """The vertical plane through a source; all of a 2D model."""
    if model.ndim == 2:
        return (slice(None), slice(None))
    # The nearest plane of nodes: interpolated ones would not be what was solved for.
    row = int(np.argmin(np.abs(model.axes()[1] - source[1])))
    return (slice(None), row, slice(None))


def _estimates(field: "Wavefield", count: int) -> list[float | None]:
    if field.error_estimates is None:
        return [None] * count
    values = np.ravel(field.error_estimates).tolist()
    return [value if np.isfinite(value) else None for value in values]  # JSON has no NaN


def _encoded(values: np.ndarray) -> str:
    """Real numbers as float32, complex ones as pairs of them, little-endian."""
    kind = "<c8" if np.iscomplexobj(values) else "<f4"
    return base64.b64encode(np.ascontiguousarray(values, kind).tobytes()).decode()


def _shades(name: str) -> list[tuple[float, str]]:
    places = np.linspace(0, 1, _SHADES)
    return [(float(place), to_hex(colormaps[name](place))) for place in places]
