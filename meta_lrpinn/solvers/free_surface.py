"""A free surface at the top of a model, by reflection; the same for every solver.

Pressure vanishes at a free surface. A wavefield that is odd about it does: that of the
model and its mirror image with a source and an image of opposite sign. By symmetry the
image's field is the mirror image of the source's own, so that one solve in the mirrored
model gives both,

    δu(x, z) = δu_r(x, z) − δu_r(x, 2 z₀ − z),

zero at z = z₀ to the last digit. The absorbing layer above the surface is gone with it:
that of the mirrored model stands at its two bottoms.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from meta_lrpinn.physics.background import mirrored
from meta_lrpinn.physics.velocity import VelocityModel
from meta_lrpinn.solvers.request import Request, Solution
from meta_lrpinn.solvers.settings import Settings

# Nearer to the surface, in cells, a source and its image cancel (rounding of positions).
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
        place = ", ".join(f"{value:g}" for value in sources[np.argmin(depth)])
        raise ValueError(
            f"source ({place}) stands on the free surface, where the wavefield vanishes; "
            "put it deeper"
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


def odd_values(both: np.ndarray, points: np.ndarray, model: VelocityModel) -> np.ndarray:
    """Values (..., n) at points, less those at their images.

    Args:
        both: At `with_images`, (..., 2 n).
        points: (n, ndim) [km].
        model: The model below the surface.
    """
    below, above = np.split(both, [len(points)], axis=-1)
    at_surface = np.asarray(points)[:, -1] == model.lower[-1]
    return np.where(at_surface, 0, below - above)


def growth(found: np.ndarray, odd: np.ndarray) -> np.ndarray:
    """What relative errors are multiplied by when fields become differences.

    What is wrong with a field and with its image is taken to be independent.

    Args:
        found: Fields of the mirrored model, (n_sources, ...).
        odd: The differences, (n_sources, ...).
    """
    norms = [
        np.sqrt(np.sum(np.abs(one.reshape(len(one), -1)) ** 2, axis=1))
        for one in (found, odd)
    ]
    return np.divide(norms[0], norms[1], out=np.ones(len(odd)), where=norms[1] > 0)


@dataclasses.dataclass(frozen=True)
class OddField:
    """A field less its mirror image, as a function of points; can be pickled."""

    field: Callable[[np.ndarray], np.ndarray]
    model: VelocityModel  # below the surface

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Points (n, ndim) [km] → δu (n_sources, n)."""
        both = self.field(with_images(points, self.model))
        return odd_values(both, points, self.model)


def solve(
    solver: Callable[[Request, Settings], Solution], request: Request, settings: Settings
) -> Solution:
    """The solution below a free surface.

    Args:
        solver: Of requests without one.
        request: The request, checked by `check_sources`.
        settings: Of the solver.
    """
    model = request.model
    whole = dataclasses.replace(
        request,
        model=mirrored_model(model),
        compared=lambda fields: odd_part(model, fields),
    )
    found = solver(whole, settings)
    fields = odd_part(model, found.fields)
    tolerance = getattr(settings, "tolerance", None)
    estimates, converged = found.error_estimates, found.converged
    if estimates is not None:
        estimates = np.asarray(estimates) * growth(found.fields, fields)
        if converged and tolerance is not None:
            converged = bool(np.max(estimates) <= tolerance)
    return dataclasses.replace(
        found,
        fields=fields,
        evaluate=None if found.evaluate is None else OddField(found.evaluate, model),
        error_estimates=estimates,
        converged=converged,
    )
