"""Generalised conjugate residuals (GCR), for many right-hand sides, on the host.

Every iteration the residual is made as small as the changes found so far allow (Eisenstat,
Elman and Schultz 1983, SIAM J. Numer. Anal. 20, 345). The preconditioner may be any, and
another one at every iteration.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

# Changes that are kept; beyond that the oldest is forgotten. It bounds the memory: whole
# Marmousi takes 8 to 20 iterations with the coarse grid. Not tuned.
KEPT = 40

# Residuals (c, ...) → changes of the solution that lower them, and their images by the
# matrix; new arrays.
Improve = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


class Iterate(NamedTuple):
    """Where iterations ended."""

    solution: np.ndarray  # (c, ...) complex
    residual: np.ndarray  # (c, ...) complex, as the recurrence has it
    iterations: int


def norm(rows: np.ndarray) -> np.ndarray:
    """L2 norm of each row of an array (c, ...), (c,)."""
    flat = rows.reshape(len(rows), math.prod(rows.shape[1:]))
    return np.linalg.norm(flat, axis=1)


def solve(
    improve: Improve,
    start: Iterate,
    tolerance: float,
    most: int,
    is_hopeless: Callable[[list[float]], bool] | None = None,
) -> Iterate:
    """Iterates until no row's residual is above a tolerance.

    Args:
        improve: The preconditioner.
        start: Solution to begin with, its residual, and iterations to go on counting.
        tolerance: Norm of the residual at which a row ends.
        most: Iterations at most.
        is_hopeless: Whether to end, by the largest norms so far.

    Returns:
        The iterate; a row that has ended stays as it is.
    """
    shape = start.residual.shape
    rows = len(start.residual), math.prod(shape[1:])
    solution = start.solution.reshape(rows).copy()
    residual = start.residual.reshape(rows).copy()
    changes: list[np.ndarray] = []
    images: list[np.ndarray] = []
    norms = [float(norm(residual).max(initial=0.0))]
    while norms[-1] > tolerance and len(norms) <= most:
        if is_hopeless is not None and is_hopeless(norms):
            break
        is_left = norm(residual) > tolerance
        pair = improve(residual.reshape(shape))
        change, image = (part.reshape(rows) for part in pair)
        for old, other in zip(changes, images, strict=True):
            share = _inner(other, image)
            image -= share * other
            change -= share * old
        size = norm(image)[:, None]
        scale = np.divide(1.0, size, out=np.zeros_like(size), where=size > 0)
        image *= scale
        change *= scale
        step = np.where(is_left[:, None], _inner(image, residual), 0)
        solution += step * change
        residual -= step * image
        changes, images = [*changes[1 - KEPT :], change], [*images[1 - KEPT :], image]
        norms.append(float(norm(residual).max()))
    return Iterate(
        solution.reshape(shape),
        residual.reshape(shape),
        start.iterations + len(norms) - 1,
    )


def _inner(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """⟨first, second⟩ of the rows of two arrays (c, n), (c, 1)."""
    pairs = zip(first, second, strict=True)
    return np.array([np.vdot(a, b) for a, b in pairs])[:, None]
