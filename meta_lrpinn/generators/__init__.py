"""Synthetic velocity models, each a pure function of its arguments and its seed.

Rocks are laid down in flat layers and then deformed, so a model is made the other way
round: every grid point is restored to the stratigraphic depth at which its rock was
laid down, and the velocity is looked up there. Every generator works in 2D and in 3D, and
raises ValueError where an argument makes no sense. Arguments that they share:

    seed: Of the random choices, a whole number from 0 up.
    shape: Grid points, (nz, nx) or (nz, ny, nx).
    spacing: Grid spacing in array order, or one number [km].
    minimum, maximum: Between which all velocities lie [km/s].
    smoothing: Standard deviation of the Gaussian smoothing of slowness [km].
"""

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from meta_lrpinn.generators.geology import (
    DEFORMATIONS,
    WATER,
    Grid,
    begin,
    finished,
    fold_relief,
    irregular_body,
    lay_down,
    lens,
    salt_stem,
    seafloor_depth,
    undo_thrust,
    velocity_gradient,
)
from meta_lrpinn.physics.velocity import VelocityModel

# None of the ranges and probabilities in this package is tuned. They are plausible geology,
# and the shipped initialisations were trained on what they give: a change asks for new
# training, new seeds in experiments, and new figures.
STRUCTURES = ("flat", "dipping", "folded", "faulted")


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
        structure: "flat", "dipping", "folded", "faulted" or "random", one of these.
        layers: Fewest and most layers, a layer of water included.

    Returns:
        The model; nearly half of all seeds have a layer of water on top.
    """
    if structure not in ("random", *STRUCTURES):
        raise ValueError(
            f"structure must be random, {', '.join(STRUCTURES)}, got {structure!r}"
        )
    fewest, most = layers
    if not 1 <= fewest <= most:
        raise ValueError(f"layers must be (fewest, most) from 1 up, got {layers}")
    rng, grid = begin(seed, shape, spacing, minimum, maximum)
    if structure == "random":
        structure = str(rng.choice(STRUCTURES))
    count = int(rng.integers(fewest, most + 1))
    seafloor = None
    # Water takes the place of a layer of rock, so that their number is as drawn.
    if count > 1 and rng.random() < 0.45:
        count -= 1
        seafloor = seafloor_depth(rng, grid, flat=structure == "flat")
    stratigraphic = DEFORMATIONS[structure](rng, grid)
    velocity = lay_down(rng, stratigraphic, count, minimum, maximum, grid.depth, seafloor)
    if seafloor is not None:
        velocity = np.where(grid.z < seafloor, np.clip(WATER, minimum, maximum), velocity)
    return finished(velocity, grid, minimum, maximum, smoothing)


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
        faults: Fewest and most thrust faults.
    """
    fewest, most = faults
    if not 1 <= fewest <= most:
        raise ValueError(f"faults must be (fewest, most) from 1 up, got {faults}")
    rng, grid = begin(seed, shape, spacing, minimum, maximum)
    detachment = rng.uniform(0.72, 0.86) * grid.depth
    # Present-day points are carried back through the faults, the youngest first.
    along, z = grid.x + grid.skew(rng, 0.25), grid.z
    count = int(rng.integers(fewest, most + 1))
    slots = (np.arange(count) + rng.uniform(0.3, 0.7, count)) / count
    towards = rng.choice([-1.0, 1.0])
    for slot in np.sort(slots)[:: int(towards)]:
        along, z = undo_thrust(rng, grid, along, z, slot, towards, detachment)
    folds = fold_relief(rng, grid, along, amplitude=0.03)
    # Folds are gentler near the detachment and below it, where little has moved.
    quieter = np.clip(2.5 - 2.0 * z / detachment, 0.25, 1.0)
    stratigraphic = z - folds * quieter
    velocity = lay_down(
        rng,
        stratigraphic,
        int(rng.integers(12, 19)),
        minimum + 0.1 * (maximum - minimum),
        maximum,
        grid.depth,
        inversions=0.35,
    )
    # Young sediments fill the relief that erosion left.
    cover = 0.03 * grid.depth + fold_relief(rng, grid, grid.x, amplitude=0.025)
    soft = minimum + rng.uniform(0.0, 0.1) * (maximum - minimum)
    velocity = np.where(grid.z < cover, soft, velocity)
    return finished(velocity, grid, minimum, maximum, smoothing)


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
        minimum: No sediment is slower, and none is faster than `maximum` [km/s].
        salt: Velocity of the salt [km/s].

    Returns:
        The model; nothing in it is smoothed.
    """
    rng, grid = begin(seed, shape, spacing, minimum, maximum)
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
    # Applied last, to finished sediments, so that its edges stay sharp.
    inside = irregular_body(rng, points, centre, radii)
    if rng.random() < 0.7:
        inside |= salt_stem(rng, grid, points, centre, radii)
    distance = sum(
        ((axis - c) / (1.6 * r)) ** 2
        for axis, c, r in zip(grid.horizontal, centre, radii, strict=False)
    )
    # The rising salt has dragged up the layers around it.
    drag = rng.uniform(0.08, 0.16) * np.exp(-distance)
    stratigraphic = grid.z + drag * grid.z * (2.0 - grid.z / grid.depth)
    stratigraphic = stratigraphic - fold_relief(rng, grid, grid.x, amplitude=0.015)
    seafloor = seafloor_depth(rng, grid, flat=False)
    layers = lay_down(
        rng,
        stratigraphic,
        int(rng.integers(9, 15)),
        minimum,
        maximum,
        grid.depth,
        seafloor,
        inversions=0.25,
    )
    # Compaction: velocity grows steadily with depth, and layers stand out on that ramp.
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
    centre: Sequence[float] | None = None,
    radius: float | None = None,
    profile: str = "gaussian",
) -> VelocityModel:
    """A homogeneous medium with one smooth, round inclusion.

    Args:
        background: Velocity far from the inclusion [km/s].
        peak: Velocity at its centre [km/s].
        centre: Its centre, (x, z) or (x, y, z); the model's by default [km].
        radius: Standard deviation of the Gaussian, or radius of the compact
            inclusion; by default an eighth, or a quarter, of the shortest side [km].
        profile: "gaussian", or "compact": the bump exp(1 - 1/(1 - r²/R²)), which has
            all derivatives and is exactly zero from R on.
    """
    if profile not in ("gaussian", "compact"):
        raise ValueError(f"profile must be gaussian or compact, got {profile!r}")
    grid = Grid(shape, spacing)
    extents = (*grid.widths, grid.depth)
    if radius is None:
        radius = min(extents) / (8 if profile == "gaussian" else 4)
    speeds = ("background", background, "km/s"), ("peak", peak, "km/s")
    for what, value, unit in (*speeds, ("radius", radius, "km")):
        if not (np.isfinite(value) and value > 0):
            raise ValueError(f"{what} must be positive, got {value} {unit}")
    if centre is None:
        centre = [extent / 2 for extent in extents]
    if len(centre) != len(extents):
        raise ValueError(f"centre must have {len(extents)} coordinates, got {centre}")
    squared = sum(
        ((axis - c) / radius) ** 2
        for axis, c in zip((*grid.horizontal, grid.z), centre, strict=True)
    )
    if profile == "gaussian":
        bump = np.exp(-squared / 2)
    else:
        # The floor keeps the quotient finite; e^{-1000} is zero there in any precision.
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
    """
    rng, grid = begin(seed, shape, spacing, minimum, maximum)
    kind = str(rng.choice([*STRUCTURES, "gradient"], p=[0.15, 0.20, 0.30, 0.25, 0.10]))
    span = maximum - minimum
    smoothing = rng.uniform(0.0, 0.1)
    # Drawn for every kind, so that later draws of a seed do not depend on the kind.
    gradient = velocity_gradient(rng, grid, minimum, span)
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
            smoothing=0.0,  # once, at the end, lenses included
        ).velocity
        if rng.random() < 0.3:
            fraction = rng.uniform(0.2, 0.6)
            velocity = (1.0 - fraction) * velocity + fraction * gradient
    if rng.random() < 0.3:
        for _ in range(rng.integers(1, 4)):
            velocity = velocity + lens(rng, grid, span)
    # Lenses may step over the bounds, and smoothing must not spread what is cut off.
    velocity = np.clip(velocity, minimum, maximum)
    return finished(velocity, grid, minimum, maximum, smoothing)


def draw_model(
    velocity: Callable[[np.ndarray], np.ndarray],
    shape: Sequence[int],
    spacing: float | Sequence[float],
    origin: Sequence[float] | None = None,
    samples: int = 8,
) -> VelocityModel:
    """The model of a velocity known everywhere, with its edges where they belong.

    A node gets the mean of the squared slowness over the cell around it. A cylinder of
    radius 0.3 km drawn at 10 m by values at the nodes is off by 1.6 to 2.1 % at 10 Hz,
    drawn so by 0.7 to 1.3 % (docs/theory.md).

    Args:
        velocity: Points (n, ndim) [km] → velocities (n,) [km/s]; called up to half a cell
            beyond the grid.
        shape: As of all generators.
        spacing: Likewise [km].
        origin: First grid point, (x, z) or (x, y, z); zero by default [km].
        samples: Points of a cell along each axis.

    Raises:
        ValueError: if grid or velocities are not those of a model, or samples are not
            positive.
    """
    if samples < 1:
        raise ValueError(f"samples must be positive, got {samples}")
    # A model of ones checks shape, spacing and origin.
    grid = VelocityModel(np.ones(tuple(shape)), spacing, origin)
    nodes = grid.grid_points()
    fractions = (np.arange(samples) + 0.5) / samples - 0.5
    total = np.zeros(len(nodes))
    # Sample by sample: all of them at once would take samples^ndim times the memory.
    for offset in itertools.product(fractions, repeat=grid.ndim):
        total += np.asarray(velocity(nodes + np.array(offset) * grid.spacing[::-1])) ** -2.0
    mean = total.reshape(grid.shape) / samples**grid.ndim
    return VelocityModel(mean**-0.5, spacing, origin)


def builtin(name: str) -> VelocityModel:
    """One of the models that come with the package, by name.

    Args:
        name: A key of `BUILTIN`.

    Raises:
        ValueError: if there is no such model.
    """
    if name not in BUILTIN:
        raise ValueError(
            f"there is no built-in model {name!r}; choose one of {', '.join(BUILTIN)}"
        )
    return BUILTIN[name].make()


def _builtin_layered() -> VelocityModel:
    """Water over folded and dipping layers, 2.5 km wide and deep, 1.5 to 4 km/s."""
    grid = Grid((101, 101), 0.025)
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
    return finished(velocity, grid, 1.5, 4.0, 0.05)


class Builtin(NamedTuple):
    """A model that comes with the package."""

    make: Callable[[], VelocityModel]
    summary: str


BUILTIN: dict[str, Builtin] = {
    "layered": Builtin(_builtin_layered, "water over folded and dipping layers"),
    "thrust": Builtin(lambda: thrust_belt(5), "thrust sheets over a detachment"),
    "salt": Builtin(lambda: salt_body(5), "a salt body in sediments under water"),
    "inclusion": Builtin(smooth_inclusion, "a smooth anomaly in a constant velocity"),
    "layered_3d": Builtin(
        lambda: layered(3, shape=(41, 41, 41), structure="folded", maximum=4.0),
        "folded layers in 3D",
    ),
}
