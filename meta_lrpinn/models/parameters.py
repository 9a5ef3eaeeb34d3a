"""All that knows the names in a parameter tree.

A dense network's tree holds its layers by name. That of a `MetaLRPINN` is
{"network": ..., "embedding": ...}; its hidden layers "hidden_0", "hidden_1", ... hold the
columns "U" (features, rank) and "V" (in, rank), and once pruned the embedding holds the
singular values (rank,) by the same names. Here stand meta-testing's changes of network
(hypernetwork pruning, lower ranks, fewer features), what training needs of the bases, and
the exchange of the output layer.

A change takes a model and its parameter tree, and gives those of the changed network.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.core import Tracer

from meta_lrpinn.models.lrpinn import FreeSingularValues, MetaLRPINN
from meta_lrpinn.models.pinn import Parameters

_HIDDEN = "hidden_"
# U and V of each hidden layer.
Factors = list[tuple[jax.Array, jax.Array]]
Changed = tuple[MetaLRPINN, Parameters]
Known = TypeVar("Known")


def prune_hypernetwork(
    model: MetaLRPINN, params: Parameters, frequency: float | jax.Array
) -> Changed:
    """Replaces the hypernetwork by its singular values at one frequency () in Hz.

    The function at that frequency stays the same. The pruned model is called with a
    frequency too, which has no effect. Works under `jit` and `vmap`, from which only the
    parameters can be returned.

    Raises:
        ValueError: if the model is pruned already, or the frequency is not one positive
            number.
    """
    if model.is_pruned:
        raise ValueError("the hypernetwork is pruned already")
    if jnp.ndim(frequency) != 0:
        raise ValueError(
            f"pruning needs one frequency, got an array of shape {jnp.shape(frequency)}"
        )
    if not isinstance(frequency, Tracer) and not frequency > 0:
        raise ValueError(f"frequency must be positive, got {float(frequency)} Hz")
    values: Any = model.embedding.apply({"params": params["embedding"]}, frequency)
    network = model.network
    pruned = MetaLRPINN(
        network=network.clone(), embedding=FreeSingularValues(network.rank, network.depth)
    )
    return pruned, {"network": params["network"], "embedding": _by_layer(values)}


def known_of_pruned(known: Mapping[str, Known]) -> dict[str, Known]:
    """What is known of each array of a network, by its dotted name, once it is pruned.

    Of singular values it is what is known of the biases of their heads: they differ by
    the slope of GELU, which is near one at the singular values of the start.
    """
    kept = {name: value for name, value in known.items() if name.startswith("network.")}
    depth = sum(name.endswith(".V") for name in kept)
    heads = {
        f"embedding.{_layer(index)}": known[f"embedding.head_{index}.bias"]
        for index in range(depth)
    }
    return kept | heads


def truncate(
    model: MetaLRPINN,
    params: Parameters,
    fraction: float | None = None,
    count: int | None = None,
) -> Changed:
    """Keeps the largest singular values of every layer, with their columns of U and V.

    For orthonormal U and V the result is the best approximation of each layer's weights
    at its rank, and their difference in the spectral norm is the gain times the largest
    |σ| dropped (Eckart and Young, 1936). The gain of each layer is not changed.

    Either a fraction of them, in (0, 1], or a number of them is kept.

    Raises:
        ValueError: if not exactly one criterion is given or it is out of its range, or
            if the hypernetwork is not pruned.
    """
    check_pruned(model, "reducing the rank")
    number_of = _criterion(fraction, count, model.network.ranks)
    factors, values = [], []
    layers = zip(orthogonal_factors(params), singular_values(params), strict=True)
    for (U, V), sigma in layers:
        kept = jnp.argsort(-jnp.abs(sigma))[: number_of(len(sigma))]
        values.append(sigma[kept])
        factors.append((U[:, kept], V[:, kept]))
    return with_ranks(model, params, factors, values)


def leading_features(model: MetaLRPINN, params: Parameters, number: int) -> Changed:
    """Keeps the first units of the last hidden layer, pruned or not.

    Features trained by `objectives.projection_objective` come in order of use, so that
    the first so many are a good basis by themselves. They stay as they are; the own
    output of the network loses the terms of the others.

    Raises:
        ValueError: if the number is not a whole one from the rank of the last layer to
            its units.
    """
    network = model.network
    smallest, largest = network.ranks[-1], network.number_of_features
    if not (number == int(number) and smallest <= number <= largest):
        raise ValueError(
            "the number of features must be a whole one from the last layer's rank "
            f"{smallest} to {largest}, got {number}"
        )
    smaller = model.clone(network=network.clone(last_width=int(number), gain=network.gains))
    last = _layer(network.depth - 1)
    kept = dict(params["network"])
    kept[last] = {**kept[last], "U": kept[last]["U"][: int(number)]}
    kept["last"] = {**kept["last"], "kernel": kept["last"]["kernel"][: int(number)]}
    return smaller, {**params, "network": kept}


def with_ranks(
    model: MetaLRPINN, params: Parameters, factors: Factors, values: Sequence[jax.Array]
) -> Changed:
    """A pruned network with other bases and σ of each layer, at the same gains."""
    network = model.network
    ranks = tuple(len(sigma) for sigma in values)
    changed = MetaLRPINN(
        network=network.clone(rank=ranks, gain=network.gains),
        embedding=FreeSingularValues(ranks, network.depth),
    )
    bases = _by_layer([{"U": U, "V": V} for U, V in factors])
    tree = {"network": {**params["network"], **bases}, "embedding": _by_layer(values)}
    return changed, tree


def check_pruned(model: MetaLRPINN, what: str) -> None:
    """Raises ValueError, which names what needs it, unless the network is pruned."""
    if not model.is_pruned:
        raise ValueError(
            f"prune the hypernetwork before {what}: its singular values still depend on "
            "frequency"
        )


def singular_values(params: Parameters) -> list[jax.Array]:
    """σ of every hidden layer of a pruned network, each (rank,)."""
    embedding = params["embedding"]
    return [embedding[_layer(index)] for index in range(len(embedding))]


def orthogonal_factors(params: Parameters) -> Factors:
    """U and V of every hidden layer of a `MetaLRPINN`, pruned or not."""
    network = params["network"]
    depth = sum(name.startswith(_HIDDEN) for name in network)
    layers = (network[_layer(index)] for index in range(depth))
    return [(layer["U"], layer["V"]) for layer in layers]


def orthonormal_bases(params: Parameters) -> Parameters:
    """The tree of a `MetaLRPINN` with the orthonormal bases that are nearest to U and V.

    Each is the polar factor of the old one: a retraction onto the Stiefel manifold,
    which keeps the meaning of σ when steps have moved U and V off it.
    """

    def nearest(leaf, is_basis):
        if not is_basis:
            return leaf
        left, _, right = jnp.linalg.svd(leaf, full_matrices=False)
        return left @ right

    return jax.tree.map(nearest, params, are_bases(params))


def are_bases(params: Parameters) -> Parameters:
    """Whether each array is a basis U or V, in a tree of the same structure."""
    return jax.tree.map_with_path(lambda path, _: path[-1].key in ("U", "V"), params)


def output_kernel(params: Parameters) -> jax.Array:
    """Weights of the output layer of any network, (features, outputs)."""
    return params.get("network", params)["last"]["kernel"]


def with_output(params: Parameters, kernel: jax.Array) -> Parameters:
    """The tree of any network with another output layer (features, 2), without bias.

    It takes the type of the old one.
    """
    kernel = kernel.astype(output_kernel(params).dtype)
    last = {"kernel": kernel, "bias": jnp.zeros(kernel.shape[1], kernel.dtype)}
    if "network" in params:
        return {**params, "network": {**params["network"], "last": last}}
    return {**params, "last": last}


def _criterion(
    fraction: float | None, count: int | None, ranks: tuple[int, ...]
) -> Callable[[int], int]:
    """The number of singular values to keep, as a function of a layer's rank."""
    if (fraction is None) == (count is None):
        number = "none" if count is None else "both"
        raise ValueError(f"give exactly one of fraction and count, got {number}")
    if count is not None:
        if not (count == int(count) and 1 <= count <= min(ranks)):
            raise ValueError(
                f"count must be a whole number from 1 to the rank {min(ranks)}, got {count}"
            )
        return lambda rank: int(count)
    if fraction is None or not 0 < fraction <= 1:
        raise ValueError(f"fraction must be above 0 and at most 1, got {fraction}")
    return lambda rank: max(1, round(fraction * rank))


def _layer(index: int) -> str:
    return f"{_HIDDEN}{index}"


def _by_layer(values: Sequence[Any]) -> Parameters:
    return {_layer(index): value for index, value in enumerate(values)}
