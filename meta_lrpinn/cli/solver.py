"""Options of a solver: the fields of its settings, with one help text for both."""

import argparse
import dataclasses
import types
import typing
from typing import TYPE_CHECKING, Any

from meta_lrpinn.cli.parsing import UsageError, add_option
from meta_lrpinn.solvers.settings import SOLVERS, Solver

if TYPE_CHECKING:
    from meta_lrpinn.learning.networks import Network

# Options that prepare a network before it is solved with; see `networks.Network`.
_NETWORK_OPTIONS = "init prune rank_fraction rank_count features freeze_bases".split()


@dataclasses.dataclass(frozen=True)
class _Option:
    """An option of one or several solvers."""

    kind: type
    text: str
    choices: tuple[str, ...] | None
    owners: list[str]  # names of the solvers


def add_options(parser: argparse.ArgumentParser, default: str = "plane_waves") -> None:
    """Adds the choice of a solver, and the options of all solvers."""
    group = parser.add_argument_group("solver")
    add_option(group, "solver", str, "How to solve.", default, tuple(SOLVERS))
    for name, option in _solver_options().items():
        text = f"{option.text} Of {', '.join(option.owners)}."
        add_option(group, name, option.kind, text, None, option.choices)
    owners = " and ".join(_solvers_with_network())
    add_network_options(parser.add_argument_group(f"network, of {owners}"))


def add_network_options(group: Any) -> None:
    """Adds what chooses a network and prepares it."""
    add_option(
        group,
        "init",
        str,
        "Where the network starts: the name of a shipped initialisation (see the command "
        "info), the folder of an initialisation or a run, or none for random parameters.",
    )
    add_option(
        group, "prune", bool, "Make the singular values free parameters first [true]."
    )
    add_option(group, "rank_fraction", float, "Fraction of the singular values to keep.")
    add_option(group, "rank_count", int, "Number of singular values to keep.")
    add_option(group, "features", int, "Number of leading features to use.")
    add_option(group, "freeze_bases", bool, "Do not adapt U and V.")


def make_settings(
    options: argparse.Namespace,
    frequency: float | None,
    ndim: int,
    start: Solver | None = None,
) -> Solver:
    """The settings that the options ask for.

    Args:
        options: Parsed options of `add_options`.
        frequency: Frequency at which a network is pruned [Hz]; None for several, where
            it is not.
        ndim: Space dimension of the network.
        start: Settings of one solver, whose values options of that solver replace;
            default: those that each solver has by default.

    Raises:
        ValueError: if an option does not apply to the solver, or is out of its range.
    """
    asked = {name: value for name, value in vars(options).items() if value is not None}
    _check_owners(options.solver, asked)
    settings = SOLVERS[options.solver]()
    if start is not None and start.name == options.solver:
        settings = start
    changes = {}
    for field in dataclasses.fields(settings):  # pyright: ignore[reportArgumentType]
        if "network" in field.metadata:
            network = make_network(options, frequency, ndim, getattr(settings, field.name))
            changes[field.name] = network
        elif "kinds" in field.metadata:
            changes[field.name] = _chosen(field, asked)
        elif field.name in asked and "help" in field.metadata:
            changes[field.name] = asked[field.name]
    return dataclasses.replace(settings, **changes)  # pyright: ignore[reportArgumentType]


def make_network(
    options: argparse.Namespace, frequency: float | None, ndim: int, default: Any
) -> "Network":
    """The network that `add_network_options` asks for, prepared.

    Args:
        options: Parsed options.
        frequency: Frequency at which it is pruned [Hz]; None for several.
        ndim: Space dimension.
        default: Name of the network where none is asked for.

    Raises:
        ValueError: if there is no such network, or it cannot be prepared so.
    """
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


def _check_owners(solver: str, asked: dict[str, Any]) -> None:
    """Refuses options of other solvers."""
    owners = {name: option.owners for name, option in _solver_options().items()}
    owners |= {name: _solvers_with_network() for name in _NETWORK_OPTIONS}
    for name in owners.keys() & asked.keys():
        if solver not in owners[name]:
            raise UsageError(
                f"--{name} is no option of --solver={solver}, but of "
                f"{', '.join(owners[name])}"
            )


def _chosen(field: dataclasses.Field, asked: dict[str, Any]) -> Any:
    """Settings of the kind that is asked for, with the values that are."""
    kinds, default = field.metadata["kinds"], field.default
    name = asked.get(field.name, getattr(default, "name", None))
    kind = kinds[name]
    names = {part.name for part in _described(kind)}
    foreign = {part.name for other in kinds.values() for part in _described(other)} - names
    for option in sorted(foreign & asked.keys()):
        raise UsageError(f"--{option} is no option of --{field.name}={name}")
    values = {
        part.name: asked.get(part.name, getattr(default, part.name, part.default))
        for part in _described(kind)
    }
    return kind(**values)


def _described(kind: type) -> list[dataclasses.Field]:
    """The fields of settings that are options."""
    return [field for field in dataclasses.fields(kind) if "help" in field.metadata]


def _solvers_with_network() -> list[str]:
    return [
        name
        for name, kind in SOLVERS.items()
        if any("network" in field.metadata for field in dataclasses.fields(kind))  # pyright: ignore[reportArgumentType]
    ]


def _solver_options() -> dict[str, _Option]:
    """Every option of the solvers by its name."""
    options: dict[str, _Option] = {}

    def add(owner: str, kind: type) -> None:
        hints = typing.get_type_hints(kind, localns={"Network": object})
        for field in _described(kind):
            kinds = field.metadata.get("kinds", {})
            choices = tuple(kinds) or field.metadata.get("choices")
            plain = str if kinds else _plain_type(hints[field.name])
            option = options.setdefault(
                field.name, _Option(plain, field.metadata["help"], choices, [])
            )
            if owner not in option.owners:
                option.owners.append(owner)
            for nested in kinds.values():
                add(owner, nested)

    for name, kind in SOLVERS.items():
        add(name, kind)
    return options


def _plain_type(hint: Any) -> type:
    """int of `int | None`."""
    if isinstance(hint, types.UnionType):
        (hint,) = (part for part in typing.get_args(hint) if part is not type(None))
    return hint
