"""Where blocks are solved: in this process, or on the workers of a Dask cluster."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

from meta_lrpinn.runtime import machine

# Maps a function over tasks; results in whatever order they are there.
Mapper: TypeAlias = Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]]

# Tasks that a thread of a worker has or waits for: enough that none idles while results
# travel, few enough that a lost worker costs little. Not tuned.
_TASKS_PER_THREAD = 3
_CONNECT_SECONDS = 20  # a guard, not tuned: nobody waits long for an absent scheduler


class WorkersLost(RuntimeError):
    """A chunk ended several workers, one after the other."""


@contextlib.contextmanager
def mapper(cluster: str | None = None, workers: int | None = None) -> Iterator[Mapper]:
    """How blocks are solved while the context lasts.

    Args:
        cluster: Address of a Dask scheduler, as tcp://HOST:8786; its workers must have
            this package and reach velocities and output.
        workers: Processes of a cluster on this machine instead. Neither: this process.

    Raises:
        ValueError: if both are given, or Dask is not installed.
        OSError: if no scheduler answers.
    """
    if cluster is not None and workers is not None:
        raise ValueError("give cluster or workers, not both")
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    if cluster is None and workers is None:
        yield lambda function, tasks: map(function, tasks)
        return
    machine.require(("dask", "distributed"), "dask", "a cluster")
    from dask import config

    with contextlib.ExitStack() as stack:
        address: Any = cluster
        if cluster is None:
            # Our own workers inherit this, and print errors only.
            stack.enter_context(config.set({"logging": {"distributed": "error"}}))
        import distributed

        if cluster is None:
            # A thread each: JAX and the factorisations release the interpreter, so that
            # several would only share the cores and add up their memory.
            local = distributed.LocalCluster(
                n_workers=workers, threads_per_worker=1, dashboard_address=":0"
            )
            address = stack.enter_context(local)
        try:
            client = distributed.Client(address, timeout=_CONNECT_SECONDS)
        except (OSError, ValueError) as error:
            raise OSError(f"no Dask scheduler answers at {cluster}: {error}") from None
        stack.enter_context(client)
        yield lambda function, tasks: _on_workers(client, function, tasks)


def _on_workers(
    client: Any, function: Callable[[Any], Any], tasks: Iterable[Any]
) -> Iterator[Any]:
    """Keeps a few tasks ahead of the workers, however many there are at the time.

    The task of a lost worker is given to another by the scheduler.
    """
    import distributed

    tasks = iter(tasks)
    pending = distributed.as_completed()

    def submit():
        threads = sum(client.nthreads().values())
        while pending.count() < max(1, _TASKS_PER_THREAD * threads):
            task = next(tasks, None)
            if task is None:
                return
            pending.add(client.submit(function, task, pure=False))

    submit()
    for future in pending:
        try:
            yield future.result()
        except distributed.KilledWorker as error:
            raise WorkersLost(
                "a chunk ended several workers one after the other, probably for lack of "
                "memory"
            ) from error
        submit()
