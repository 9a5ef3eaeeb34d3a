"""What contenders cost: parameters, processor seconds, memory."""

import bisect
import dataclasses
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import meta_lrpinn as ml
from experiments.histories import Row
from meta_lrpinn import models
from meta_lrpinn.files.cases import Case
from meta_lrpinn.learning import adaptation, configs, networks, objectives, task_sets
from meta_lrpinn.learning.networks import Network
from meta_lrpinn.physics import problem as problems

_CLEAR_PEAK, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


@dataclasses.dataclass(frozen=True)
class Spent:
    """What a call took: processor seconds, elapsed seconds, memory beyond before [MB]."""

    processor: float
    elapsed: float
    memory: float

    def of(self, elapsed: float) -> float:
        """Processor seconds of a part of the call, by its elapsed seconds."""
        return elapsed * self.processor / self.elapsed


def measured(call: Callable[[], Any]) -> tuple[Any, Spent]:
    """What a call gives, and what it took; memory is not a number outside Linux."""
    before = _peak_memory(clear=True)
    began, processor = time.perf_counter(), time.process_time()
    found = call()
    processor, elapsed = time.process_time() - processor, time.perf_counter() - began
    # Less than nothing if something else was given back meanwhile.
    return found, Spent(processor, elapsed, float(np.maximum(_peak_memory() - before, 0)))


def _peak_memory(clear: bool = False) -> float:
    """Largest resident memory of this process [MB]; cleared, that of this moment."""
    if not _CLEAR_PEAK.exists():
        return np.nan
    if clear:
        _CLEAR_PEAK.write_text("5")
    (line,) = (li for li in _STATUS.read_text().splitlines() if li.startswith("VmHWM"))
    return float(line.split()[1]) / 1e3


def size(params: Any) -> int:
    """Number of parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def as_large(config: configs.NetworkConfig, parameters: int) -> configs.NetworkConfig:
    """The configuration with the least width that has no fewer parameters."""

    def at(width: int) -> int:
        module = networks.make_network(dataclasses.replace(config, width=width))
        return size(
            jax.eval_shape(functools.partial(models.initial_parameters, module), key)
        )

    key, widths = jax.random.key(0), range(1, 4096)
    width = widths[bisect.bisect_left(widths, parameters, key=at)]
    return dataclasses.replace(config, width=width)


def cost_of(case: Case, settings: ml.NetworkFeatures | ml.GradientTraining) -> Row:
    """Parameters that adapt, points and memory of a step; of exact solves the first."""
    network = settings.network
    points = memory = np.nan
    if isinstance(settings, ml.GradientTraining):
        points, name = settings.optimiser.points, settings.optimiser.name
        memory = memory_of(case, network, points, name, settings.loss)
    return {"parameters": size(network.params), "drawn": points, "memory": memory}


def bytes_of(program: jax.stages.Compiled) -> int:
    """What XLA accounts to a program: temporaries, arguments and outputs."""
    of = program.memory_analysis()
    return of.temp_size_in_bytes + of.argument_size_in_bytes + of.output_size_in_bytes


_MEMORY: dict[Any, float] = {}  # by what the program depends on: compiling takes seconds


def memory_of(
    case: Case, network: Network, points: int, optimiser: str, loss: str = "relative"
) -> float:
    """Memory of an adaptation step [MB]: its compiled gradient and the optimiser's state.

    Points are those of a step, optimiser and loss those of `GradientTraining`.
    """
    step = adaptation.make_optimiser(optimiser, 1e-3, "cosine", 1)
    state = sum(
        leaf.size * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(jax.eval_shape(step.init, network.params))
    )
    known = (network.module, network.is_pruned, points, loss, case.model.shape)
    if known not in _MEMORY:
        choose = {
            "relative": objectives.own_output_objective,
            "published": objectives.paper_objective,
        }
        made = problems.make_problem(
            case.model, case.frequency, case.source, layer_fraction=network.layer_fraction
        )
        unit = jax.tree.map(jnp.asarray, objectives.unit_problem(made))
        task = task_sets.single_task(unit)
        gradient = jax.value_and_grad(choose[loss](network.module, points), has_aux=True)
        program = jax.jit(gradient).lower(network.params, task, jax.random.key(0))
        _MEMORY[known] = bytes_of(program.compile())
    return (_MEMORY[known] + state) / 1e6
