"""The output layer eliminated by least squares from the strong residual.

For given features φ the residual is linear in the complex output weights a,

    r = A a − b,   A_pj = Σ_d (1/s_d) ∂_d ((1/s_d) ∂_d φ_j) + ω² m φ_j,
                   b = −ω² (m − m₀) u₀,

so the best weights follow from normal equations, and only the features are left to
train (variable projection, Golub and Pereyra 1973).
"""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn

from meta_lrpinn.learning.objectives import Objective, feature_function
from meta_lrpinn.physics import derivatives, residual
from meta_lrpinn.physics import problem as problems
from meta_lrpinn.physics.derivatives import Derivatives
from meta_lrpinn.physics.problem import Collocation
from meta_lrpinn.runtime.precision import full_precision

# Added to the unit diagonal of the scaled normal matrix, whose rounding error in
# single precision it has to cover.
RIDGE = 1e-5


def operator_on_features(features: Derivatives, collocation: Collocation) -> jax.Array:
    """The Helmholtz operator applied to every feature, A (n, width), complex.

    Args:
        features: Features with their derivatives at n points.
        collocation: The problem's coefficients at the same points.
    """
    laplacian = residual.stretched_laplacian(
        features.gradient,
        features.second,
        collocation.stretch,
        collocation.stretch_slope,
    )
    mass = collocation.omega**2 * collocation.squared_slowness
    return laplacian + mass[:, None] * features.value


def output_weights(operator: jax.Array, rhs: jax.Array, ridge: float = RIDGE) -> jax.Array:
    """Weights a that minimise ‖A a − b‖², by scaled normal equations.

    Args:
        operator: A, (n, width), complex.
        rhs: b, (n,), complex.
        ridge: Regularisation relative to the diagonal of AᴴA.

    Returns:
        a, (width,), complex.
    """
    real, imaginary = jnp.real(operator), jnp.imag(operator)
    cross = real.T @ imaginary
    gram = jax.lax.complex(
        real.T @ real + imaginary.T @ imaginary, cross - cross.T
    )  # a third of the time of the complex product
    scale = jax.lax.rsqrt(jnp.real(jnp.diagonal(gram)) + jnp.finfo(rhs.real.dtype).tiny)
    gram = gram * scale[:, None] * scale + ridge * jnp.eye(len(scale), dtype=gram.dtype)
    projected = scale * (operator.conj().T @ rhs)
    # LU, not Cholesky: rounding may leave a single-precision Gram matrix indefinite.
    return scale * jnp.linalg.solve(gram, projected)


def eliminated_residual(
    features: Derivatives, collocation: Collocation, ridge: float = RIDGE
) -> tuple[jax.Array, jax.Array]:
    """Squared relative residual with the best output weights, and these weights.

    The weights are held fixed in the gradient, which is exact at the minimum (Kaufman
    1975 drops the same term).

    Args:
        features: Features with their derivatives at n points, width w.
        collocation: The problem's coefficients at the same points.
        ridge: As in `output_weights`.

    Returns:
        ‖A a − b‖²/‖b‖², (), and a, (w,), complex.
    """
    rhs = collocation.scattering_source
    operator = operator_on_features(jax.lax.stop_gradient(features), collocation)
    weights = output_weights(operator, rhs, ridge)
    # Combined before the operator acts: what the gradient passes through is one field
    # instead of all features.
    field = jax.tree.map(lambda samples: _combine(samples, weights), features)
    laplacian = residual.stretched_laplacian(
        field.gradient, field.second, collocation.stretch, collocation.stretch_slope
    )
    difference = residual.helmholtz_residual(
        field.value, laplacian, collocation.squared_slowness, rhs, collocation.omega
    )
    norm = jnp.sum(_squared_modulus(rhs))
    return jnp.sum(_squared_modulus(difference)) / norm, weights


def _combine(samples: jax.Array, weights: jax.Array) -> jax.Array:
    """Σ_j a_j φ_j of real samples (..., width) and complex weights (width,)."""
    return jax.lax.complex(samples @ jnp.real(weights), samples @ jnp.imag(weights))


def _squared_modulus(z: jax.Array) -> jax.Array:
    return jnp.real(z) ** 2 + jnp.imag(z) ** 2


@functools.cache
def residual_objective(model: nn.Module, number_of_points: int) -> Objective:
    """Logarithm of the relative strong residual, the output layer eliminated.

    Args:
        model: Network with features.
        number_of_points: Collocation points drawn per call; several times its width.

    Returns:
        The objective; the velocities of a task share their features and points.
    """

    @full_precision
    def objective(params, task, key):
        points = problems.sample_points(key, task.problem, number_of_points)
        features = derivatives.derivatives(
            feature_function(model, params, task.problem), points
        )

        def one(pair):
            collocation = problems.collocate(task.member(*pair), points)
            return eliminated_residual(features, collocation)[0]

        # One after the other: see `linear.weak_form.solve_weights`.
        squared = jax.lax.map(one, (task.velocities, task.background_velocities))
        relative = jnp.sqrt(squared)
        return jnp.mean(jnp.log(relative)), {"residual": jnp.mean(relative)}

    return objective
