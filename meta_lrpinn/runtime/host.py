"""Functions that run on the host, with an adjoint by hand, as JAX traces them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def differentiable(
    prepare: Callable[[np.ndarray], Any],
    forward: Callable[[Any], tuple[np.ndarray, np.ndarray]],
    backward: Callable[[Any, np.ndarray, np.ndarray], np.ndarray],
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
) -> Callable[[jax.Array], jax.Array]:
    """A function of NumPy for JAX to trace and to differentiate in reverse.

    Args:
        prepare: Argument → what the other two share; that of the latest argument is kept,
            since the cotangent of the same one comes next.
        forward: What is prepared → result and state, both complex.
        backward: What is prepared, state and cotangent → cotangent of the argument, of
            which the real part counts where that is real.
        shapes: Of result and state.

    Returns:
        Argument → result, in the precision that JAX works in. The functions see arrays in
        double precision.
    """
    latest: dict[bytes, Any] = {}

    def prepared(argument):
        key = argument.tobytes()
        if key not in latest:
            latest.clear()
            latest[key] = prepare(in_double(argument))
        return latest[key]

    def pulled_back(argument, state, cotangent):
        values = in_double(state), in_double(cotangent)
        gradient = backward(prepared(argument), *values)
        return gradient if np.iscomplexobj(argument) else np.real(gradient)

    def call(function, results, *arguments):
        dtypes = [argument.dtype for argument in arguments]

        def on_bits(*bits):
            values = map(_of_bits, map(np.ascontiguousarray, bits), dtypes)
            return jax.tree.map(
                lambda part, like: _bits(np.array(part, like.dtype, order="C")),
                function(*values),
                results,
            )

        words = jax.tree.map(
            lambda like: jax.ShapeDtypeStruct(
                (*like.shape, like.dtype.itemsize // 4), "u4"
            ),
            results,
        )
        bits = jax.pure_callback(
            on_bits, words, *map(_bits, arguments), vmap_method="sequential"
        )
        return jax.tree.map(lambda part, like: _of_bits(part, like.dtype), bits, results)

    def first(argument):
        dtype = jnp.result_type(complex)
        results = tuple(jax.ShapeDtypeStruct(shape, dtype) for shape in shapes)
        result, state = call(lambda values: forward(prepared(values)), results, argument)
        return result, (argument, state)

    def second(kept, cotangent):
        argument, state = kept
        like = jax.ShapeDtypeStruct(argument.shape, argument.dtype)
        return (call(pulled_back, like, argument, state, cotangent),)

    traced = jax.custom_vjp(lambda argument: first(argument)[0])
    traced.defvjp(first, second)
    return traced


# JAX hands arguments and results over in a thread of its own, where double precision that
# was asked for in a context is off, and would round them. Bits stay as they are.


def _bits(values: Any) -> Any:
    """Values of NumPy or JAX as words of 32 bits along a last axis."""
    return values[..., None].view(np.uint32)


def _of_bits(bits: Any, dtype: np.dtype) -> Any:
    return bits.view(dtype)[..., 0]


def in_double(values: Any) -> np.ndarray:
    """Values in double precision, complex where they are."""
    values = np.asarray(values)
    return values.astype(np.result_type(values.dtype, float))
