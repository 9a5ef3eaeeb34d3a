"""Functions that run on the host, with an adjoint by hand, as JAX traces them."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np


def differentiable(
    forward: Callable[..., tuple[np.ndarray, np.ndarray]],
    backward: Callable[..., np.ndarray],
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
) -> Callable[[jax.Array], jax.Array]:
    """A function of NumPy for JAX to trace and to differentiate in reverse.

    Args:
        forward: Argument → result and state, both complex.
        backward: Argument, state and cotangent → cotangent of the argument.
        shapes: Of result and state.

    Returns:
        Argument → result, in the precision that JAX works in.
    """

    def call(function, results, *arguments):
        def on_arrays(*values):
            found = function(*map(np.asarray, values))
            return jax.tree.map(lambda part, one: part.astype(one.dtype), found, results)

        return jax.pure_callback(on_arrays, results, *arguments, vmap_method="sequential")

    def first(argument):
        dtype = jnp.result_type(complex)
        results = tuple(jax.ShapeDtypeStruct(shape, dtype) for shape in shapes)
        result, state = call(forward, results, argument)
        return result, (argument, state)

    def second(kept, cotangent):
        argument, state = kept
        like = jax.ShapeDtypeStruct(argument.shape, argument.dtype)
        return (call(backward, like, argument, state, cotangent),)

    traced = jax.custom_vjp(lambda argument: first(argument)[0])
    traced.defvjp(first, second)
    return traced


def in_double(values: np.ndarray) -> np.ndarray:
    """Values in double precision, complex where they are."""
    return values.astype(np.result_type(values.dtype, float))
