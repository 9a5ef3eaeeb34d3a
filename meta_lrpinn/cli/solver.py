"""Options of a solver: the fields of its settings, with one help text for both."""

import argparse
import dataclasses
import types
import typing
from typing import TYPE_CHECKING, Any

from meta_lrpinn.cli.parsing import UsageError, add_option
from meta_lrpinn.solvers import settings as choices

if TYPE_CHECKING:
    from meta_lrpinn.learning.networks import Network

_ADAPTATIONS = {
    "adamw": choices.AdamW,
    "soap": choices.SOAP,
    "gauss_newton": choices.GaussNewton,
}
# Options that prepare a network before it is solved with; see `networks.Network`.
_NETWORK_OPTIONS = "init prune rank_fraction rank_count features freeze_bases".split()
_WITH_NETWORK = ("network_features", "gradient_training")


def add_options(parser: argparse.ArgumentParser, default: str = "plane_waves") -> None:
    """Adds the choice of a solver, and the options of all solvers."""
    group = parser.add_argument_group("solver")
    add_option(group, "solver", str, "How to solve.", default, tuple(choices.SOLVERS))
    for name, (kind, text, allowed, owners) in _solver_options().items():
        whose = ", ".join(owners)
        add_option(group, name, kind, f"{text} Of {whose}.", None, allowed)
    network = parser.add_argument_group(f"network, of {' and '.join(_WITH_NETWORK)}")
    add_network_options(network)
    add_option(
        network,
        "adaptation",
        str,
        "The optimiser: soap is adamw in the eigenbasis of Shampoo's preconditioner; "
        "gauss_newton is of network_features only.",
        None,
        tuple(_ADAPTATIONS),
    )


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


def make_settings(options: argparse.Namespace, frequency: float | None, ndim: int) -> Any:
    """The settings that the options ask for.

    Args:
        options: Parsed options of `add_options`.
        frequency: Frequency at which a network is pruned [Hz]; None for several, where
            it is not.
        ndim: Space dimension of the network.

    Raises:
        ValueError: if an option does not apply to the solver, or is out of its range.
    """
    given = {name: value for name, value in vars(options).items() if value is not None}
    kind = choices.SOLVERS[options.solver]
    known = _solver_options()
    for name in (*known, *_NETWORK_OPTIONS, "adaptation"):
        if name in given and options.solver not in _owners(name):
            raise UsageError(
                f"--{name} is no option of --solver={options.solver}, but of "
                f"{', '.join(_owners(name))}"
            )
    fields = {field.name: given[field.name] for field in _fields(kind)
              if field.name in given}  # fmt: skip
    if options.solver in _WITH_NETWORK:
        fields["network"] = make_network(options, frequency, ndim)
    if options.solver == "network_features":
        fields["adaptation"] = _adaptation(given)
    if options.solver == "gradient_training":
        fields["adamw"] = _adamw(given, kind().adamw)
    return kind(**fields)


def make_network(
    options: argparse.Namespace, frequency: float | None, ndim: int
) -> "Network":
    """The network that `add_network_options` asks for, prepared."""
    from meta_lrpinn.learning.networks import load_network

    if frequency is None and options.prune:
        raise UsageError("a network is pruned at one frequency; leave out --prune")

    name = options.init
    if name is None:
        solver = choices.SOLVERS[getattr(options, "solver", "network_features")]
        name = solver().network
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


def _adaptation(given: dict[str, Any]) -> Any:
    """The adaptation that was named, or that options of one imply; None for none."""
    name = given.get("adaptation")
    if name is None:
        options = {field.name for field in _fields(choices.AdamW)}
        name = "adamw" if options & given.keys() else None
    if name is None:
        return None
    kind = _ADAPTATIONS[name]
    foreign = {f.name for other in _ADAPTATIONS.values() for f in _fields(other)}
    foreign -= {field.name for field in _fields(kind)}
    for option in sorted(foreign & given.keys()):
        raise UsageError(f"--{option} is no option of --adaptation={name}")
    return _of_kind(kind, given)


def _adamw(given: dict[str, Any], default: choices.AdamW) -> choices.AdamW:
    """The adaptation of all parameters, of which the default has the number of steps."""
    name = given.get("adaptation", default.optimiser)
    kind = _ADAPTATIONS[name]
    if not issubclass(kind, choices.AdamW):
        raise UsageError(f"--adaptation={name} is no option of --solver=gradient_training")
    return _of_kind(kind, {"steps": default.steps, **given})


def _of_kind(kind: type, given: dict[str, Any]) -> Any:
    return kind(**{f.name: given[f.name] for f in _fields(kind) if f.name in given})


def _fields(kind: type) -> list[dataclasses.Field]:
    """The fields of settings that are options."""
    return [field for field in dataclasses.fields(kind) if field.metadata.get("help")]


def _groups() -> dict[type, tuple[str, ...]]:
    """Dataclasses whose fields are options, and the solvers that have them."""
    own = {kind: (name,) for name, kind in choices.SOLVERS.items()}
    return {**own, choices.AdamW: _WITH_NETWORK, choices.GaussNewton: _WITH_NETWORK[:1]}


def _solver_options() -> dict[str, tuple[type, str, tuple[str, ...] | None, list[str]]]:
    """Name → type, help, choices and solvers of every option."""
    found: dict[str, tuple[type, str, Any, list[str]]] = {}
    for kind, owners in _groups().items():
        hints = typing.get_type_hints(kind, localns={"Network": object})
        for field in _fields(kind):
            text, allowed = field.metadata["help"], field.metadata["choices"]
            entry = found.setdefault(
                field.name, (_plain_type(hints[field.name]), text, allowed, [])
            )
            entry[3].extend(name for name in owners if name not in entry[3])
    return found


def _owners(name: str) -> list[str]:
    if name in (*_NETWORK_OPTIONS, "adaptation"):
        return list(_WITH_NETWORK)
    return _solver_options()[name][3]


def _plain_type(hint: Any) -> type:
    """int of `int | None`."""
    if isinstance(hint, types.UnionType):
        (hint,) = (one for one in typing.get_args(hint) if one is not type(None))
    return hint
