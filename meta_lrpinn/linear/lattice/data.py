"""Scattered wavefields at receivers as a function of the squared slowness, and its adjoint.

With K(m) a = b(m) and data d = Φ a, the adjoint state of a cotangent d̄ solves Kᵀ λ = Φᵀ d̄.
Kᵀ is K with k and −k exchanged, so the same preconditioners serve. At a quadrature point q
of weight w_q,

    Σ d̄ ∂d/∂m_q = −ω² w_q S_q Λ(x_q) (u₀ + δu)(x_q),      Λ = Σ_k λ_{−k} φ_k,

and the interpolation takes it to the nodes of the model.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from meta_lrpinn.linear.lattice.operator import (
    background_field,
    contract,
    discretise,
    evaluate,
    evaluation_transposed,
    right_hand_sides,
    slabs,
    weak_form,
)
from meta_lrpinn.linear.lattice.solution import System
from meta_lrpinn.linear.lattice.waves import Lattice
from meta_lrpinn.physics.problem import HelmholtzProblem


def data_function(
    problem: HelmholtzProblem,
    lattice: Lattice,
    sources: np.ndarray,
    background_velocities: np.ndarray,
    receivers: np.ndarray,
    tolerance: float,
) -> Callable[[jax.Array], jax.Array]:
    """Data on a lattice, to be traced by JAX and differentiated in reverse.

    Args:
        problem: Frequency, layer and grid; its own velocity and source are not used.
        lattice: From `make_lattice`.
        sources: Source positions (n_sources, ndim) [km].
        background_velocities: v₀ of each source, (n_sources,) [km/s].
        receivers: Receiver positions (n_receivers, ndim) [km].
        tolerance: Relative residual at which iterations end, of data and adjoint.

    Returns:
        Squared slowness at the model's nodes, (nz, nx) or (nz, ny, nx) [s²/km²] → δu
        (n_sources, n_receivers), complex. It runs on the host, under `jit` as well.
    """
    discretised = functools.cache(lambda: discretise(problem, lattice))
    given = np.asarray(sources, float), np.asarray(background_velocities)
    receivers = np.asarray(receivers, float)
    latest: dict[bytes, System] = {}

    def system_of(slowness):
        key = slowness.tobytes()
        if key not in latest:  # the adjoint of the same velocity comes next
            latest.clear()
            latest[key] = System(weak_form(discretised(), slowness))
        return latest[key]

    def forward(slowness):
        system = system_of(in_double(slowness))
        columns = right_hand_sides(system.form, *given)
        weights = system.solve(columns, tolerance).solution
        return evaluate(problem, lattice, weights, receivers), weights

    def backward(slowness, weights, cotangent):
        system = system_of(in_double(slowness))
        columns = evaluation_transposed(problem, lattice, in_double(cotangent), receivers)
        adjoint = system.solve(_mirrored(columns), tolerance).solution
        gradient = _correlation(system, in_double(weights), adjoint, *given)
        return gradient if np.iscomplexobj(slowness) else np.real(gradient)

    shape = len(given[0]), len(receivers)

    def call(function, shapes, *arguments):
        results = tuple(jax.ShapeDtypeStruct(*one) for one in shapes)

        def on_host(*values):
            found = function(*map(np.asarray, values))
            return tuple(
                part.astype(one.dtype) for part, one in zip(found, results, strict=True)
            )

        return jax.pure_callback(on_host, results, *arguments, vmap_method="sequential")

    def solved(slowness):
        dtype = jnp.result_type(complex)
        shapes = (shape, dtype), ((shape[0], *lattice.shape), dtype)
        return call(forward, shapes, slowness)

    @jax.custom_vjp
    def data(slowness):
        return solved(slowness)[0]

    def first(slowness):
        values, weights = solved(slowness)
        return values, (slowness, weights)

    def second(kept, cotangent):
        slowness, weights = kept
        (gradient,) = call(
            lambda *values: (backward(*values),),
            ((slowness.shape, slowness.dtype),),
            slowness,
            weights,
            cotangent,
        )
        return (gradient,)

    data.defvjp(first, second)
    return data


def in_double(values: np.ndarray) -> np.ndarray:
    """Values in double precision, complex where they are."""
    return values.astype(np.result_type(values.dtype, float))


def _mirrored(columns: np.ndarray) -> np.ndarray:
    """Weights (c, ...) of k as those of −k."""
    return np.flip(columns, axis=tuple(range(1, columns.ndim)))


def _correlation(
    system: System,
    weights: np.ndarray,
    adjoint: np.ndarray,
    sources: np.ndarray,
    background_velocities: np.ndarray,
) -> np.ndarray:
    """Σ d̄ ∂d/∂m at the model's nodes, complex, of the velocity's shape."""
    discretisation = system.form.discretisation
    axes = discretisation.axes
    waves = [axis.waves.T for axis in axes]
    back = [(axis.interpolation.T * axis.weights).toarray() for axis in axes]
    gradient = np.zeros(system.form.slowness.shape, complex)
    for part, _ in slabs(system.form):
        values = [waves[0][part], *waves[1:]]
        total = np.zeros(())
        for own, other, source, v0 in zip(
            weights, adjoint, sources, background_velocities, strict=True
        ):
            field = contract(own, values)
            field += background_field(discretisation, part, source, v0)
            total = total + contract(other, values) * field
        gradient += contract(total, [back[0][:, part], *back[1:]])
    return np.transpose(-(discretisation.omega**2) * gradient)
