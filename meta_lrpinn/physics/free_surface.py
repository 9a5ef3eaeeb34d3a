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

import chex
import numpy as np

from meta_lrpinn.physics.background import mirrored
from meta_lrpinn.physics.velocity import VelocityModel

# Nearer to the surface, in cells, a source and its image cancel: half a thousandth of a
# cell is the rounding that `VelocityModel.check_contains` allows, here doubled.
_NEAREST = 1e-3


def check_sources(model: VelocityModel, sources: np.ndarray) -> None:
    """Raises ValueError for sources (n, ndim) [km] on the surface, the model's top.

    They and their images cancel there.
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
    """Fields on the grid of `mirrored_model`, less their images, on that of the model.

    (..., 2 nz − 1, [ny,] nx) → (..., nz, [ny,] nx).
    """
    chex.assert_shape(fields, (..., 2 * model.shape[0] - 1, *model.shape[1:]))
    axis, top = -model.ndim, model.shape[0] - 1
    below = np.take(fields, range(top, 2 * top + 1), axis)
    return below - np.flip(np.take(fields, range(top + 1), axis), axis)


def with_images(points: np.ndarray, model: VelocityModel) -> np.ndarray:
    """Points (n, ndim) below the top of a model, then their images, (2 n, ndim) [km]."""
    return np.concatenate([points, mirrored(points, model.lower[-1])])


def odd_values(both: Any, points: np.ndarray, model: VelocityModel) -> Any:
    """Values at `with_images` (..., 2 n), less those at the images, (..., n).

    They may be of NumPy, or traced by JAX.
    """
    number = len(points)
    chex.assert_shape(both, (..., 2 * number))
    is_below = np.asarray(points)[:, -1] != model.lower[-1]
    return (both[..., :number] - both[..., number:]) * is_below
