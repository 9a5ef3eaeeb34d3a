"""Conjugate residuals of complex symmetric systems, for many right-hand sides: COCR."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Iterate(NamedTuple):
    """Where iterations ended."""

    solution: jax.Array  # (c, ...) complex
    residual: jax.Array  # (c, ...) complex, as the recurrence has it
    iterations: jax.Array  # () int


def pairing(first: jax.Array, second: jax.Array) -> jax.Array:
    """Σ u_i v_i of the rows of two arrays (c, ...), without conjugation, (c,)."""
    return jnp.sum(first * second, axis=tuple(range(1, first.ndim)))


def norm(rows: jax.Array) -> jax.Array:
    """L2 norm of each row of an array (c, ...), (c,)."""
    return jnp.sqrt(jnp.sum(jnp.abs(rows) ** 2, axis=tuple(range(1, rows.ndim))))


def solve(
    matvec: Callable[[jax.Array], jax.Array],
    precondition: Callable[[jax.Array], jax.Array],
    start: Iterate,
    tolerance: jax.Array | float,
    most: int,
    form: Callable[[jax.Array, jax.Array], jax.Array] = pairing,
) -> Iterate:
    """Preconditioned COCR with smoothed residuals.

    Short recurrences: two directions are kept, whatever the number of iterations (Sogabe
    and Zhang 2007, J. Comput. Appl. Math. 199, 297). Residuals of COCR may rise on the way;
    what is returned is the combination of iterates that makes them fall (Schönauer's
    smoothing; Zhou and Walker 1994, SIAM J. Sci. Comput. 15, 297).

    Args:
        matvec: The matrix, a linear function of (c, ...), symmetric in `form`.
        precondition: About its inverse, symmetric likewise.
        start: Solution to begin with, its residual, and iterations to go on counting.
        tolerance: Norm of the residual at which a row ends, () or (c,).
        most: Iterations at most.
        form: Bilinear form of two arrays (c, ...), (c,).

    Returns:
        The iterate; a row that has ended stays as it is.
    """
    none = jnp.zeros_like(start.residual)
    state = {
        "iterations": 0,
        "best": start.solution,
        "smoothed": start.residual,
        "solution": start.solution,
        "residual": start.residual,
        "preconditioned": precondition(start.residual),
        "direction": none,
        "image": none,
        "product": jnp.zeros_like(start.residual, shape=len(none)),
    }

    def unfinished(state):
        is_left = norm(state["smoothed"]) > tolerance
        return (state["iterations"] < most) & jnp.any(is_left)

    def improve(state):
        is_left = norm(state["smoothed"]) > tolerance
        preconditioned, residual = state["preconditioned"], state["residual"]
        mapped = matvec(preconditioned)
        product = form(preconditioned, mapped)
        ahead = _quotient(product, state["product"], like=none)
        direction = preconditioned + ahead * state["direction"]
        image = mapped + ahead * state["image"]
        other = precondition(image)
        step = _quotient(jnp.where(is_left, product, 0), form(image, other), like=none)
        solution = state["solution"] + step * direction
        residual = residual - step * image
        change = state["smoothed"] - residual
        overlap = pairing(change.conj(), state["smoothed"])
        fraction = _quotient(jnp.where(is_left, overlap, 0), norm(change) ** 2, like=none)
        return {
            "iterations": state["iterations"] + 1,
            "best": state["best"] + fraction * (solution - state["best"]),
            "smoothed": state["smoothed"] - fraction * change,
            "solution": solution,
            "residual": residual,
            "preconditioned": preconditioned - step * other,
            "direction": direction,
            "image": image,
            "product": product,
        }

    end = jax.lax.while_loop(unfinished, improve, state)
    return Iterate(end["best"], end["smoothed"], start.iterations + end["iterations"])


def _quotient(numerator, denominator, like):
    """Row by row, broadcastable to `like`; zero where the denominator is."""
    is_zero = denominator == 0
    quotient = jnp.where(is_zero, 0, numerator / jnp.where(is_zero, 1, denominator))
    return quotient.reshape(-1, *(1,) * (like.ndim - 1)).astype(like.dtype)
