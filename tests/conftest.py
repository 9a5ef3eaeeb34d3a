"""What several test modules share."""

import os
import pathlib

import pytest

# Most of the time of a small test is compilation. Set before JAX is imported; child
# processes inherit it.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")


@pytest.fixture(scope="session")
def data_dir() -> pathlib.Path:
    """Folder of the published data; the test is skipped where there is none.

    META_LRPINN_DATA names it, else it is ../shared/data beside the repository.
    """
    default = pathlib.Path(__file__).parents[2] / "shared" / "data"
    folder = pathlib.Path(os.environ.get("META_LRPINN_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"published data are absent: there is no folder {folder}")
    return folder
