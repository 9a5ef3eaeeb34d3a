"""Tasks spread over devices and processes; one device is a mesh of one.

Parameters are on every device, the task axis is cut into equal shards. Each device
computes the meta-gradient of its own tasks, and one mean over devices joins them.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from meta_lrpinn.learning import maml
from meta_lrpinn.learning.configs import Algorithm
from meta_lrpinn.learning.objectives import Objective
from meta_lrpinn.learning.soap import Metric
from meta_lrpinn.learning.task_sets import Task

_AXIS = "tasks"


def initialise_distributed(
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    *,
    detect: bool = False,
) -> None:
    """Joins this process to the others of a run; call it before anything else of JAX.

    Args:
        coordinator: Address "host:port" of process 0.
        processes, process: How many there are, and the number of this one, from 0.
        detect: Whether JAX finds all three itself, as it can under SLURM, Open MPI and
            on Cloud TPU. Without `detect` and `coordinator` nothing happens.

    Raises:
        ValueError: if only some of coordinator, processes and process are given.
    """
    is_set = [part is not None for part in (coordinator, processes, process)]
    if any(is_set) and not all(is_set):
        raise ValueError(
            "coordinator, number of processes and process number go together, got "
            f"{coordinator}, {processes}, {process}"
        )
    if any(is_set) or detect:
        jax.distributed.initialize(coordinator, processes, process)


def task_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """Mesh of one axis, over which tasks are spread; by default of all devices."""
    devices = jax.devices() if devices is None else devices
    return Mesh(np.asarray(devices), (_AXIS,), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of parameters: whole on every device."""
    return NamedSharding(mesh, PartitionSpec())


def local_tasks(number: int, mesh: Mesh) -> slice:
    """The tasks of a whole batch of `number` that this process feeds.

    It is a ValueError if the devices cannot share the batch equally.
    """
    _check_tasks_per_batch(number, mesh)
    each = number // mesh.size
    ours = [
        index
        for index, device in enumerate(mesh.devices.flat)
        if device.process_index == jax.process_index()
    ]
    return slice(each * ours[0], each * (ours[-1] + 1))


def shard_tasks(tasks: Task, mesh: Mesh) -> Task:
    """This process's tasks, on the host, as part of the batch of all processes.

    Its leaves (tasks, ...) are sharded along their first axis. It is a ValueError if the
    devices cannot share the batch equally.
    """
    processes = len({device.process_index for device in mesh.devices.flat})
    _check_tasks_per_batch(processes * maml.number_of_tasks(tasks), mesh)
    sharding = NamedSharding(mesh, PartitionSpec(_AXIS))
    return jax.tree.map(
        lambda leaf: jax.make_array_from_process_local_data(
            sharding, np.asarray(leaf), (processes * len(leaf), *np.shape(leaf)[1:])
        ),
        tasks,
    )


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Puts a copy of a tree, the same in every process, on every device.

    The copy never shares memory with `tree`, so that it may be donated.
    """
    sharding = replicated(mesh)
    return jax.tree.map(
        lambda leaf: jax.make_array_from_process_local_data(
            sharding, np.array(leaf), np.shape(leaf)
        ),
        tree,
    )


def local_copy(tree: Any) -> Any:
    """A replicated tree as this process's own arrays, on its first device."""
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)


def of_first_process(value: np.ndarray) -> np.ndarray:
    """The value that process 0 holds, for decisions all must take alike."""
    if jax.process_count() == 1:
        return value
    return multihost_utils.broadcast_one_to_all(value)


def sharded_meta_gradient(
    objective: Objective,
    mesh: Mesh,
    algorithm: Algorithm,
    task_axis: str = "vmap",
    metric: Metric | None = None,
) -> Callable[..., tuple]:
    """`maml.gradient` with the tasks spread over a mesh.

    It is a function of (params, support, query, key), to be jitted, whose result is on
    every device and does not depend on how many there are, but for rounding.
    """

    def local(params, support, query, keys):
        batch = support, query, keys
        result = maml.gradient(objective, params, *batch, algorithm, task_axis, metric)
        return jax.lax.pmean(result, _AXIS)

    whole, split = PartitionSpec(), PartitionSpec(_AXIS)
    # Gradients are taken inside, of replicated parameters, which must stay local until
    # the mean: with check_vma they would be summed over devices in every inner step.
    spread = jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(whole, split, split, split),
        out_specs=whole,
        check_vma=False,
    )

    def gradient(params, support, query, key):
        keys = jax.random.split(key, maml.number_of_tasks(support))
        return spread(params, support, query, keys)

    return gradient


def _check_tasks_per_batch(number: int, mesh: Mesh) -> None:
    if number % mesh.size:
        raise ValueError(
            "tasks per batch must be a multiple of the number of devices, got "
            f"{number} tasks for {mesh.size} devices"
        )
