"""Adapted wavefields beside the reference, as panels of a figure."""

import re
from collections.abc import Callable, Mapping

import numpy as np
from matplotlib.figure import Figure

import meta_lrpinn as ml
from experiments import common, study

# Beside the reference, as in the paper: the start that is meta-trained and a random one.
SHOWN = ("Meta-LRPINN", "LRPINN, random start")
_NOT_ADAPTED = ("velocity", "bounds", "reference")


def save_wavefields(
    name: str,
    cases: Mapping[str, Callable[[], study.Case]],
    chosen: Mapping[str, study.Contender],
    steps: int,
) -> None:
    """Writes wavefields.png: reference, adapted wavefields and what they are off by.

    The fields are kept beside it, so that a second call draws without computing.

    Args:
        name: The experiment.
        cases: Name to a function that makes the case; a row of panels each.
        chosen: Contenders by name, of which those of `SHOWN` are adapted.
        steps: Adaptation steps.
    """
    shown = {key: chosen[key] for key in SHOWN if key in chosen}
    rows = {case: _fields(name, case, make, shown, steps) for case, make in cases.items()}
    wavefields(rows).savefig(common.folder(name) / "wavefields.png", dpi=130)


def _fields(
    name: str,
    case_name: str,
    make: Callable[[], study.Case],
    shown: Mapping[str, study.Contender],
    steps: int,
) -> dict[str, np.ndarray]:
    """Velocity, bounds, reference and adapted fields of a case, from file if kept."""
    start = common.fingerprint(study.meta_start())
    words = f"{case_name} {steps} {study.points_asked()} {start}"
    file = common.folder(name) / f"fields_{re.sub(r'[^0-9a-z]+', '_', words.lower())}.npz"
    if not file.exists():
        case = make()
        bounds = np.stack([case.model.lower, case.model.upper])
        found = {"velocity": case.model.velocity, "bounds": bounds}
        found["reference"] = case.scattered
        for key, contender in shown.items():
            settings = contender.settings(case, study.METHOD, steps, seed=0)
            try:
                field = study.solve(case, contender, settings, seed=0).scattered
            except FloatingPointError:  # it diverged
                field = np.full_like(case.scattered, np.nan)
            found[f"{key}, {steps} steps"] = field
        partial = file.with_suffix(".partial.npz")
        np.savez(partial, **found)
        partial.replace(file)
    with np.load(file) as kept:
        return dict(kept)


def wavefields(rows: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """Real parts of δu: the reference, and every other field with its difference.

    Args:
        rows: Case to its arrays: velocity (nz, nx) [km/s], bounds (2, 2) [km], lower
            corner first, reference and further wavefields by name (nz, nx).

    Returns:
        The figure, a row per case; wavefields and differences of a row share one scale.
    """
    names = [key for key in next(iter(rows.values())) if key not in _NOT_ADAPTED]
    columns = 2 + 2 * len(names)
    figure = Figure(figsize=(3.1 * columns, 3.0 * len(rows)), layout="constrained")
    panels = figure.subplots(len(rows), columns, squeeze=False)
    for row, (case, arrays) in zip(panels, rows.items(), strict=True):
        (left, top), (right, bottom) = arrays["bounds"]
        extent = (left, right, bottom, top)
        truth = arrays["reference"]
        # The waves near the source are far larger than all others.
        limit = np.quantile(np.abs(truth.real), 0.99)
        image = row[0].imshow(arrays["velocity"], extent=extent, cmap="viridis")
        figure.colorbar(image, ax=row[0], label="km/s")
        row[0].set_title(case, fontsize=9)
        shown = {"finite differences": truth}
        for name in names:
            error = ml.relative_l2(arrays[name], truth)
            shown[f"{name}: {100 * error:.3g} %"] = arrays[name]
            shown[f"{name}: difference"] = arrays[name] - truth
        for axes, (title, field) in zip(row[1:], shown.items(), strict=True):
            image = axes.imshow(
                field.real, extent=extent, cmap="RdBu_r", vmin=-limit, vmax=limit
            )
            axes.set_title(title, fontsize=8)
        figure.colorbar(image, ax=row[-1], label="Re δu")
        row[0].set_ylabel("z, km")
    for axes in panels[-1]:
        axes.set_xlabel("x, km")
    return figure
