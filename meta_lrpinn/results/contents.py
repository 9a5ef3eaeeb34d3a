"""A wavefield as named arrays with dimensions, units and provenance.

Three dictionaries that `xarray.Dataset` takes as they are, and that a NumPy file can hold
without it.
"""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from meta_lrpinn.wavefield import Wavefield


# Dimensions, values, attributes.
Variable = tuple[tuple[str, ...], np.ndarray, dict[str, str]]

_SPACE = {2: ("z", "x"), 3: ("z", "y", "x")}
CONVENTIONS = (
    "total = scattered + background; time goes as exp(+i omega t); z is depth, positive "
    "down; background = A H0^(2)(k r) in 2D, A exp(-i k r)/r in 3D, with k = omega/v0"
)


class Contents(NamedTuple):
    """What `xarray.Dataset` is made of, in the order of its arguments."""

    variables: dict[str, Variable]
    coordinates: dict[str, Variable]
    attributes: dict[str, Any]  # numbers, texts and lists


def contents(
    field: "Wavefield", relative_l2: Mapping[str, np.ndarray] | None = None
) -> Contents:
    """All that a wavefield holds, except the function that evaluates it off the grid.

    Args:
        field: The wavefield.
        relative_l2: Errors of every source, () or (n_sources,), by the name of what the
            field was compared with.
    """
    model = field.model
    # Sources that were fired together have positions and weights, but one wavefield.
    positions: tuple[str, ...] = ("source",) if np.ndim(field.source) == 2 else ()
    sources = positions if field.has_source_axis else ()
    space = _SPACE[model.ndim]
    grid = (*sources, *space)

    def wave(values: np.ndarray, name: str) -> Variable:
        # u₀ is A H₀ in 2D and A e^{-ikr}/r in 3D, for an A without a unit.
        units = {2: "1", 3: "1/km"}[model.ndim]
        return grid, np.asarray(values), {"long_name": name, "units": units}

    speed = {"units": "km/s"}
    variables: dict[str, Variable] = {
        "velocity": (space, np.asarray(model.velocity), {"long_name": "velocity", **speed}),
        "scattered": wave(field.scattered, "scattered wavefield"),
        "background": wave(field.background, "background wavefield"),
        "total": wave(
            field.total.filled(np.nan), "total wavefield, NaN at nodes that hold a source"
        ),
        "amplitude": (
            (),
            np.asarray(field.amplitude),
            {"long_name": "factor A of the background wavefield"},
        ),
        "v0": (
            positions,
            np.asarray(field.background_velocity),
            {"long_name": "velocity of the background wavefield, v/(1 - i/2Q)", **speed},
        ),
    }
    if field.weights is not None:
        text = "weights of the sources, which were fired together"
        variables["weights"] = positions, np.asarray(field.weights), {"long_name": text}
    if model.quality is not None:
        values = np.asarray(model.quality)
        variables["quality"] = space, values, {"long_name": "quality factor Q"}
    if field.free_surface:
        text = "whether the total wavefield is zero at the top of the model"
        # A number, since netCDF has no truth values.
        variables["free_surface"] = (), np.asarray(1), {"long_name": text}
    if field.error_estimates is not None:
        name = "the solver's estimate of the relative L2 error of scattered"
        values = np.asarray(field.error_estimates, float)
        variables["error_estimate"] = sources, values, {"long_name": name}
    for compared, errors in (relative_l2 or {}).items():
        name = f"relative L2 distance of scattered from the {compared} field"
        values = np.reshape(np.asarray(errors, float), -1 if sources else ())
        variables[f"relative_l2_{compared}"] = sources, values, {"long_name": name}
    return Contents(variables, _coordinates(field, space, positions), _attributes(field))


def _coordinates(
    field: "Wavefield", space: tuple[str, ...], sources: tuple[str, ...]
) -> dict[str, Variable]:
    length = {"units": "km"}
    names = {"z": "depth", "y": "y", "x": "x"}
    coordinates: dict[str, Variable] = {
        axis: ((axis,), values, {"long_name": names[axis], **length})
        for axis, values in zip(space, field.model.axes(), strict=True)
    }
    coordinates["frequency"] = (), np.asarray(field.frequency), {"units": "Hz"}
    # Points are in coordinate order, arrays in the reverse of it.
    for column, axis in enumerate(space[::-1]):
        values = np.asarray(field.source, float)[..., column]
        attributes = {"long_name": f"{names[axis]} of the source", **length}
        coordinates[f"source_{axis}"] = sources, values, attributes
    return coordinates


def _attributes(field: "Wavefield") -> dict[str, Any]:
    """Provenance; what is not known is left out."""
    attributes: dict[str, Any] = {
        "title": "Acoustic wavefield in the frequency domain",
        "conventions": CONVENTIONS,
        "spacing": list(field.model.spacing),
        "origin": [float(value) for value in field.model.origin],
        "solver": field.solver,
        "settings": repr(field.settings),
        "elapsed": float(field.elapsed),
        "converged": None if field.converged is None else int(field.converged),
    }
    parts = [field.stats] if field.provenance is None else [field.stats, field.provenance]
    for part in parts:
        attributes |= {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in dataclasses.asdict(part).items()
        }
    # No format of ours can store None.
    return {key: value for key, value in attributes.items() if value is not None}
