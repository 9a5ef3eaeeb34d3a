"""Squared slowness between the nodes of a model, on the host: see `physics.velocity`."""

from collections.abc import Iterable

import numpy as np
import scipy.sparse

from meta_lrpinn.physics.velocity import VelocityModel
from meta_lrpinn.runtime import host

# A relative contrast of the squared slowness that is rounding: some thousands of units in
# the last place.
ROUNDING = 1e-12


def along(model: VelocityModel, axis: int, positions: np.ndarray) -> scipy.sparse.csr_array:
    """Linear interpolation along an array axis, (len(positions), model.shape[axis]).

    Args:
        model: Whose grid it is.
        axis: Axis of the velocity's array.
        positions: Coordinates along it [km]; beyond the grid its edge values hold.
    """
    count = model.shape[axis]
    number = (positions - model.axes()[axis][0]) / model.spacing[axis]
    number = np.clip(number, 0, count - 1)
    cell = np.minimum(number.astype(int), count - 2)
    weight = number - cell
    rows = np.arange(len(positions))
    return scipy.sparse.csr_array(
        (
            np.concatenate([1 - weight, weight]),
            (np.tile(rows, 2), np.concatenate([cell, cell + 1])),
        ),
        shape=(len(positions), count),
    )


def squared_slowness(model: VelocityModel) -> np.ndarray:
    """`model.squared_slowness` in double precision, of the velocity's shape [s²/km²]."""
    return host.in_double(model.complex_velocity) ** -2


def squared_slowness_on(
    model: VelocityModel, positions: Iterable[np.ndarray]
) -> np.ndarray:
    """`model.squared_slowness_at` on a grid of positions along each array axis."""
    values = squared_slowness(model)
    for axis, coordinates in enumerate(positions):
        values = applied(along(model, axis, coordinates), values, axis)
    return values


def applied(matrix: scipy.sparse.csr_array, values: np.ndarray, axis: int) -> np.ndarray:
    """A sparse matrix (m, n) along one axis of values (..., n, ...)."""
    front = np.moveaxis(values, axis, 0)
    product = matrix @ front.reshape(len(front), -1)
    return np.moveaxis(product.reshape(-1, *front.shape[1:]), 0, axis)
