"""What `solve` hands to the solvers, and what they hand back."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from meta_lrpinn.metrics import relative_l2
from meta_lrpinn.physics import problem as problems
from meta_lrpinn.physics.problem import HelmholtzProblem
from meta_lrpinn.physics.velocity import VelocityModel
from meta_lrpinn.runtime.precision import Array
from meta_lrpinn.wavefield import Statistics

# Random keys drop what is beyond 32 bits.
_LARGEST_SEED = 2**32 - 1


@dataclasses.dataclass(frozen=True)
class Keys:
    """Independent random keys of all that is random in a solve."""

    network: jax.Array  # random parameters
    waves: jax.Array  # random wave vectors
    rank: jax.Array  # points that the choice of a rank looks at
    points: jax.Array  # collocation points of adaptation


def split_seed(seed: int) -> Keys:
    """The keys of a seed.

    Raises:
        ValueError: if the seed is not a whole number from 0 up, or has over 32 bits.
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"seed must be a whole number from 0 up, got {seed!r}")
    if seed > _LARGEST_SEED:
        raise ValueError(f"seed must be at most {_LARGEST_SEED}, got {seed}")
    return Keys(*jax.random.split(jax.random.key(int(seed)), 4))


@dataclasses.dataclass(frozen=True)
class Request:
    """The problem to solve, checked; the settings of a solver come beside it."""

    model: VelocityModel
    frequency: float  # Hz
    sources: np.ndarray  # (n_sources, ndim) [km]
    amplitude: complex  # A of the background field
    background_velocities: np.ndarray  # (n_sources,) [km/s], complex with attenuation
    thickness: float | None  # of the absorbing layer [km]; None for the solver's default
    reflection: float | None  # amplitude that the layer reflects; likewise
    truth: np.ndarray | None  # known δu, (n_sources, nz, [ny,] nx)
    keys: Keys
    progress: bool
    free_surface: bool = False  # at the top of the model
    # What of fields on the model's grid is compared with the truth: below a free surface
    # their odd part. None for the fields themselves.
    compared: Callable[[np.ndarray], np.ndarray] | None = None

    def error(self, fields: Array, sources: slice = slice(None)) -> float:
        """Relative L2 distance of fields from the truth, where it is known.

        Args:
            fields: δu on the model's grid, (n, nz, [ny,] nx).
            sources: Whose fields they are, n of them.

        Raises:
            ValueError: if the truth is zero.
        """
        if self.compared is not None:
            fields = self.compared(np.asarray(fields))
        return relative_l2(fields, np.asarray(self.truth)[sources])

    def problems(self, layer_fraction: float | None = None) -> list[HelmholtzProblem]:
        """The problems of all sources, in one layer, so that they can share a matrix.

        Args:
            layer_fraction: Of a network, the layer that its features were trained in, over
                training's default; None for the layer of exact solvers.
        """
        options = {} if layer_fraction is None else {"layer_fraction": layer_fraction}
        if self.reflection is not None:
            options["reflection"] = self.reflection
        posed = [
            problems.make_problem(
                self.model,
                self.frequency,
                source,
                amplitude=self.amplitude,
                background_velocity=velocity,
                thickness=self.thickness,
                **options,
            )
            for source, velocity in zip(
                self.sources, self.background_velocities, strict=True
            )
        ]
        widest = max(posed, key=lambda p: float(p.layer.thickness)).layer
        return [problem.replace(layer=widest) for problem in posed]


@dataclasses.dataclass(frozen=True)
class Solution:
    """What a solver found."""

    fields: np.ndarray  # δu on the grid, (n_sources, nz, nx), complex
    # Points (n, ndim) → (n_sources, n); None for a field that is known on its grid only.
    evaluate: Callable[[np.ndarray], np.ndarray] | None
    stats: Statistics = Statistics()
    history: tuple[dict[str, Any], ...] = ()
    error_estimates: np.ndarray | None = None  # (n_sources,)
    converged: bool | None = None
