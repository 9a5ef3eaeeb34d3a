"""A process whose second CPU device passes for a TPU, where notebooks are run.

Not a test by itself: `python pretended_tpu.py NOTEBOOK PARAMETERS CHECKS`, in an environment
with two CPU devices. Like a TPU the device refuses programs in double precision.
"""

import json
import re
import sys
import warnings
from pathlib import Path

import jax
import matplotlib
from jax._src import compiler


def pretend() -> None:
    """Lets all that asks JAX for devices find one TPU, and a host beside it."""
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


def cells(path: str | Path) -> list[tuple[str, str]]:
    """The code cells of a notebook: their tag, or an empty text, and their source."""
    notebook = json.loads(Path(path).read_text())
    return [
        ((cell["metadata"].get("tags") or [""])[0], "".join(cell["source"]))
        for cell in notebook["cells"]
        if cell["cell_type"] == "code"
    ]


def main(path: str, parameters: str, checks: str) -> None:
    """Runs a notebook with other parameters, then what checks its variables."""
    warnings.simplefilter("error")
    matplotlib.use("agg")
    namespace: dict = {}
    for tag, source in cells(path):
        if tag != "install":
            chosen = parameters if tag == "parameters" else source
            exec(compile(chosen, path, "exec"), namespace)
    exec(compile(checks, "checks", "exec"), namespace)


if __name__ == "__main__":
    pretend()
    main(*sys.argv[1:])
