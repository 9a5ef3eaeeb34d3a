"""Any prepared solver below a free surface: `physics.free_surface`, once for all."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from meta_lrpinn.physics import free_surface as surface
from meta_lrpinn.physics.velocity import VelocityModel
from meta_lrpinn.solvers.protocol import Prepared, Setup, Solved, Truth, no_gradient


@dataclasses.dataclass(frozen=True)
class OddField:
    """A field less its mirror image, as a function of points; can be pickled."""

    field: Callable[[np.ndarray], np.ndarray]
    model: VelocityModel  # below the surface

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Points (n, ndim) [km] → δu (n_sources, n)."""
        both = self.field(surface.with_images(points, self.model))
        return surface.odd_values(both, points, self.model)


def prepare(
    prepare_setup: Callable[[Setup], Prepared], setup: Setup, tolerance: float | None
) -> Prepared:
    """A solver below the surface from one for the mirrored models.

    Args:
        prepare_setup: Prepares the solver without a surface.
        setup: With one.
        tolerance: Of the relative error, where the solver has one.
    """
    whole = prepare_setup(setup.mirrored())

    def solve(model: VelocityModel, truth: Truth | None = None) -> Solved:
        if truth is not None:
            odd = lambda fields: surface.odd_part(model, fields)  # noqa: E731
            truth = dataclasses.replace(truth, compared=odd)
        solved = whole.solve(surface.mirrored_model(model), truth)
        return _below(setup, model, solved, tolerance)

    def data(velocity: jax.Array) -> jax.Array:
        assert setup.receivers is not None
        both = whole.data(jnp.concatenate([velocity[:0:-1], velocity]))
        return surface.odd_values(both, setup.receivers, setup.grid)

    has_gradient = whole.data is not no_gradient
    return Prepared(setup, solve, data if has_gradient else no_gradient)


def _below(
    setup: Setup, model: VelocityModel, solved: Solved, tolerance: float | None
) -> Solved:
    """What was solved in a mirrored model, less its mirror image."""
    if setup.receivers is None:
        fields = surface.odd_part(model, solved.fields)
    else:
        fields = surface.odd_values(solved.fields, setup.receivers, model)
    estimates, converged = solved.error_estimates, solved.converged
    if estimates is not None:
        estimates = np.asarray(estimates) * _amplification(solved.fields, fields)
        if converged is not None and tolerance is not None:
            converged = converged & (estimates <= tolerance)
    evaluate = None if solved.evaluate is None else OddField(solved.evaluate, model)
    return dataclasses.replace(
        solved,
        fields=fields,
        evaluate=evaluate,
        error_estimates=estimates,
        converged=converged,
    )


def _amplification(whole: np.ndarray, odd: np.ndarray) -> np.ndarray:
    """What relative errors are multiplied by when fields become differences, (n_sources,).

    The errors of a field and of its image are taken to be independent.

    Args:
        whole: Fields of the mirrored model, (n_sources, ...).
        odd: The differences, (n_sources, ...).
    """
    before, after = (
        np.sqrt(np.sum(np.abs(fields.reshape(len(fields), -1)) ** 2, axis=1))
        for fields in (whole, odd)
    )
    return np.divide(before, after, out=np.ones(len(odd)), where=after > 0)
