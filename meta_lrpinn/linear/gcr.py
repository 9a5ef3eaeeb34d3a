"""Minimal residuals for many right-hand sides: GCR."""

import jax
import jax.numpy as jnp

_MAXIMUM_ITERATIONS = 120
_REMEMBERED = 30  # directions that a new one is made orthogonal to


def minimal_residual(matvec, precondition, rhs, tolerance):
    """GCR, all columns of the right-hand side (N, c) at once.

    Eisenstat, Elman and Schultz (1983), SIAM J. Numer. Anal. 20, 345: a new direction is
    made orthogonal to the last few.
    """

    def norm(columns):
        return jnp.sqrt(jnp.sum(jnp.abs(columns) ** 2, axis=0))

    def unfinished(state):
        index, _, residual, _, _ = state
        return (index < _MAXIMUM_ITERATIONS) & jnp.any(
            norm(residual) > tolerance * norm(rhs)
        )

    def improve(state):
        index, solution, residual, directions, images = state
        direction = precondition(residual)
        image = matvec(direction)
        overlap = jnp.einsum("mns,ns->ms", images.conj(), image)
        direction = direction - jnp.einsum("mns,ms->ns", directions, overlap)
        image = image - jnp.einsum("mns,ms->ns", images, overlap)
        length = norm(image)
        length = jnp.where(length > 0, length, 1)
        direction, image = direction / length, image / length
        step = jnp.sum(image.conj() * residual, axis=0)
        slot = index % _REMEMBERED
        return (
            index + 1,
            solution + step * direction,
            residual - step * image,
            directions.at[slot].set(direction),
            images.at[slot].set(image),
        )

    start = precondition(rhs)
    empty = jnp.zeros((_REMEMBERED, *rhs.shape), rhs.dtype)
    state = (0, start, rhs - matvec(start), empty, empty)
    return jax.lax.while_loop(unfinished, improve, state)[1]
