"""Optional libraries, and what to install where one is missing."""

import importlib.util
from collections.abc import Iterable


def require(libraries: Iterable[str], extra: str, what: str) -> None:
    """Refuses, before anything is begun, what needs a library that is not there.

    Args:
        libraries: Names to import.
        extra: The extra of this package that installs them.
        what: What needs them, as "reading SEG-Y".

    Raises:
        ValueError: if one cannot be imported; it says what to install.
    """
    for library in libraries:
        # Found but not imported: importing some of them takes seconds.
        if importlib.util.find_spec(library) is None:
            raise ValueError(f"{what} needs {library}: pip install 'meta_lrpinn[{extra}]'")
