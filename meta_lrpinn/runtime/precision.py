"""Types of arrays, and matrix products in full precision whatever the device's default.

Accelerators round the factors of single-precision products to 8 (TPU) or 11 bits (GPU)
unless told otherwise. Of a phase k·x of ten wavelengths that is a tenth of a radian, and
an exact solve has no use for the rest. The environment variable `META_LRPINN_PRECISION`
chooses another of JAX's matrix precisions, for training on a GPU in "tensorfloat32".
"""

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

# On the host NumPy's, which keep double precision; of JAX inside a transformation.
Array: TypeAlias = jax.Array | np.ndarray

P = ParamSpec("P")
R = TypeVar("R")


def namespace(*values: Any) -> Any:
    """`jax.numpy` where a value is of JAX, else `numpy`, which compiles nothing."""
    return jnp if any(isinstance(value, jax.Array) for value in values) else np


@contextlib.contextmanager
def double_precision(wanted: bool = True) -> Iterator[None]:
    """JAX in double precision while the context lasts, or in single where none is wanted.

    A TPU has no complex numbers of double precision: beside one it is the host that works
    in the context. What is already on a device is worked on there, so hand over arrays of
    NumPy.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(jax.enable_x64(wanted))
        if wanted and jax.default_backend() == "tpu":
            stack.enter_context(jax.default_device(jax.local_devices(backend="cpu")[0]))
        yield


def matrix_precision() -> str:
    """The precision of matrix products: "highest", or META_LRPINN_PRECISION.

    Raises:
        ValueError: if the variable names none of JAX's.
    """
    name = os.environ.get("META_LRPINN_PRECISION", "highest")
    if name not in ("highest", "tensorfloat32", "bfloat16"):
        raise ValueError(
            "META_LRPINN_PRECISION must be highest, tensorfloat32 or bfloat16, "
            f"got {name!r}"
        )
    return name


def full_precision(function: Callable[P, R]) -> Callable[P, R]:
    """The function, traced or called, with matrix products in `matrix_precision`."""

    @functools.wraps(function)
    def precise(*args: P.args, **kwargs: P.kwargs) -> R:
        with jax.default_matmul_precision(matrix_precision()):
            return function(*args, **kwargs)

    return precise
