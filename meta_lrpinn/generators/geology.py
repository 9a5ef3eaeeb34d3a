"""What synthetic models are made of: their grid, deformations, layers, salt and lenses.

A deformation gives the stratigraphic depth of every grid point, in km: the depth at which
its rock was laid down.
"""

from collections.abc import Callable, Sequence

import numpy as np

from meta_lrpinn.physics.velocity import VelocityModel

WATER = 1.5  # km/s


class Grid:
    """Coordinates of a grid, shaped to broadcast against each other."""

    def __init__(self, shape: Sequence[int], spacing: float | Sequence[float]):
        if len(shape) not in (2, 3) or min(shape) < 2:
            raise ValueError(
                "shape must be (nz, nx) or (nz, ny, nx), at least 2 each, "
                f"got {tuple(shape)}"
            )
        # The container checks the spacing, so that it is checked in one place.
        self.spacing = VelocityModel(np.ones(tuple(shape)), spacing).spacing
        self.shape = tuple(int(n) for n in shape)
        axes = np.meshgrid(
            *(h * np.arange(n) for h, n in zip(self.spacing, shape, strict=True)),
            indexing="ij",
            sparse=True,
        )
        self.z, self.x = axes[0], axes[-1]  # km
        self.horizontal = axes[:0:-1]  # [x] or [x, y] [km]
        self.depth = float(self.z.max())  # km
        self.widths = [float(axis.max()) for axis in self.horizontal]  # km

    def full(self, values: np.ndarray) -> np.ndarray:
        """The values at every grid point, in single precision."""
        return np.broadcast_to(values, self.shape).astype(np.float32)

    def skew(self, rng: np.random.Generator, slope: float) -> np.ndarray | float:
        """A shift along x that grows with y, so that 3D structures run obliquely."""
        if len(self.horizontal) == 1:
            return 0.0
        return rng.uniform(-slope, slope) * self.horizontal[1]


def begin(
    seed: int,
    shape: Sequence[int],
    spacing: float | Sequence[float],
    minimum: float,
    maximum: float,
) -> tuple[np.random.Generator, Grid]:
    """Random numbers of a seed, and the grid; ValueError where an argument is wrong."""
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"seed must be a whole number from 0 up, got {seed!r}")
    grid = Grid(shape, spacing)
    if not 0 < minimum < maximum < np.inf:
        raise ValueError(
            f"velocities must be 0 < minimum < maximum, got {minimum} and {maximum} km/s"
        )
    return np.random.default_rng(int(seed)), grid


def finished(
    velocity: np.ndarray,
    grid: Grid,
    minimum: float,
    maximum: float,
    smoothing: float,
) -> VelocityModel:
    """The model of a velocity, smoothed over a length [km] and within its bounds."""
    model = VelocityModel(grid.full(velocity), grid.spacing).smoothed(smoothing)
    # Rounding to float32 may step over the bounds by one unit in the last place.
    return model.replace_velocity(np.clip(model.velocity, minimum, maximum))


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
    for position in (np.arange(count) + rng.uniform(0.25, 0.75, count)) / count:
        # Measured from mid-depth, so that every fault cuts the model.
        steepness = np.tan(np.radians(rng.uniform(50.0, 75.0)))
        towards = rng.choice([-1.0, 1.0])
        plane = position * grid.widths[0] + towards * (grid.z - grid.depth / 2) / steepness
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
