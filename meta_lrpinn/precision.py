"""Types of arrays, and matrix products in full precision whatever the device's default.

Accelerators round the factors of single-precision products to 8 (TPU) or 11 bits (GPU)
unless told otherwise. Of a phase k·x of ten wavelengths that is a tenth of a radian, and
an exact solve has no use for the rest.
"""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeAlias, TypeVar

import jax
import numpy as np

# On the host NumPy's, which keep double precision; of JAX inside a transformation.
Array: TypeAlias = jax.Array | np.ndarray

P = ParamSpec("P")
R = TypeVar("R")


def full_precision(function: Callable[P, R]) -> Callable[P, R]:
    """The function, traced or called, with matrix products in full precision."""

    @functools.wraps(function)
    def precise(*args: P.args, **kwargs: P.kwargs) -> R:
        with jax.default_matmul_precision("highest"):
            return function(*args, **kwargs)

    return precise
