"""Runs a script, read from standard input, beside a pretended TPU.

The second of two CPU devices passes for it: all that asks JAX for devices finds a TPU and
a host, and like a TPU it refuses programs in double precision. Warnings are errors.
"""

import re
import sys
import warnings

import jax
import matplotlib
from jax._src import compiler


def pretend() -> None:
    """Lets JAX find one TPU, which is the default device."""
    host, tpu = jax.devices()
    jax.config.update("jax_default_device", tpu)
    jax.default_backend = lambda: "tpu"

    def devices(backend=None):
        return [host] if backend == "cpu" else [tpu]

    jax.devices = devices
    jax.local_devices = lambda process_index=None, backend=None: devices(backend)
    compile_program = compiler.compile_or_get_cached

    def compile_or_refuse(backend, computation, devices, *rest, **options):
        if tpu in devices.flat and re.search(r"[x<]f64>", str(computation)):
            raise RuntimeError("a TPU has no complex numbers of double precision")
        return compile_program(backend, computation, devices, *rest, **options)

    compiler.compile_or_get_cached = compile_or_refuse


if __name__ == "__main__":
    pretend()
    warnings.simplefilter("error")
    matplotlib.use("agg")
    exec(compile(sys.stdin.read(), "script", "exec"), {"__name__": "script"})
