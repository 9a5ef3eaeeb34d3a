"""The result of every solver: a scattered wavefield on its model's grid, and off it."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from meta_lrpinn.velocity import VelocityModel


@dataclasses.dataclass(frozen=True)
class Wavefield:
    """Frequency-domain wavefield u = u₀ + δu of one or several point sources.

    With several sources, every array has the source as its first axis.
    """

    model: VelocityModel
    frequency: float  # Hz
    source: np.ndarray  # (ndim,) or (n_sources, ndim), km
    scattered: np.ndarray  # δu on the grid, ([n_sources,] nz, [ny,] nx), complex
    background: np.ndarray  # u₀ on the grid, the same shape
    method: str  # which solver made it
    elapsed: float  # seconds, compilation included
    history: tuple[dict[str, Any], ...] = ()  # one record per reported step
    error_estimate: float | None = None  # own relative L2 error of δu, where known
    unknowns: int | None = None  # number of complex unknowns of the linear solve
    evaluate: Callable[[jax.Array], jax.Array] | None = dataclasses.field(
        default=None, repr=False
    )  # points (n, ndim) → δu ([n_sources,] n)

    @property
    def total(self) -> np.ndarray:
        """Total wavefield u = u₀ + δu on the grid."""
        return self.background + self.scattered

    def at(self, points: jax.Array) -> jax.Array:
        """Scattered wavefield at any points of the model.

        Args:
            points: Coordinates (n, ndim), km.

        Returns:
            Complex ([n_sources,] n).

        Raises:
            ValueError: points are not (n, ndim), or this field lives on its grid only.
        """
        if np.ndim(points) != 2 or np.shape(points)[1] != self.model.ndim:
            raise ValueError(
                f"points must have shape (n, {self.model.ndim}), got {np.shape(points)}"
            )
        if self.evaluate is None:
            raise ValueError("this wavefield is known on its grid only")
        return self.evaluate(points)
