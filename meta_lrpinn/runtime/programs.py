"""Compiled programs of which only the latest are kept, and what they call on the host.

A program belongs to the shapes of its arguments, and quadratures change with the
frequency and the model. On a CPU a program takes about 15 MB and a hundred of the memory
maps of which a process may have 65,530: one that solves at ever new frequencies would end
after some hundreds.
"""

import collections
import functools
import inspect
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# Programs kept, so that as many frequencies or shapes may take turns without compiling. It
# trades memory, a quarter of a GiB at 15 MB each, and is not tuned.
_KEPT = 16


def jit_latest(
    function: Callable[..., Any], static_argnames: Sequence[str] = (), kept: int = _KEPT
) -> Callable[..., Any]:
    """As `jax.jit`, but so many programs are kept, those that were used last."""
    programs: collections.OrderedDict[Any, Any] = collections.OrderedDict()
    lock = threading.Lock()
    signature = inspect.signature(function)

    @functools.wraps(function)
    def latest(*args, **kwargs):
        arguments = signature.bind(*args, **kwargs).arguments
        static = {name: arguments.pop(name, None) for name in static_argnames}
        key = (*_signature(arguments), *static.items())
        with lock:
            program = programs.pop(key, None)
            if program is None:
                # A function of its own: JAX keeps the programs of equal functions together.
                copy = functools.wraps(function)(lambda *a, **k: function(*a, **k))
                program = jax.jit(copy, static_argnames=static_argnames)
            programs[key] = program
            oldest = programs.popitem(last=False)[1] if len(programs) > kept else None
        if oldest is not None:
            oldest.clear_cache()
        return program(*args, **kwargs)

    return latest


def _signature(arguments: Mapping[str, Any]) -> tuple:
    """What a program is compiled for: structure, shapes and types, and the precision."""
    leaves, structure = jax.tree.flatten(dict(arguments))
    shapes = tuple(jax.typeof(leaf) for leaf in leaves)
    return structure, shapes, jnp.result_type(float)


def differentiable(
    forward: Callable[..., tuple[np.ndarray, np.ndarray]],
    backward: Callable[..., np.ndarray],
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
) -> Callable[[jax.Array], jax.Array]:
    """A function of NumPy, with its adjoint, for JAX to trace and to differentiate.

    Args:
        forward: Argument → result and state, both complex.
        backward: Argument, state and cotangent → cotangent of the argument.
        shapes: Of result and state.

    Returns:
        Argument → result, in the precision that JAX works in; derivatives in reverse.
    """

    def results(argument):
        dtype = jnp.result_type(complex)
        likes = tuple(jax.ShapeDtypeStruct(shape, dtype) for shape in shapes)
        result, state = _on_host(forward, likes, argument)
        return result, (argument, state)

    def cotangent_of_argument(kept, cotangent):
        argument, state = kept
        like = jax.ShapeDtypeStruct(argument.shape, argument.dtype)
        return (_on_host(backward, like, argument, state, cotangent),)

    traced = jax.custom_vjp(lambda argument: results(argument)[0])
    traced.defvjp(results, cotangent_of_argument)
    return traced


def _on_host(function: Callable[..., Any], likes: Any, *arguments: jax.Array) -> Any:
    """Arrays of the shapes and types of `likes`, by a function of NumPy."""
    dtypes = [argument.dtype for argument in arguments]

    def on_words(*words):
        values = map(_of_words, map(np.ascontiguousarray, words), dtypes)
        return jax.tree.map(
            lambda part, like: _words(np.array(part, like.dtype, order="C")),
            function(*values),
            likes,
        )

    shapes = jax.tree.map(
        lambda like: jax.ShapeDtypeStruct((*like.shape, like.dtype.itemsize // 4), "u4"),
        likes,
    )
    words = jax.pure_callback(
        on_words, shapes, *map(_words, arguments), vmap_method="sequential"
    )
    return jax.tree.map(lambda part, like: _of_words(part, like.dtype), words, likes)


# JAX hands arguments and results over in a thread of its own, where double precision that
# was asked for in a context is off, and would round them. Words of 32 bits stay whole.


def _words(values: Any) -> Any:
    """Values of NumPy or JAX as words of 32 bits along a last axis."""
    return values[..., None].view(np.uint32)


def _of_words(words: Any, dtype: np.dtype) -> Any:
    return words.view(dtype)[..., 0]


def in_double(values: np.ndarray) -> np.ndarray:
    """Values in double precision, complex where they are."""
    return values.astype(np.result_type(values.dtype, float))
