"""Compiled programs kept from one process to the next, in the user's cache folder.

JAX's persistent cache, which is told by environment variables so that worker processes
share it, before JAX is imported. META_LRPINN_CACHE names another folder, or is "off".
"""

import os
import pathlib
import sys
import warnings

_VARIABLE = "META_LRPINN_CACHE"
# Programs that compile faster are not worth a file [s].
_WORTH = 0.2


def folder() -> pathlib.Path | None:
    """Where programs are kept; None where they are not."""
    chosen = os.environ.get(_VARIABLE, "")
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
    """Lets JAX keep what it compiles, unless the folder cannot be written to.

    Variables of JAX that are set already stay as they are.
    """
    place = folder()
    if place is None or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    if not os.access(place, os.W_OK | os.X_OK):
        return
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(place)
    least = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"
    os.environ.setdefault(least, str(_WORTH))
    # A damaged file is compiled again.
    warnings.filterwarnings("ignore", message=".*persistent compilation cache")
