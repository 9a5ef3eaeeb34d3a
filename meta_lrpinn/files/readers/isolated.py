"""Readers in a process of their own, which a damaged file may end without harm.

One such process is started when it is first needed, takes one file after the other, and
ends when this process closes its pipe, however it ends. It imports no JAX. Arrays come
back as bytes, never as pickles.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import math
import os
import pathlib
import signal
import subprocess
import sys
import threading

import numpy as np

from meta_lrpinn.files.readers.contents import Contents, one_line

# A reader that takes longer, plus a second for every ten megabytes, hangs.
_PATIENCE = 30.0  # s
_BYTES_PER_SECOND = 1e7

_SERVE = """
import sys
sys.path.insert(0, sys.argv[1])
from meta_lrpinn.files.readers import isolated
isolated.serve()
"""

_lock = threading.Lock()
_process: tuple[int, subprocess.Popen] | None = None  # with the process it belongs to


def read(
    reader: str, path: pathlib.Path, name: str | None, patience: float = _PATIENCE
) -> Contents:
    """What a reader, MODULE.FUNCTION, gives of a file of which an array is wanted.

    A small file is given up after so many seconds of patience.

    Raises:
        ValueError: if it refuses the file, takes too long or is ended by it.
    """
    request = json.dumps((reader, os.path.abspath(path), name))
    patience += _size(path) / _BYTES_PER_SECOND
    with _lock:
        process = _running()
        assert process.stdin and process.stdout  # both are pipes
        timer = threading.Timer(patience, process.kill)
        timer.start()
        try:
            process.stdin.write(request.encode() + b"\n")
            process.stdin.flush()
            reply = json.loads(process.stdout.readline())
            arrays = {}
            for key, dtype, shape in reply.get("arrays", ()):
                size = math.prod(shape) * np.dtype(dtype).itemsize
                arrays[key] = np.ndarray(shape, dtype, process.stdout.read(size))
        except (OSError, ValueError, TypeError):  # the pipe ended, in a line or in numbers
            code = _stop()
            reason = f"the file is damaged: it ended its reader (exit code {code})"
            if code == -signal.SIGKILL:
                seconds = f"{patience:.0f} s"
                reason = f"its reader was stopped after {seconds} or ran out of memory"
            raise ValueError(reason) from None
        except BaseException:
            _stop()  # What is still in the pipe belongs to no later call.
            raise
        finally:
            timer.cancel()
    if "error" in reply:
        raise ValueError(reply["error"])
    dimensions = {key: tuple(names) for key, names in reply["dimensions"].items()}
    return Contents(arrays, dimensions)


def serve() -> None:
    """Answers requests on standard input until it is closed."""
    _limit_memory()
    # What libraries print must not get between the answers.
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    for line in sys.stdin.buffer:
        reader, path, name = json.loads(line)
        arrays = {}
        try:
            module, function = reader.split(".")
            module = importlib.import_module(f"meta_lrpinn.files.readers.{module}")
            contents = getattr(module, function)(pathlib.Path(path), name)
            arrays = {k: np.asarray(v, order="C") for k, v in contents.arrays.items()}
            listed = [(key, v.dtype.str, v.shape) for key, v in arrays.items()]
            reply = {"arrays": listed, "dimensions": contents.dimensions}
        except Exception as error:  # Libraries raise nearly anything.
            reply = {"error": one_line(str(error) or type(error).__name__)}
            arrays = {}
        replies.write(json.dumps(reply).encode() + b"\n")
        for value in arrays.values():
            replies.write(value.tobytes())
        replies.flush()


def _limit_memory() -> None:
    """Keeps a damaged length from taking more than the machine has."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        resource.setrlimit(resource.RLIMIT_AS, (total, total))


def _size(path: pathlib.Path) -> int:
    """Bytes of a file, or of all files of a folder."""
    files = path.rglob("*") if path.is_dir() else (path,)
    return sum(file.stat().st_size for file in files)


def _running() -> subprocess.Popen:
    global _process
    # A forked child must not share its parent's pipe.
    if _process is not None and _process[1].poll() is not None:
        _stop()
    if _process is None or _process[0] != os.getpid():
        root = pathlib.Path(__file__).parents[3]
        _process = (
            os.getpid(),
            subprocess.Popen(
                [sys.executable, "-c", _SERVE, str(root)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            ),
        )
    return _process[1]


@atexit.register
def _stop() -> int | None:
    """Ends the process; its exit code."""
    global _process
    if _process is None or _process[0] != os.getpid():
        return None
    process, _process = _process[1], None
    assert process.stdin and process.stdout  # both are pipes
    # One that is alive waits for a request, and ends when there can be none.
    with contextlib.suppress(OSError):
        process.stdin.close()
    try:
        process.wait(timeout=1)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()
    return process.returncode
