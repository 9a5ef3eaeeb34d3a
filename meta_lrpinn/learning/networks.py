"""Networks as values: a module with its parameters, loaded, pruned, reduced.

    network = load_network("default").prune(5.0).truncate(fraction=0.3)

Every method returns another network; nothing is changed in place.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from meta_lrpinn import models
from meta_lrpinn.learning import checkpoints, configs, soap

ASSETS = Path(__file__).parents[1] / "assets"
# What is loaded by the name "default".
DEFAULT = "small"


@dataclasses.dataclass(frozen=True)
class Network:
    """A network and its parameters.

    `NetworkFeatures` needs of its module `ndim`, `layer_fraction` and the method
    `features`, (points, source, frequency) → (n, width); `GradientTraining` also the call,
    of the same arguments, → (n, 2), and `jets`. Modules of `meta_lrpinn.models` have them.
    """

    module: nn.Module
    params: Any  # parameter tree of the module
    has_free_bases: bool = True  # False if adaptation is to leave U and V as they are
    # What SOAP begins with. It was learned from these very parameters, all of them free:
    # a network that is reduced, frozen in part or random has none.
    metric: soap.Metric | None = None

    def __repr__(self) -> str:
        """What it is and how large, in one line."""
        of = [f"{self.kind} in {self.ndim}D", f"{self.number_of_features} features"]
        if self.ranks is not None:
            of.append(f"ranks {', '.join(map(str, self.ranks))}")
        of.append(f"{sum(leaf.size for leaf in jax.tree.leaves(self.params)):,} parameters")
        if self.metric is not None:
            of.append("a metric")
        of.append(f"checksum {self.checksum()[:8]}")
        return f"Network({'; '.join(of)})"

    @property
    def kind(self) -> str:
        """ "lrpinn" for a low-rank network, "pinn" for any other."""
        return "lrpinn" if isinstance(self.module, models.MetaLRPINN) else "pinn"

    @property
    def ndim(self) -> int:
        """Space dimension, 2 or 3."""
        return self.module.ndim

    @property
    def layer_fraction(self) -> float:
        """Thickness of the absorbing layer it is for, over that of training's default."""
        return self.module.layer_fraction

    @property
    def is_pruned(self) -> bool:
        """Whether its singular values are parameters, not functions of the frequency."""
        module = self.module
        return isinstance(module, models.MetaLRPINN) and module.is_pruned

    @property
    def ranks(self) -> tuple[int, ...] | None:
        """Rank of each hidden layer; None for a dense network."""
        module = self.module
        return module.network.ranks if isinstance(module, models.MetaLRPINN) else None

    @property
    def number_of_features(self) -> int:
        """Units of the last hidden layer."""
        return number_of_features(self.module, self.params)

    def checksum(self) -> str:
        """SHA-256 of the parameters: names, shapes and values, in hexadecimal."""
        return checkpoints.checksum(self.params)

    def prune(self, frequency: float) -> "Network":
        """Without its hypernetwork: the singular values at a frequency [Hz] are free."""
        module = self._low_rank("pruned")
        pruned = models.prune_hypernetwork(module, self.params, frequency)
        metric = None if self.metric is None else models.known_of_pruned(self.metric)
        return dataclasses.replace(self._replaced(*pruned), metric=metric)

    def truncate(
        self, *, fraction: float | None = None, count: int | None = None
    ) -> "Network":
        """With the largest singular values of each layer only; see `models.truncate`."""
        module, criterion = self._low_rank("reduced in rank"), (fraction, count)
        return self._replaced(*models.truncate(module, self.params, *criterion))

    def leading(self, number: int) -> "Network":
        """With the first features only; see `models.leading_features`."""
        module = self._low_rank("reduced to leading features")
        return self._replaced(*models.leading_features(module, self.params, number))

    def freeze_bases(self) -> "Network":
        """Whose U and V are not adapted; only a low-rank network has them."""
        self._low_rank("adapted with frozen bases")
        return dataclasses.replace(self, has_free_bases=False, metric=None)

    def reinitialised(self, seed: int | jax.Array) -> "Network":
        """The same network with random parameters, by a seed or a random key."""
        params = random_network(self.module, seed).params
        return dataclasses.replace(self, params=params, metric=None)

    def with_parameters(self, params: Any) -> "Network":
        """The same network with other parameters of the same structure."""
        return dataclasses.replace(self, params=params)

    def _replaced(self, module: nn.Module, params: Any) -> "Network":
        return dataclasses.replace(self, module=module, params=params, metric=None)

    def _low_rank(self, what: str) -> models.MetaLRPINN:
        """Its module, which only an lrpinn has."""
        if not isinstance(self.module, models.MetaLRPINN):
            raise ValueError(f"only an lrpinn can be {what}; this network is a pinn")
        return self.module


def make_network(config: configs.NetworkConfig) -> nn.Module:
    """The module of a configuration."""
    names = ("width", "depth", "ndim", "first_scale", "layer_fraction")
    common = {name: getattr(config, name) for name in names}
    common["last_width"] = config.features
    if config.kind == "pinn":
        return models.PINN(**common, frequency_input=config.frequency_input)
    return models.make_meta_lrpinn(
        **common, rank=config.rank, initialisation=config.initialisation
    )


def random_network(module: nn.Module, seed: int | jax.Array) -> Network:
    """A module with random parameters, by a seed or a random key."""
    key = jax.random.key(seed) if isinstance(seed, int) else seed
    return Network(module, models.initial_parameters(module, key))


def load_network(
    name: str | Path | None = "default",
    *,
    kind: str | None = None,
    ndim: int | None = None,
    seed: int | jax.Array = 0,
) -> Network:
    """A network to solve with, or to adapt.

    Args:
        name: "default" or the name of another shipped initialisation, the folder of an
            initialisation or of a training run, or None for random parameters of the
            size of the preset `small`.
        kind: "lrpinn" or "pinn". An initialisation must be of this kind; a network with
            random parameters is made of it, "lrpinn" by default.
        ndim: Space dimension, likewise; random parameters are for 2D by default.
        seed: Seed, or random key, of random parameters.

    Raises:
        ValueError: if there is no such initialisation, or it is another network's.
    """
    if name is None:
        small = configs.PRESETS["small"].network
        config = dataclasses.replace(small, kind=kind or "lrpinn", ndim=ndim or 2)
        return random_network(make_network(config), seed)
    folder, metric = find_initialisation(name), None
    if (folder / checkpoints.FOLDER).is_dir():
        params, settings, _ = checkpoints.load_run_parameters(folder)
        saved = settings["network"]
    else:
        params, saved, _ = checkpoints.load_initialisation(folder)
        metric = checkpoints.load_metric(folder)
    config = configs.network_from_dict(saved)
    wanted = (kind or config.kind, ndim or config.ndim)
    if (config.kind, config.ndim) != wanted:
        raise ValueError(
            f"the initialisation {folder.name} is a {config.ndim}D {config.kind}; "
            f"asked for a {wanted[1]}D {wanted[0]} (None starts at random)"
        )
    return Network(make_network(config), params, metric=metric)


def shipped() -> list[str]:
    """Names of the initialisations that come with the package."""
    return sorted(path.parent.name for path in ASSETS.glob(f"*/{checkpoints.CARD}"))


def find_initialisation(name: str | Path) -> Path:
    """Folder of a shipped initialisation, or the folder that is given itself.

    Raises:
        ValueError: if there is neither.
    """
    if name == "default":
        return ASSETS / DEFAULT
    if isinstance(name, str) and name in shipped():
        return ASSETS / name
    if Path(name).is_dir():
        return Path(name)
    raise ValueError(
        f"there is no folder {name} of an initialisation, and none of that name is "
        f"shipped ({', '.join(shipped())})"
    )


def number_of_features(module: nn.Module, params: Any) -> int:
    """Units of the last hidden layer of a module with `features`."""
    leaves, structure = jax.tree.flatten(params)
    shapes = (jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x)) for x in leaves)
    return _number_of_features(module, structure, tuple(shapes))


@functools.lru_cache  # tracing a network takes a third of an exact solve
def _number_of_features(module: nn.Module, structure: Any, shapes: tuple) -> int:
    inputs = jnp.zeros((1, module.ndim)), jnp.zeros(module.ndim - 1), jnp.ones(())
    features: Any = jax.eval_shape(
        lambda params: module.apply({"params": params}, *inputs, method="features"),
        jax.tree.unflatten(structure, shapes),
    )
    return features.shape[-1]
