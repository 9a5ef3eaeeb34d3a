"""Options of a solver and of the machines that it runs on.

Those of a solver are the fields of its settings, with one help text for both.
"""

import argparse
import contextlib
import dataclasses
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from meta_lrpinn.cli import CommandFailed
from meta_lrpinn.cli.parsing import Groups, Option, UsageError, not_of, options_of, replaced
from meta_lrpinn.runtime.options import variant
from meta_lrpinn.solvers.settings import SOLVERS, PlaneWaves, Solver

if TYPE_CHECKING:
    from meta_lrpinn.learning.networks import Network

_SCHEDULER = "DASK_SCHEDULER_ADDRESS"

# What chooses a network and prepares it; see `networks.Network`.
NETWORK_OPTIONS = (
    Option(
        "init",
        "Where the network starts: the name of a shipped initialisation (see the command "
        "info), the folder of an initialisation or a run, or none for random parameters.",
    ),
    Option("prune", "Make the singular values free parameters first [true].", bool),
    Option("rank_fraction", "Fraction of the singular values to keep.", float),
    Option("rank_count", "Number of singular values to keep.", int),
    Option("features", "Number of leading features to use.", int),
    Option("freeze_bases", "Do not adapt U and V.", bool),
)


@dataclasses.dataclass(frozen=True)
class _Chosen:
    """The settings of one solver."""

    solver: Solver = variant(PlaneWaves(), "How to solve.", SOLVERS)


def option_groups() -> Groups:
    """The choice of a solver, the options of all solvers, those of their networks."""
    names = {solver: options_of(kind).keys() for solver, kind in SOLVERS.items()}
    choice, *others = options_of(_Chosen).values()
    options = [choice._replace(default=PlaneWaves.name)]
    for option in others:
        owners = ", ".join(solver for solver in SOLVERS if option.name in names[solver])
        text = f"{option.text} Of {owners}."
        options.append(option._replace(text=text, is_optional=False))
    network = f"network, of {' and '.join(_solvers_with_network())}"
    return {"solver": options, network: NETWORK_OPTIONS}


def make_settings(
    options: argparse.Namespace, frequency: float | None, ndim: int
) -> Solver:
    """The settings that the options ask for.

    Args:
        options: Parsed options of `option_groups`.
        frequency: Frequency at which a network is pruned [Hz]; None for several, where
            it is not.
        ndim: Space dimension of the network.

    Raises:
        ValueError: if an option does not apply to the solver, or is out of its range.
    """
    chosen = _Chosen(SOLVERS[options.solver]())
    settings = replaced(chosen, vars(options)).solver
    names = _network_fields(settings)
    for option in () if names else NETWORK_OPTIONS:
        if getattr(options, option.name) is not None:
            solver = f"solver={options.solver}"
            raise not_of(solver, option.name, _solvers_with_network())
    networks = {
        name: _make_network(options, frequency, ndim, getattr(settings, name))
        for name in names
    }
    return dataclasses.replace(settings, **networks)


def _make_network(
    options: argparse.Namespace, frequency: float | None, ndim: int, default: Any
) -> "Network":
    """The network that NETWORK_OPTIONS ask for, prepared; `default` where they do not."""
    from meta_lrpinn.learning.networks import load_network

    if frequency is None and options.prune:
        raise UsageError("a network is pruned at one frequency; leave out --prune")

    name = default if options.init is None else options.init
    name = None if name == "none" else name
    network = load_network(name, ndim=ndim, seed=options.seed)
    prune = network.kind == "lrpinn" if options.prune is None else options.prune
    if prune and frequency is not None:
        network = network.prune(frequency)
    if options.rank_fraction is not None or options.rank_count is not None:
        network = network.truncate(fraction=options.rank_fraction, count=options.rank_count)
    if options.features is not None:
        network = network.leading(options.features)
    return network.freeze_bases() if options.freeze_bases else network


def _solvers_with_network() -> list[str]:
    return [name for name, kind in SOLVERS.items() if _network_fields(kind)]


def _network_fields(settings: Any) -> list[str]:
    """The fields of settings, or of their class, that hold a network."""
    fields = dataclasses.fields(settings)
    return [field.name for field in fields if "network" in field.metadata]


# Machines -----------------------------------------------------------------------------


def machine_options(what: str) -> tuple[Option, ...]:
    """The choice of a cluster or of processes; `what` its workers do."""
    return (
        Option(
            "cluster",
            f"Address of a Dask scheduler, as tcp://HOST:8786; by default {_SCHEDULER}. "
            f"Its workers {what}.",
        ),
        Option(
            "workers", "Processes on this machine, by Dask; by default one without it.", int
        ),
    )


def machines(options: argparse.Namespace) -> dict[str, Any]:
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
