"""Compiled programs of which only the latest are kept.

A program belongs to the shapes of its arguments, and quadratures change
with the frequency and the model. On a CPU a program takes about 15 MB and a hundred of
the memory maps of which a process may have 65,530: one that solves at ever new
frequencies would end after some hundreds.
"""

import collections
import functools
import inspect
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

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
