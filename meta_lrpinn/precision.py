"""Matrix products in full precision, whatever the device does by default.

Accelerators round the factors of single-precision products to 8 (TPU) or 11 bits (GPU)
unless told otherwise. Of a phase k·x of ten wavelengths that is a tenth of a radian, and
an exact solve has no use for the rest.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax


def full_precision(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, traced or called, with matrix products in full precision."""

    @functools.wraps(function)
    def precise(*args, **kwargs):
        with jax.default_matmul_precision("highest"):
            return function(*args, **kwargs)

    return precise
