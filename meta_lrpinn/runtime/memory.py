"""How much memory there is, asked before something large is built."""

import os


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
