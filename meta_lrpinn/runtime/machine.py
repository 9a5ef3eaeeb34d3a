"""What the machine offers, asked before work begins: memory, libraries, a cache folder.

Nothing here imports JAX.
"""

import importlib.util
import os
import pathlib
import sys
import warnings
from collections.abc import Iterable

# Programs that compile faster are not worth a file [s].
_WORTH = 0.2


def machine_memory() -> float:
    """Bytes that this process may use: the machine's memory, or its container's."""
    total = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    try:
        with open("/sys/fs/cgroup/memory.max") as file:
            return min(total, float(file.read()))
    except (OSError, ValueError):  # no container, or one without a limit
        return total


def check_memory(needed: float, what: str, remedy: str) -> None:
    """Refuses what the machine's memory has no room for.

    Args:
        needed: How much, at least [bytes].
        what: What takes it, in the plural.
        remedy: What to do instead.

    Raises:
        ValueError: if there is less.
    """
    available = machine_memory()
    # All memory counts, free or not: what is free changes before anything is built.
    if needed > available:
        raise ValueError(
            f"{what} take {_gib(needed)} or more, this machine has {_gib(available)}; "
            f"{remedy}"
        )


def _gib(size: float) -> str:
    number = size / 2**30
    return f"{number:,.0f} GiB" if 100 <= number < 1e9 else f"{number:.3g} GiB"


def require(libraries: Iterable[str], extra: str, what: str) -> None:
    """Refuses what needs a library that is not there, as "reading SEG-Y" does.

    Raises:
        ValueError: if one cannot be imported; it says which extra installs it.
    """
    for library in libraries:
        # Found but not imported: importing some of them takes seconds.
        if importlib.util.find_spec(library) is None:
            raise ValueError(f"{what} needs {library}: pip install 'meta_lrpinn[{extra}]'")


def cache_folder() -> pathlib.Path | None:
    """Where compiled programs are kept; None where they are not.

    META_LRPINN_CACHE names a folder, or is "off"; by default it is the user's cache.
    """
    chosen = os.environ.get("META_LRPINN_CACHE", "")
    if chosen == "off":
        return None
    if chosen:
        return pathlib.Path(chosen).expanduser()
    try:
        home = pathlib.Path.home()
    except RuntimeError:  # a user without one
        return None
    places = {
        "darwin": home / "Library" / "Caches",
        "win32": pathlib.Path(os.environ.get("LOCALAPPDATA", home / "AppData" / "Local")),
    }
    other = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return places.get(sys.platform, other) / "meta-lrpinn"


def keep_programs() -> None:
    """Lets JAX keep what it compiles from one process to the next.

    To be called before JAX is imported: environment variables say it, which processes
    that this one starts inherit. Those that are set already stay as they are. Nothing is
    kept where the folder cannot be written to.
    """
    folder = cache_folder()
    if folder is None or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    if not os.access(folder, os.W_OK | os.X_OK):
        return
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    least = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"
    os.environ.setdefault(least, str(_WORTH))
    # A damaged file is compiled again.
    warnings.filterwarnings("ignore", message=".*persistent compilation cache")
