"""Deformed rocks restored: the stratigraphic depth of every grid point, in km."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from meta_lrpinn.generators.grid import Grid


def fold_relief(
    rng: np.random.Generator,
    grid: Grid,
    along: np.ndarray,
    *,
    amplitude: float,
) -> np.ndarray:
    """Relief from a few sines, `amplitude` being its typical fraction of the depth."""
    # In fractions of the model, so that small and large models look alike.
    longest = min(2.0 * grid.depth, 1.3 * grid.widths[0])
    along = along + grid.skew(rng, 0.8)
    relief = np.zeros_like(along)
    for _ in range(3):
        wavelength = longest * rng.uniform(0.45, 1.3)
        phase = rng.uniform(0.0, 2 * np.pi)
        # Short folds are lower, so that no interface gets steeper than rocks do.
        height = amplitude * grid.depth * wavelength / longest * rng.uniform(0.4, 1.2)
        relief = relief + height * np.sin(2 * np.pi * along / wavelength + phase)
    return relief


def _flat(rng: np.random.Generator, grid: Grid) -> np.ndarray:
    return grid.z + np.zeros(grid.shape)


def _dipping(rng: np.random.Generator, grid: Grid) -> np.ndarray:
    relief = 0.0
    for axis, width in zip(grid.horizontal, grid.widths, strict=True):
        slope = rng.choice([-1.0, 1.0]) * rng.uniform(0.08, 0.35)
        # In a wide model the same dip would carry the layers out of its depth.
        slope *= min(1.0, 1.5 * grid.depth / width)
        relief = relief + slope * (axis - width / 2)
    return grid.z - relief


def _folded(rng: np.random.Generator, grid: Grid) -> np.ndarray:
    tilt = rng.uniform(-0.1, 0.1) * min(1.0, grid.depth / grid.widths[0])
    relief = fold_relief(rng, grid, grid.x, amplitude=rng.uniform(0.04, 0.1))
    # Deeper layers are older and have been folded for longer.
    growth = rng.uniform(0.5, 1.0) + 0.5 * grid.z / grid.depth
    return grid.z - tilt * (grid.x - grid.widths[0] / 2) - relief * growth


def _faulted(rng: np.random.Generator, grid: Grid) -> np.ndarray:
    """Gently folded layers cut by one to three normal faults."""
    along = grid.x + grid.skew(rng, 0.5)
    restored = grid.z
    count = int(rng.integers(1, 4))
    places = (np.arange(count) + rng.uniform(0.25, 0.75, count)) / count
    for place in places:
        # Measured from mid-depth, so that every fault cuts the model.
        steepness = np.tan(np.radians(rng.uniform(50.0, 75.0)))
        towards = rng.choice([-1.0, 1.0])
        plane = place * grid.widths[0] + towards * (grid.z - grid.depth / 2) / steepness
        hanging_wall = towards * (along - plane) > 0
        throw = rng.uniform(0.04, 0.13) * grid.depth
        restored = restored - throw * hanging_wall
    tilt = rng.uniform(-0.12, 0.12) * min(1.0, grid.depth / grid.widths[0])
    # Gentle folds, so that the faults are what a wave meets first.
    relief = fold_relief(rng, grid, grid.x, amplitude=0.02)
    return restored - tilt * (grid.x - grid.widths[0] / 2) - relief


DEFORMATIONS: dict[str, Callable[[np.random.Generator, Grid], np.ndarray]] = {
    "flat": _flat,
    "dipping": _dipping,
    "folded": _folded,
    "faulted": _faulted,
}


def undo_thrust(
    rng: np.random.Generator,
    grid: Grid,
    along: np.ndarray,
    z: np.ndarray,
    slot: float,
    towards: float,
    detachment: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Carries the hanging wall of one thrust back to where it came from."""
    dip = np.radians(rng.uniform(22.0, 42.0))
    middle = slot * grid.widths[0]
    rise = 1.15 * detachment
    # Where the ramp leaves the detachment it bends over a tenth of its length.
    bend = 0.1 * rise / np.tan(dip)
    slip = rng.uniform(0.12, 0.3) * grid.depth

    def surface(position):
        run = towards * (position - middle) + 0.5 * rise / np.tan(dip)
        climb = bend * np.logaddexp(0.0, run / bend)
        return detachment - np.tan(dip) * climb

    fault = surface(along)
    # Only what lies above the fault has moved.
    hanging_wall = z < fault
    restored = along - towards * slip
    return (
        np.where(hanging_wall, restored, along),
        np.where(hanging_wall, z - fault + surface(restored), z),
    )
