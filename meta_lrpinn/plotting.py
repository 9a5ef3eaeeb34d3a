"""Figures of wavefields: functions that return a Matplotlib figure and change nothing.

Figures are built on the object interface, so no window opens, no global state is
touched, and any process may draw: `figure.savefig(path)` needs no backend.
"""

import dataclasses
import itertools
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.layout_engine import ConstrainedLayoutEngine

from meta_lrpinn.metrics import relative_l2
from meta_lrpinn.physics.velocity import VelocityModel

if TYPE_CHECKING:
    from meta_lrpinn.wavefield import Wavefield

# Perceptually even, and readable for the colour-blind.
VELOCITY_COLORS = "cividis"
FIELD_COLORS = "RdBu_r"
# Records hold these beside what converges; they are no curves of their own.
_NOT_CURVES = (
    "step", "source", "elapsed", "seconds", "unknowns", "refinement", "layer",
    "points_per_wavelength",
)  # fmt: skip
# Okabe and Ito's colours, which the colour-blind tell apart.
_CURVE_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
_INK = "#222222"
_MUTED = "#6b6b6b"


@dataclasses.dataclass(frozen=True)
class _Panel:
    """One quantity on the model's grid, and how it is coloured."""

    title: str
    values: np.ndarray  # (nz, nx) or (nz, ny, nx), real
    limits: tuple[float, float]
    colors: str
    unit: str


@dataclasses.dataclass(frozen=True)
class _Section:
    """A plane through the model: all of it in 2D, through its middle in 3D."""

    index: tuple[int | slice, ...]
    columns: tuple[int, int]  # coordinates across and down the picture
    place: str  # where it cuts, empty in 2D


def wavefield_figure(
    field: "Wavefield",
    reference: np.ndarray | None = None,
    *,
    source_index: int = 0,
) -> Figure:
    """Velocity, reference, prediction, difference and, where there is one, convergence.

    All fields are real parts of δu on one scale: the 99th percentile of the reference
    farther than half a wavelength from the source. The difference is magnified until it
    can be seen; its title says by how much. A 3D model is cut through its middle.

    Args:
        field: The wavefield.
        reference: What to compare with, δu of the same shape as `field.scattered`.
            Without one, scattered and total wavefield are shown.
        source_index: Which source to show where there are several.

    Returns:
        The figure; save it with `figure.savefig(path)`.

    Raises:
        ValueError: if the reference has another shape, or there is no such source.
    """
    model = field.model
    sources = field.marks
    if not 0 <= source_index < len(sources):
        raise ValueError(f"source_index must be 0 to {len(sources) - 1}")
    scattered = np.asarray(field.scattered)
    if reference is not None and np.shape(reference) != scattered.shape:
        raise ValueError(
            f"the reference has shape {np.shape(reference)}, "
            f"the wavefield {scattered.shape}"
        )
    source = sources[source_index]

    def chosen(values):
        return np.asarray(values).reshape(len(sources), *model.shape)[source_index]

    prediction = chosen(scattered)
    truth = None if reference is None else chosen(reference)
    # δu is largest near the source, and would leave all else white.
    far = _far_from_source(model, field.frequency, source)
    if truth is None:
        panels = [_field_panel("Scattered wavefield", prediction, far)]
        panels.append(_field_panel("Total wavefield", chosen(field.total), far, "Re u"))
    else:
        panels = _panels_compared(prediction, truth, far)

    history = [
        record
        for record in field.history
        if record.get("source", source_index) == source_index
    ]
    curves = convergence_curves(history)
    panels = [_velocity_panel(model), *panels]
    figure = _layout(model, panels, source, with_curves=bool(curves))
    if curves:
        _draw_curves(figure.axes[-1], history, curves)
    figure.suptitle(
        _headline(field, sources, source_index, truth, prediction),
        x=0.012,
        ha="left",
        fontsize=12,
        color=_INK,
    )
    return figure


def convergence_curves(
    history: Sequence[Mapping[str, Any]],
) -> dict[str, np.ndarray]:
    """Positive quantities that a history follows over at least two of its records.

    Args:
        history: One record per reported step.

    Returns:
        Name to values (n_records,), NaN where a record lacks one.
    """
    names = dict.fromkeys(name for record in history for name in record)
    curves = {}
    for name in names:
        if name in _NOT_CURVES:
            continue
        values = np.array([_positive(record.get(name)) for record in history])
        if np.count_nonzero(np.isfinite(values)) >= 2:  # one point is no curve
            curves[name] = values
    return curves


def convergence_figure(
    histories: Mapping[str, Sequence[Mapping[str, Any]]],
    quantity: str = "relative_l2",
    *,
    dashed: Collection[str] = (),
) -> Figure:
    """One quantity of several histories over their steps, on a logarithmic axis.

    Args:
        histories: Label to records, each with its `step`.
        quantity: What to show; records without it, or where it is not positive, are
            left out.
        dashed: Labels to draw dashed; their colours begin anew, so that the first
            dashed curve has the colour of the first solid one.

    Returns:
        The figure; save it with `figure.savefig(path)`.

    Raises:
        ValueError: if no record has the quantity.
    """
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    axes = figure.add_subplot()
    drawn = {True: 0, False: 0}  # dashed and solid curves count colours apart
    for label, history in histories.items():
        steps = np.array([record["step"] for record in history], float)
        values = np.array([_positive(record.get(quantity)) for record in history])
        known = np.isfinite(values)
        is_dashed = label in dashed
        color = _CURVE_COLORS[drawn[is_dashed] % len(_CURVE_COLORS)]
        drawn[is_dashed] += 1
        if np.any(known):
            line = "--" if is_dashed else "-"
            _draw_curve(axes, steps[known], values[known], label, color, line)
    if not axes.lines:
        raise ValueError(f"the histories hold no {quantity}")
    _finish_curves(axes, "Step")
    axes.set_ylabel(_words(quantity), fontsize=9, color=_MUTED)
    return figure


def _positive(value: Any) -> float:
    """A positive number, or NaN for anything that a logarithmic axis cannot show."""
    if value is None or isinstance(value, (str, bool)) or np.ndim(value) > 0:
        return np.nan
    number = float(value)
    return number if np.isfinite(number) and number > 0 else np.nan


def _velocity_panel(model: VelocityModel) -> _Panel:
    low, high = model.minimum, model.maximum
    if high - low < 1e-3 * high:  # A colour bar needs a range.
        low, high = 0.95 * low, 1.05 * high
    velocity = np.asarray(model.velocity)
    return _Panel("Velocity", velocity, (low, high), VELOCITY_COLORS, "km/s")


def _field_panel(
    title: str,
    values: np.ndarray,
    far: np.ndarray,
    unit: str = "Re δu",
    limit: float | None = None,
) -> _Panel:
    """The real part of a field, coloured up to a limit, by default its own."""
    limit = _robust_limit(values, far) if limit is None else limit
    return _Panel(title, np.real(values), (-limit, limit), FIELD_COLORS, unit)


def _panels_compared(
    prediction: np.ndarray, truth: np.ndarray, far: np.ndarray
) -> list[_Panel]:
    # A reference of zeros, as of a homogeneous model, has no scale of its own.
    limit = _robust_limit(truth if np.any(truth) else prediction, far)
    difference = prediction - truth
    magnification = _magnification(_robust_limit(difference, far), limit)
    times = f" × {magnification}" if magnification > 1 else ""
    shown = {
        "Reference": truth,
        "Prediction": prediction,
        f"Difference{times}": magnification * difference,
    }
    return [_field_panel(*item, far, limit=limit) for item in shown.items()]


def _robust_limit(values: np.ndarray, far: np.ndarray) -> float:
    """99th percentile of |Re| away from the source; positive."""
    size = np.abs(np.real(values))
    # A model of less than half a wavelength has nothing far from the source.
    size = size[np.isfinite(size) & far] if np.any(far) else size[np.isfinite(size)]
    limit = float(np.percentile(size, 99)) if size.size else 0.0
    return limit or float(size.max(initial=0.0)) or 1.0  # colours need a range


def _magnification(difference: float, limit: float) -> int:
    """Largest of 1, 2, 5, 10, 20, ..., 1000 that keeps a difference in its limit."""
    # Round numbers, which a reader divides by in the head.
    steps = [a * 10**b for b in range(3) for a in (1, 2, 5)] + [1000]
    fitting = [step for step in steps if step * difference <= limit]
    return max(fitting, default=1)


def _far_from_source(
    model: VelocityModel, frequency: float, source: np.ndarray
) -> np.ndarray:
    """Where the distance exceeds half a wavelength of the source's velocity."""
    points = model.grid_points()
    distance = np.linalg.norm(points - source, axis=-1)
    velocity = np.asarray(model.velocity).ravel()[np.argmin(distance)]
    return (distance > 0.5 * velocity / frequency).reshape(model.shape)


def _sections(model: VelocityModel) -> list[_Section]:
    """The planes in which a model is shown: one in 2D, three in 3D."""
    if model.ndim == 2:
        return [_Section((slice(None), slice(None)), (0, 1), "")]
    everything = (slice(None),) * 3
    sections = []
    # Array axes are (z, y, x); cut across y, across x, across z.
    for axis, columns in ((1, (0, 2)), (2, (1, 2)), (0, (0, 1))):
        middle = model.shape[axis] // 2
        index = (*everything[:axis], middle, *everything[axis + 1 :])
        place = f"{'zyx'[axis]} = {model.axes()[axis][middle]:.4g} km"
        sections.append(_Section(index, columns, place))
    return sections


def _layout(
    model: VelocityModel,
    panels: Sequence[_Panel],
    source: np.ndarray,
    with_curves: bool,
) -> Figure:
    """Draws all panels; the axes for the curves, if wanted, are the figure's last."""
    sections = _sections(model)
    length, *_, depth = model.upper - model.lower
    if model.ndim == 3:
        rows, columns = len(sections), len(panels)
    elif len(panels) == 4:
        rows, columns = 2, 2
    else:
        # Wide models go on top of each other.
        is_wide = length > 1.8 * depth
        rows, columns = (len(panels), 1) if is_wide else (1, len(panels))

    # Sizes in inches: pictures keep the model's aspect, within what fits on a page.
    width = 3.1 if columns > 2 else 4.6 if columns == 2 else 7.5
    height = float(np.clip(width * depth / length, 1.5, 8.0))
    curve_height = 2.6 if with_curves else 0.0
    figure = Figure(
        figsize=(
            columns * (width + 1.25) + 0.2,
            rows * (height + 0.75) + curve_height + 0.35,
        ),
        layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08, hspace=0.03, wspace=0.03),
    )
    grid = figure.add_gridspec(
        rows + with_curves,
        columns,
        height_ratios=[height] * rows + [curve_height - 0.75] * with_curves,
    )
    pictures = itertools.product(sections, panels)
    for index, (section, panel) in enumerate(pictures):
        axes = figure.add_subplot(grid[divmod(index, columns)])
        image = _draw_section(axes, model, section, panel)
        _mark_source(axes, section, source, is_first=panel is panels[0])
        # An inset is as tall as the picture, whatever its aspect.
        bar = figure.colorbar(image, cax=axes.inset_axes((1.03, 0.0, 0.035, 1.0)))
        bar.set_label(panel.unit, fontsize=9, color=_MUTED)
        bar.ax.tick_params(labelsize=8, colors=_MUTED, width=0.6)
        bar.outline.set_linewidth(0.5)
        bar.outline.set_edgecolor(_MUTED)
    if with_curves:
        figure.add_subplot(grid[rows, :])
    return figure


def _draw_section(
    axes: Axes, model: VelocityModel, section: _Section, panel: _Panel
) -> AxesImage:
    across, down = section.columns
    lower, upper = model.lower, model.upper
    # A pixel is centred on its node, so that the picture reaches half a cell further.
    half = np.array(model.spacing[::-1]) / 2
    image = axes.imshow(
        panel.values[section.index],
        cmap=panel.colors,
        vmin=panel.limits[0],
        vmax=panel.limits[1],
        extent=(
            lower[across] - half[across],
            upper[across] + half[across],
            upper[down] + half[down],
            lower[down] - half[down],
        ),
        aspect="equal",
        # Steps of the velocity are real; those of a wavefield are the grid's.
        interpolation="nearest" if panel.unit == "km/s" else "bilinear",
    )
    axes.set_xlim(lower[across], upper[across])
    # Depth points down; a map has y up.
    is_map = down != model.ndim - 1
    axes.set_ylim(*sorted((lower[down], upper[down]), reverse=not is_map))
    title = panel.title if not section.place else f"{panel.title}, {section.place}"
    axes.set_title(title, loc="left", fontsize=10.5, color=_INK)
    names = "xz" if model.ndim == 2 else "xyz"
    axes.set_xlabel(f"{names[across]} (km)", fontsize=9, color=_MUTED)
    axes.set_ylabel(f"{names[down]} (km)", fontsize=9, color=_MUTED)
    _quiet(axes)
    return image


def _mark_source(axes: Axes, section: _Section, source: np.ndarray, is_first: bool) -> None:
    across, down = section.columns
    axes.plot(
        source[across],
        source[down],
        marker="*",
        markersize=13 if is_first else 8,
        color="white" if is_first else "none",
        markeredgecolor="black" if is_first else _MUTED,
        markeredgewidth=0.8,
        linestyle="none",
        clip_on=False,  # sources stand at the very top
        zorder=5,
    )


def _draw_curves(
    axes: Axes, history: Sequence[Mapping[str, Any]], curves: Mapping[str, np.ndarray]
) -> None:
    axis_labels = {
        "step": "Step",
        "points_per_wavelength": "Grid points per shortest wavelength",
        "unknowns": "Unknowns",
    }
    label, steps = "Record", np.arange(1, len(history) + 1)
    # The first of these that all records have, since it is tried last.
    for key in reversed(axis_labels):
        if all(key in record for record in history):
            label = axis_labels[key]
            steps = np.array([record[key] for record in history], float)
    for (name, values), color in zip(curves.items(), itertools.cycle(_CURVE_COLORS)):
        known = np.isfinite(values)
        _draw_curve(axes, steps[known], values[known], _words(name), color)
    _finish_curves(axes, label)


def _draw_curve(
    axes: Axes,
    steps: np.ndarray,
    values: np.ndarray,
    label: str,
    color: str,
    line: str = "-",
) -> None:
    axes.semilogy(
        steps,
        values,
        line,
        label=label,
        color=color,
        linewidth=1.6,
        marker="o" if len(steps) <= 20 else None,  # more would hide the line
        markersize=4,
    )


def _words(name: str) -> str:
    return name.replace("_", " ").replace("l2", "L2")


def _finish_curves(axes: Axes, label: str) -> None:
    axes.set_title("Convergence", loc="left", fontsize=10.5, color=_INK)
    axes.set_xlabel(label, fontsize=9, color=_MUTED)
    axes.grid(True, which="major", linewidth=0.5, color="#dddddd")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
    _quiet(axes)


def _quiet(axes: Axes) -> None:
    axes.tick_params(labelsize=8, colors=_MUTED, width=0.6, length=3)
    for spine in axes.spines.values():
        spine.set_linewidth(0.6)
        spine.set_edgecolor(_MUTED)


def _headline(
    field: "Wavefield",
    sources: np.ndarray,
    source_index: int,
    truth: np.ndarray | None,
    prediction: np.ndarray,
) -> str:
    place = ", ".join(f"{value:.4g}" for value in sources[source_index])
    which = f" {source_index + 1} of {len(sources)}" if len(sources) > 1 else ""
    parts = [f"{field.frequency:g} Hz", f"source{which} at ({place}) km"]
    parts.append(field.solver.replace("_", " "))
    if truth is not None and np.any(truth):
        parts.append(f"relative L2 {percent(relative_l2(prediction, truth))}")
    return "  ·  ".join(parts)


def percent(fraction: float) -> str:
    """A fraction as a percentage of three significant digits, as in '1.62 %'."""
    value = 100 * fraction
    return f"{value:.0f} %" if value >= 99.95 else f"{value:#.3g} %"
