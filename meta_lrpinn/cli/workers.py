"""Options of commands whose work can run on a Dask cluster."""

import argparse
import contextlib
import os
from collections.abc import Iterator
from typing import Any

from meta_lrpinn.cli.parsing import add_option
from meta_lrpinn.cli.report import CommandFailed

_SCHEDULER = "DASK_SCHEDULER_ADDRESS"


def add_options(group: Any, what: str) -> None:
    """Adds the choice of a cluster or of processes; `what` its workers do."""
    add_option(
        group,
        "cluster",
        str,
        f"Address of a Dask scheduler, as tcp://HOST:8786; by default {_SCHEDULER}. Its "
        f"workers {what}.",
    )
    add_option(
        group,
        "workers",
        int,
        "Processes on this machine, by Dask; by default one without it.",
    )


def chosen(options: argparse.Namespace) -> dict[str, Any]:
    """`cluster` and `workers` as the functions behind the commands take them."""
    cluster = options.cluster
    if cluster is None and options.workers is None:
        cluster = os.environ.get(_SCHEDULER)
    return {"cluster": cluster, "workers": options.workers}


@contextlib.contextmanager
def resumable(remedy: str) -> Iterator[None]:
    """Says of work that workers or the user ended that the same command goes on.

    Args:
        remedy: What to do where workers are ended again and again.

    Raises:
        CommandFailed: if a chunk ended several workers.
    """
    from meta_lrpinn.runtime import executors

    try:
        yield
    except executors.WorkersLost as error:
        raise CommandFailed(f"{error}; {remedy}; the same command goes on") from None
    except KeyboardInterrupt:
        raise KeyboardInterrupt("the same command goes on") from None
