"""What lies in the ground: layers, seafloor, salt, gradients and lenses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from meta_lrpinn.generators.deformations import fold_relief
from meta_lrpinn.generators.grid import Grid

WATER = 1.5  # km/s


def lay_down(
    rng: np.random.Generator,
    stratigraphic: np.ndarray,
    count: int,
    minimum: float,
    maximum: float,
    depth: float,
    seafloor: np.ndarray | float | None = None,
    inversions: float = 0.15,
) -> np.ndarray:
    """Velocity at stratigraphic depths, from layers that grow faster downwards."""
    top = float(np.min(stratigraphic if seafloor is None else seafloor))
    top = max(top, float(np.min(stratigraphic)))
    bottom = max(float(np.max(stratigraphic)), top + 0.5 * depth)
    # Layers grow thicker downwards, as wavelengths do.
    thickness = rng.uniform(0.5, 1.5, count) * np.linspace(0.7, 1.3, count)
    edges = top + (bottom - top) * np.cumsum(thickness) / thickness.sum()
    middles = np.cumsum(thickness) - thickness / 2
    middles = (middles - middles[0]) / max(middles[-1] - middles[0], 1e-12)
    span = maximum - minimum
    first = rng.uniform(0.0, 0.25)
    last = rng.uniform(0.55, 1.0)
    trend = first + (last - first) * middles ** rng.uniform(0.7, 1.2)
    # Neighbouring layers of equal velocity would reflect nothing.
    trend = trend + rng.normal(0.0, 0.035, count)
    drops = rng.random(count) < inversions
    drops[0] = False  # there is nothing above the first layer to be slower than
    trend = trend - drops * rng.uniform(0.08, 0.2, count)
    speeds = minimum + span * np.clip(trend, 0.0, 1.0)
    return speeds[np.searchsorted(edges[:-1], stratigraphic, side="right")]


def seafloor_depth(
    rng: np.random.Generator, grid: Grid, *, flat: bool
) -> np.ndarray | float:
    """Depth of the seafloor, one number where it is flat [km]."""
    depth = rng.uniform(0.06, 0.16) * grid.depth
    if flat:
        return depth
    return depth + 0.3 * np.clip(
        fold_relief(rng, grid, grid.x, amplitude=0.04), -depth, depth
    )


def irregular_body(
    rng: np.random.Generator,
    points: Sequence[np.ndarray],
    centre: np.ndarray,
    radii: np.ndarray,
) -> np.ndarray:
    """Points inside an ellipsoid whose radius varies with direction."""
    offsets = [(axis - c) / r for axis, c, r in zip(points, centre, radii, strict=True)]
    distance = np.sqrt(sum(offset**2 for offset in offsets)) + 1e-12  # never 0/0
    radius = 1.0
    for order in (1.0, 1.8, 2.7, 4.0, 6.0):
        way = rng.normal(size=len(points))
        way = order * way / np.linalg.norm(way)
        angle = sum(w * o / distance for w, o in zip(way, offsets, strict=True))
        # Finer bumps are lower, so that the body stays in one piece.
        height = rng.uniform(0.5, 1.0) * 0.2 / order**0.7
        radius = radius + height * np.cos(1.6 * angle + rng.uniform(0, 2 * np.pi))
    return distance < radius


def salt_stem(
    rng: np.random.Generator,
    grid: Grid,
    points: Sequence[np.ndarray],
    centre: np.ndarray,
    radii: np.ndarray,
) -> np.ndarray:
    """Points inside the stem that feeds a salt body from the base of the model."""
    below = np.clip((grid.z - centre[-1]) / (grid.depth - centre[-1]), 0.0, 1.0)
    width = radii[0] * (rng.uniform(0.25, 0.4) + rng.uniform(0.3, 0.9) * below**3)
    lean = rng.uniform(-0.5, 0.5) * radii[0]
    # A straight stem would not look like salt.
    wiggle = 0.08 * radii[0] * np.sin(rng.uniform(4, 9) * below + rng.uniform(0, 6))
    axis = lean * below + wiggle
    distance = sum(
        (axis_points - c - axis * (column == 0)) ** 2
        for column, (axis_points, c) in enumerate(
            zip(points[:-1], centre[:-1], strict=True)
        )
    )
    return (distance < width**2) & (grid.z > centre[-1])


def velocity_gradient(
    rng: np.random.Generator, grid: Grid, minimum: float, span: float
) -> np.ndarray:
    """Velocity that grows steadily with depth and drifts sideways."""
    top = rng.uniform(0.0, 0.35)
    bottom = rng.uniform(0.45, 1.0)
    fraction = top + (bottom - top) * (grid.z / grid.depth) ** rng.uniform(0.7, 1.3)
    for axis, width in zip(grid.horizontal, grid.widths, strict=True):
        fraction = fraction + rng.uniform(-0.1, 0.1) * (axis / width - 0.5)
    return minimum + span * np.clip(fraction, 0.0, 1.0)


def lens(rng: np.random.Generator, grid: Grid, span: float) -> np.ndarray:
    """A flat smooth inclusion, faster or slower than its surroundings."""
    squared = (
        (grid.z - rng.uniform(0.2, 0.9) * grid.depth)
        / (rng.uniform(0.04, 0.12) * grid.depth)
    ) ** 2
    for axis, width in zip(grid.horizontal, grid.widths, strict=True):
        half = rng.uniform(0.08, 0.25) * min(width, grid.depth)
        squared = squared + ((axis - rng.uniform(0.1, 0.9) * width) / half) ** 2
    change = rng.choice([-1.0, 1.0]) * rng.uniform(0.06, 0.2) * span
    # Nearly constant inside, with an edge: exp(-r⁴) rather than exp(-r²).
    return change * np.exp(-(squared**2))
