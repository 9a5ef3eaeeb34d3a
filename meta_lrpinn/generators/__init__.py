"""Synthetic velocity models, each a pure function of its arguments and its seed.

Rocks are laid down in flat layers and then deformed, so a model is made the other way
round: every grid point is restored to the stratigraphic depth at which its rock was
laid down, and the velocity is looked up there. Lengths are in km, velocities in km/s,
shapes (nz, nx) or (nz, ny, nx); every generator works in 2D and in 3D.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from meta_lrpinn.velocity import VelocityModel

STRUCTURES = ("flat", "dipping", "folded", "faulted")
WATER = 1.5  # km/s


def layered(
    seed: int,
    *,
    shape: Sequence[int] = (91, 91),
    spacing: float | Sequence[float] = 0.025,
    minimum: float = 1.5,
    maximum: float = 5.0,
    structure: str = "random",
    layers: tuple[int, int] = (3, 9),
    smoothing: float = 0.05,
) -> VelocityModel:
    """Layers whose velocity grows with depth, but for the odd inversion.

    Args:
        seed: Seed of the random choices.
        shape: Grid points, (nz, nx) or (nz, ny, nx).
        spacing: Grid spacing in array order, or one number [km].
        minimum: No velocity is below it [km/s].
        maximum: No velocity is above it [km/s].
        structure: "flat", "dipping", "folded", "faulted" or "random", one of these.
        layers: Fewest and most layers, a layer of water included.
        smoothing: Standard deviation of the Gaussian smoothing of slowness [km].

    Returns:
        The model; nearly half of all seeds have a layer of water on top.

    Raises:
        ValueError: If an argument makes no sense.
    """
    if structure not in ("random", *STRUCTURES):
        raise ValueError(
            f"structure must be random, {', '.join(STRUCTURES)}, got {structure!r}"
        )
    fewest, most = layers
    if not 1 <= fewest <= most:
        raise ValueError(f"layers must be (fewest, most) from 1 up, got {layers}")
    rng = _rng(seed)
    grid = _Grid(shape, spacing)
    _check_range(minimum, maximum)
    if structure == "random":
        structure = str(rng.choice(STRUCTURES))
    count = int(rng.integers(fewest, most + 1))
    seafloor = None
    if count > 1 and rng.random() < 0.45:
        count -= 1
        seafloor = _seafloor(rng, grid, flat=structure == "flat")
    stratigraphic = _DEFORMATIONS[structure](rng, grid)
    velocity = _lay_down(rng, stratigraphic, count, minimum, maximum, grid.depth, seafloor)
    if seafloor is not None:
        velocity = np.where(grid.z < seafloor, np.clip(WATER, minimum, maximum), velocity)
    return _finished(velocity, grid, minimum, maximum, smoothing)


def thrust_belt(
    seed: int,
    *,
    shape: Sequence[int] = (101, 251),
    spacing: float | Sequence[float] = 0.025,
    minimum: float = 2.2,
    maximum: float = 6.0,
    faults: tuple[int, int] = (3, 5),
    smoothing: float = 0.0,
) -> VelocityModel:
    """A fold-and-thrust belt: folded layers stacked along ramps over a detachment.

    Each fault flattens into a common detachment. Its hanging wall is carried up the
    ramp by shear parallel to the fault, which bends it into an anticline; the basement
    below stays as it was, and the surface is eroded flat.

    Args:
        seed: Seed of the random choices.
        shape: Grid points, (nz, nx) or (nz, ny, nx).
        spacing: Grid spacing in array order, or one number [km].
        minimum: No velocity is below it [km/s].
        maximum: No velocity is above it [km/s].
        faults: Fewest and most thrust faults.
        smoothing: Standard deviation of the Gaussian smoothing of slowness [km].

    Returns:
        The model.

    Raises:
        ValueError: If an argument makes no sense.
    """
    fewest, most = faults
    if not 1 <= fewest <= most:
        raise ValueError(f"faults must be (fewest, most) from 1 up, got {faults}")
    rng = _rng(seed)
    grid = _Grid(shape, spacing)
    _check_range(minimum, maximum)
    detachment = rng.uniform(0.72, 0.86) * grid.depth
    # Present-day points are carried back through the faults, the youngest first.
    along, z = grid.x + grid.skew(rng, 0.25), grid.z
    count = int(rng.integers(fewest, most + 1))
    slots = (np.arange(count) + rng.uniform(0.3, 0.7, count)) / count
    towards = rng.choice([-1.0, 1.0])
    for slot in np.sort(slots)[:: int(towards)]:
        along, z = _undo_thrust(rng, grid, along, z, slot, towards, detachment)
    folds = _folds(rng, grid, along, amplitude=0.03)
    quieter = np.clip(2.5 - 2.0 * z / detachment, 0.25, 1.0)
    stratigraphic = z - folds * quieter
    velocity = _lay_down(
        rng,
        stratigraphic,
        int(rng.integers(12, 19)),
        minimum + 0.1 * (maximum - minimum),
        maximum,
        grid.depth,
        inversions=0.35,
    )
    # Young sediments fill the relief that erosion left.
    cover = 0.03 * grid.depth + _folds(rng, grid, grid.x, amplitude=0.025)
    soft = minimum + rng.uniform(0.0, 0.1) * (maximum - minimum)
    velocity = np.where(grid.z < cover, soft, velocity)
    return _finished(velocity, grid, minimum, maximum, smoothing)


def salt_body(
    seed: int,
    *,
    shape: Sequence[int] = (101, 151),
    spacing: float | Sequence[float] = 0.025,
    minimum: float = 1.5,
    maximum: float = 4.0,
    salt: float = 4.5,
) -> VelocityModel:
    """Sediments pierced by an irregular body of salt with sharp edges.

    Args:
        seed: Seed of the random choices.
        shape: Grid points, (nz, nx) or (nz, ny, nx).
        spacing: Grid spacing in array order, or one number [km].
        minimum: No sediment is slower [km/s].
        maximum: No sediment is faster [km/s].
        salt: Velocity of the salt [km/s].

    Returns:
        The model; nothing in it is smoothed.

    Raises:
        ValueError: If an argument makes no sense.
    """
    rng = _rng(seed)
    grid = _Grid(shape, spacing)
    _check_range(minimum, maximum)
    if not (np.isfinite(salt) and salt > 0):
        raise ValueError(f"salt velocity must be positive, got {salt} km/s")
    width = min(grid.depth, *grid.widths)
    centre = np.array(
        [rng.uniform(0.38, 0.62) * w for w in grid.widths]
        + [rng.uniform(0.38, 0.5) * grid.depth]
    )
    radii = np.array(
        [rng.uniform(0.28, 0.42) * width for _ in grid.widths]
        + [rng.uniform(0.13, 0.2) * grid.depth]
    )
    points = [*grid.horizontal, grid.z]
    inside = _irregular_body(rng, grid, points, centre, radii)
    if rng.random() < 0.7:
        inside |= _salt_stem(rng, grid, points, centre, radii)
    distance = sum(
        ((axis - c) / (1.6 * r)) ** 2
        for axis, c, r in zip(grid.horizontal, centre, radii, strict=False)
    )
    # The rising salt has dragged up the layers around it.
    drag = rng.uniform(0.08, 0.16) * np.exp(-distance)
    stratigraphic = grid.z + drag * grid.z * (2.0 - grid.z / grid.depth)
    stratigraphic = stratigraphic - _folds(rng, grid, grid.x, amplitude=0.015)
    seafloor = _seafloor(rng, grid, flat=False)
    layers = _lay_down(
        rng,
        stratigraphic,
        int(rng.integers(9, 15)),
        minimum,
        maximum,
        grid.depth,
        seafloor,
        inversions=0.25,
    )
    ramp = minimum + (maximum - minimum) * 0.85 * np.clip(
        (stratigraphic - seafloor) / grid.depth, 0.0, 1.0
    )
    velocity = np.clip(0.45 * ramp + 0.55 * layers, minimum, maximum)
    velocity = np.where(inside, salt, velocity)
    velocity = np.where(grid.z < seafloor, np.clip(WATER, minimum, maximum), velocity)
    return VelocityModel(grid.full(velocity), grid.spacing)


def smooth_inclusion(
    *,
    shape: Sequence[int] = (91, 91),
    spacing: float | Sequence[float] = 0.025,
    background: float = 2.0,
    peak: float = 2.5,
    center: Sequence[float] | None = None,
    radius: float | None = None,
    profile: str = "gaussian",
) -> VelocityModel:
    """A homogeneous medium with one smooth, round inclusion.

    Args:
        shape: Grid points, (nz, nx) or (nz, ny, nx).
        spacing: Grid spacing in array order, or one number [km].
        background: Velocity far from the inclusion [km/s].
        peak: Velocity at its centre [km/s].
        center: Its centre, (x, z) or (x, y, z); the model's by default [km].
        radius: Standard deviation of the Gaussian, or radius of the compact
            inclusion; by default an eighth, or a quarter, of the shortest side [km].
        profile: "gaussian", or "compact": the bump exp(1 - 1/(1 - r²/R²)), which has
            all derivatives and is exactly zero from R on.

    Returns:
        The model.

    Raises:
        ValueError: If an argument makes no sense.
    """
    if profile not in ("gaussian", "compact"):
        raise ValueError(f"profile must be gaussian or compact, got {profile!r}")
    grid = _Grid(shape, spacing)
    for what, value in (("background", background), ("peak", peak)):
        if not (np.isfinite(value) and value > 0):
            raise ValueError(f"{what} must be positive, got {value} km/s")
    extents = (*grid.widths, grid.depth)
    if radius is None:
        radius = min(extents) / (8 if profile == "gaussian" else 4)
    if not (np.isfinite(radius) and radius > 0):
        raise ValueError(f"radius must be positive, got {radius} km")
    if center is None:
        center = [extent / 2 for extent in extents]
    if len(center) != len(extents):
        raise ValueError(f"center must have {len(extents)} coordinates, got {center}")
    squared = sum(
        ((axis - c) / radius) ** 2
        for axis, c in zip((*grid.horizontal, grid.z), center, strict=True)
    )
    if profile == "gaussian":
        bump = np.exp(-squared / 2)
    else:
        bump = np.exp(1.0 - 1.0 / np.maximum(1.0 - squared, 1e-3))
        bump = np.where(squared < 1.0, bump, 0.0)
    velocity = background + (peak - background) * bump
    return VelocityModel(grid.full(velocity), grid.spacing)


def random_velocity(
    seed: int,
    shape: Sequence[int] = (91, 91),
    spacing: float | Sequence[float] = 0.025,
    *,
    minimum: float = 1.5,
    maximum: float = 5.0,
) -> VelocityModel:
    """One draw from the distribution that meta-training uses.

    A mixture of flat, dipping, folded and faulted layers and of plain gradients, some
    with lenses or with gradients inside the layers, smoothed over 0 to 0.1 km.

    Args:
        seed: Seed of the random choices.
        shape: Grid points, (nz, nx) or (nz, ny, nx).
        spacing: Grid spacing in array order, or one number [km].
        minimum: No velocity is below it [km/s].
        maximum: No velocity is above it [km/s].

    Returns:
        The model.

    Raises:
        ValueError: If an argument makes no sense.
    """
    rng = _rng(seed)
    grid = _Grid(shape, spacing)
    _check_range(minimum, maximum)
    kind = str(rng.choice([*STRUCTURES, "gradient"], p=[0.15, 0.20, 0.30, 0.25, 0.10]))
    span = maximum - minimum
    smoothing = rng.uniform(0.0, 0.1)
    gradient = _gradient(rng, grid, minimum, span)
    if kind == "gradient":
        velocity = gradient
    else:
        velocity = layered(
            int(rng.integers(2**31)),
            shape=shape,
            spacing=spacing,
            minimum=minimum,
            maximum=maximum,
            structure=kind,
            smoothing=0.0,
        ).velocity
        if rng.random() < 0.3:
            share = rng.uniform(0.2, 0.6)
            velocity = (1.0 - share) * velocity + share * gradient
    if rng.random() < 0.3:
        for _ in range(rng.integers(1, 4)):
            velocity = velocity + _lens(rng, grid, span)
    velocity = np.clip(velocity, minimum, maximum)
    return _finished(velocity, grid, minimum, maximum, smoothing)


def builtin(name: str) -> VelocityModel:
    """One of the models that come with the package, by name.

    Args:
        name: A key of `BUILTIN`.

    Raises:
        ValueError: If there is no such model.
    """
    if name not in BUILTIN:
        raise ValueError(
            f"there is no built-in model {name!r}; choose one of {', '.join(BUILTIN)}"
        )
    return BUILTIN[name]()


def _builtin_layered() -> VelocityModel:
    """Water over folded and dipping layers, 2.5 km wide and deep, 1.5 to 4 km/s."""
    grid = _Grid((101, 101), 0.025)
    x = grid.x
    arch = np.exp(-(((x - 1.45) / 0.55) ** 2))
    seafloor = 0.26 + 0.025 * np.sin(2 * np.pi * x / 1.9 + 0.4)
    interfaces = (
        (seafloor, 1.80),
        (0.55 + 0.03 * np.sin(2 * np.pi * x / 1.6) - 0.07 * arch, 2.10),
        (0.84 + 0.05 * x - 0.16 * arch, 2.55),
        (1.15 + 0.07 * x - 0.24 * arch, 2.35),
        (1.42 + 0.09 * x - 0.27 * arch, 3.00),
        (1.78 + 0.06 * x - 0.20 * arch, 3.45),
        (2.18 - 0.08 * (x - 1.25), 4.00),
    )
    velocity = np.full(grid.shape, WATER)
    for depth, speed in interfaces:
        velocity = np.where(grid.z >= depth, speed, velocity)
    return _finished(velocity, grid, 1.5, 4.0, 0.05)


BUILTIN: dict[str, Callable[[], VelocityModel]] = {
    "layered": _builtin_layered,
    "thrust": lambda: thrust_belt(5),
    "salt": lambda: salt_body(5),
    "inclusion": smooth_inclusion,
    "layered_3d": lambda: layered(3, shape=(41, 41, 41), structure="folded", maximum=4.0),
}


class _Grid:
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
        self.horizontal = axes[:0:-1]  # [x] or [x, y], km
        self.depth = float(self.z.max())  # km
        self.widths = [float(axis.max()) for axis in self.horizontal]  # km

    def full(self, values: np.ndarray) -> np.ndarray:
        return np.broadcast_to(values, self.shape).astype(np.float32)

    def skew(self, rng: np.random.Generator, slope: float) -> np.ndarray | float:
        """A shift along x that grows with y, so that 3D structures run obliquely."""
        if len(self.horizontal) == 1:
            return 0.0
        return rng.uniform(-slope, slope) * self.horizontal[1]


def _rng(seed: int) -> np.random.Generator:
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"seed must be a whole number from 0 up, got {seed!r}")
    return np.random.default_rng(int(seed))


def _check_range(minimum: float, maximum: float) -> None:
    if not 0 < minimum < maximum < np.inf:
        raise ValueError(
            f"velocities must be 0 < minimum < maximum, got {minimum} and {maximum} km/s"
        )


def _finished(
    velocity: np.ndarray,
    grid: _Grid,
    minimum: float,
    maximum: float,
    smoothing: float,
) -> VelocityModel:
    model = VelocityModel(grid.full(velocity), grid.spacing).smoothed(smoothing)
    # Rounding to float32 may step over the bounds by one unit in the last place.
    return model.replace_velocity(np.clip(model.velocity, minimum, maximum))


def _lay_down(
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
    thickness = rng.uniform(0.5, 1.5, count) * np.linspace(0.7, 1.3, count)
    edges = top + (bottom - top) * np.cumsum(thickness) / thickness.sum()
    middles = np.cumsum(thickness) - thickness / 2
    middles = (middles - middles[0]) / max(middles[-1] - middles[0], 1e-12)
    span = maximum - minimum
    first = rng.uniform(0.0, 0.25)
    last = rng.uniform(0.55, 1.0)
    trend = first + (last - first) * middles ** rng.uniform(0.7, 1.2)
    trend = trend + rng.normal(0.0, 0.035, count)
    drops = rng.random(count) < inversions
    drops[0] = False
    trend = trend - drops * rng.uniform(0.08, 0.2, count)
    speeds = minimum + span * np.clip(trend, 0.0, 1.0)
    return speeds[np.searchsorted(edges[:-1], stratigraphic, side="right")]


def _seafloor(rng: np.random.Generator, grid: _Grid, *, flat: bool) -> np.ndarray | float:
    depth = rng.uniform(0.06, 0.16) * grid.depth
    if flat:
        return depth
    return depth + 0.3 * np.clip(_folds(rng, grid, grid.x, amplitude=0.04), -depth, depth)


def _folds(
    rng: np.random.Generator,
    grid: _Grid,
    along: np.ndarray,
    *,
    amplitude: float,
) -> np.ndarray:
    """Relief from a few sines, `amplitude` being its typical share of the depth."""
    longest = min(2.0 * grid.depth, 1.3 * grid.widths[0])
    relief = 0.0
    along = along + grid.skew(rng, 0.8)
    for _ in range(3):
        wavelength = longest * rng.uniform(0.45, 1.3)
        phase = rng.uniform(0.0, 2 * np.pi)
        # Short folds are lower, so that no interface gets steeper than rocks do.
        height = amplitude * grid.depth * wavelength / longest * rng.uniform(0.4, 1.2)
        relief = relief + height * np.sin(2 * np.pi * along / wavelength + phase)
    return relief


def _flat(rng: np.random.Generator, grid: _Grid) -> np.ndarray:
    return grid.z + np.zeros(grid.shape)


def _dipping(rng: np.random.Generator, grid: _Grid) -> np.ndarray:
    relief = 0.0
    for axis, width in zip(grid.horizontal, grid.widths, strict=True):
        slope = rng.choice([-1.0, 1.0]) * rng.uniform(0.08, 0.35)
        slope *= min(1.0, 1.5 * grid.depth / width)
        relief = relief + slope * (axis - width / 2)
    return grid.z - relief


def _folded(rng: np.random.Generator, grid: _Grid) -> np.ndarray:
    tilt = rng.uniform(-0.1, 0.1) * min(1.0, grid.depth / grid.widths[0])
    relief = _folds(rng, grid, grid.x, amplitude=rng.uniform(0.04, 0.1))
    growth = rng.uniform(0.5, 1.0) + 0.5 * grid.z / grid.depth
    return grid.z - tilt * (grid.x - grid.widths[0] / 2) - relief * growth


def _faulted(rng: np.random.Generator, grid: _Grid) -> np.ndarray:
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
    relief = _folds(rng, grid, grid.x, amplitude=0.02)
    return restored - tilt * (grid.x - grid.widths[0] / 2) - relief


_DEFORMATIONS: dict[str, Callable[[np.random.Generator, _Grid], np.ndarray]] = {
    "flat": _flat,
    "dipping": _dipping,
    "folded": _folded,
    "faulted": _faulted,
}


def _undo_thrust(
    rng: np.random.Generator,
    grid: _Grid,
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
    hanging_wall = z < fault
    restored = along - towards * slip
    return (
        np.where(hanging_wall, restored, along),
        np.where(hanging_wall, z - fault + surface(restored), z),
    )


def _irregular_body(
    rng: np.random.Generator,
    grid: _Grid,
    points: Sequence[np.ndarray],
    centre: np.ndarray,
    radii: np.ndarray,
) -> np.ndarray:
    """Points inside an ellipsoid whose radius varies with direction."""
    offsets = [(axis - c) / r for axis, c, r in zip(points, centre, radii, strict=True)]
    distance = np.sqrt(sum(offset**2 for offset in offsets)) + 1e-12
    radius = 1.0
    for order in (1.0, 1.8, 2.7, 4.0, 6.0):
        way = rng.normal(size=len(points))
        way = order * way / np.linalg.norm(way)
        angle = sum(w * o / distance for w, o in zip(way, offsets, strict=True))
        height = rng.uniform(0.5, 1.0) * 0.2 / order**0.7
        radius = radius + height * np.cos(1.6 * angle + rng.uniform(0, 2 * np.pi))
    return distance < radius


def _salt_stem(
    rng: np.random.Generator,
    grid: _Grid,
    points: Sequence[np.ndarray],
    centre: np.ndarray,
    radii: np.ndarray,
) -> np.ndarray:
    """Points inside the stem that feeds a salt body from the base of the model."""
    below = np.clip((grid.z - centre[-1]) / (grid.depth - centre[-1]), 0.0, 1.0)
    width = radii[0] * (rng.uniform(0.25, 0.4) + rng.uniform(0.3, 0.9) * below**3)
    lean = rng.uniform(-0.5, 0.5) * radii[0]
    wiggle = 0.08 * radii[0] * np.sin(rng.uniform(4, 9) * below + rng.uniform(0, 6))
    axis = lean * below + wiggle
    distance = sum(
        (axis_points - c - axis * (column == 0)) ** 2
        for column, (axis_points, c) in enumerate(
            zip(points[:-1], centre[:-1], strict=True)
        )
    )
    return (distance < width**2) & (grid.z > centre[-1])


def _gradient(
    rng: np.random.Generator, grid: _Grid, minimum: float, span: float
) -> np.ndarray:
    """Velocity that grows steadily with depth and drifts sideways."""
    top = rng.uniform(0.0, 0.35)
    bottom = rng.uniform(0.45, 1.0)
    share = top + (bottom - top) * (grid.z / grid.depth) ** rng.uniform(0.7, 1.3)
    for axis, width in zip(grid.horizontal, grid.widths, strict=True):
        share = share + rng.uniform(-0.1, 0.1) * (axis / width - 0.5)
    return minimum + span * np.clip(share, 0.0, 1.0)


def _lens(rng: np.random.Generator, grid: _Grid, span: float) -> np.ndarray:
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
