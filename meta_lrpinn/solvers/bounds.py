"""What is common to the velocities that one prepared solver serves."""

import dataclasses
from collections.abc import Iterable

import numpy as np

from meta_lrpinn.physics.free_surface import mirrored_model
from meta_lrpinn.physics.velocity import VelocityModel


@dataclasses.dataclass(frozen=True)
class Bounds:
    """What a lattice, a layer or a grid for many velocities has to know of them."""

    lowest: VelocityModel  # the smallest velocity at every grid point
    highest: VelocityModel  # the largest
    # By array axis, (cells,), largest |Δ ln v| in a cell; None for those of the one model
    # that is its own bounds.
    steps: tuple[np.ndarray, ...] | None = None

    @property
    def are_of_one_model(self) -> bool:
        """Whether they are the bounds of a single model."""
        return self.steps is None

    def mirrored(self) -> "Bounds":
        """Of the models with their mirror images above their tops."""
        if self.steps is None:
            return bounds_of_model(mirrored_model(self.lowest))
        down, *others = self.steps
        return Bounds(
            mirrored_model(self.lowest),
            mirrored_model(self.highest),
            (np.concatenate([down[::-1], down]), *others),
        )

    def middle(self) -> VelocityModel:
        """Half-way between the smallest and the largest velocity."""
        if self.steps is None:
            return self.lowest
        return self.lowest.replace_velocity(
            (np.asarray(self.lowest.velocity) + np.asarray(self.highest.velocity)) / 2
        )

    def steepest(self) -> list[np.ndarray]:
        """For each axis a velocity whose steps along it are the largest of all [km/s].

        None for one model, which has its own steps.
        """
        velocities = []
        for axis, steps in enumerate(self.steps or ()):
            # Up and down by turns, so that it stays finite in any number of cells.
            signs = (-1.0) ** np.arange(len(steps))
            line = np.exp(np.concatenate([[0.0], np.cumsum(signs * steps)]))
            shape = [1] * self.lowest.ndim
            shape[axis] = -1
            velocities.append(np.broadcast_to(line.reshape(shape), self.lowest.shape))
        return velocities


def bounds_of_model(model: VelocityModel) -> Bounds:
    """One model as its own bounds."""
    return Bounds(model, model)


def bounds_of(grid: VelocityModel, velocities: Iterable[np.ndarray]) -> Bounds:
    """The bounds of velocities, which are looked at one at a time.

    Args:
        grid: A model on their grid.
        velocities: Of its shape [km/s]; at least one.
    """
    lowest, highest = np.full(grid.shape, np.inf), np.zeros(grid.shape)
    steps = [np.zeros(count - 1) for count in grid.shape]
    for velocity in velocities:
        velocity = np.asarray(velocity, float)
        lowest, highest = np.minimum(lowest, velocity), np.maximum(highest, velocity)
        for axis, largest in enumerate(steps):
            change = np.abs(np.diff(np.log(velocity), axis=axis))
            others = tuple(d for d in range(velocity.ndim) if d != axis)
            np.maximum(largest, change.max(axis=others), out=largest)
    return Bounds(
        grid.replace_velocity(lowest), grid.replace_velocity(highest), tuple(steps)
    )
