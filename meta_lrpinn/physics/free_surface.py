"""A free surface at the top of a model, by reflection.

Pressure vanishes at a free surface. A wavefield that is odd about it does: that of the
model and its mirror image with a source and an image of opposite sign. By symmetry the
image's field is the mirror image of the source's own, so that one solve in the mirrored
model gives both,

    δu(x, z) = δu_r(x, z) − δu_r(x, 2 z₀ − z),

zero at z = z₀ to the last digit. The mirrored model has its absorbing layers at its two
bottoms, none at the surface.
"""

from typing import Any

import numpy as np

from meta_lrpinn.physics.background import mirrored
from meta_lrpinn.physics.velocity import VelocityModel

# Nearer to the surface, in cells, a source and its image cancel: half a thousandth of a
# cell is the rounding that `VelocityModel.check_contains` allows, here doubled.
_NEAREST = 1e-3


def check_sources(model: VelocityModel, sources: np.ndarray) -> None:
    """Refuses sources on the surface, where they and their images cancel.

    Args:
        model: The model, whose top is the surface.
        sources: (n_sources, ndim) [km].

    Raises:
        ValueError: if one stands there.
    """
    depth = sources[:, -1] - model.lower[-1]
    if np.any(depth < _NEAREST * model.spacing[0]):
        position = ", ".join(f"{value:g}" for value in sources[np.argmin(depth)])
        raise ValueError(
            f"source ({position}) stands on the free surface, where the wavefield "
            "vanishes; put it deeper"
        )


def mirrored_model(model: VelocityModel) -> VelocityModel:
    """A model with its mirror image above its top, (2 nz − 1, ...)."""

    def both(values):
        return np.concatenate([values[:0:-1], values])

    origin = model.lower.copy()
    origin[-1] -= model.upper[-1] - model.lower[-1]
    quality = None if model.quality is None else both(np.asarray(model.quality))
    return VelocityModel(both(np.asarray(model.velocity)), model.spacing, origin, quality)


def odd_part(model: VelocityModel, fields: np.ndarray) -> np.ndarray:
    """Fields less their images, on the grid of a model.

    Args:
        model: The model below the surface.
        fields: On the grid of `mirrored_model`, (..., 2 nz − 1, [ny,] nx).
    """
    axis, top = -model.ndim, model.shape[0] - 1
    below = np.take(fields, range(top, 2 * top + 1), axis)
    return below - np.flip(np.take(fields, range(top + 1), axis), axis)


def with_images(points: np.ndarray, model: VelocityModel) -> np.ndarray:
    """Points (n, ndim) below the top of a model, then their images, (2 n, ndim) [km]."""
    return np.concatenate([points, mirrored(points, model.lower[-1])])


def odd_values(both: Any, points: np.ndarray, model: VelocityModel) -> Any:
    """Values (..., n) at points, less those at their images.

    Args:
        both: At `with_images`, (..., 2 n), of NumPy or traced by JAX.
        points: (n, ndim) [km].
        model: The model below the surface.
    """
    number = len(points)
    is_below = np.asarray(points)[:, -1] != model.lower[-1]
    return (both[..., :number] - both[..., number:]) * is_below
