"""Meta-testing's changes of network: hypernetwork pruning, other ranks, fewer features."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from meta_lrpinn.models.frequency_embedding import FreeSingularValues
from meta_lrpinn.models.low_rank import layer_ranks
from meta_lrpinn.models.lrpinn import LRPINN, MetaLRPINN
from meta_lrpinn.models.pinn import Parameters


def is_pruned(model: MetaLRPINN) -> bool:
    """Whether singular values are parameters rather than a function of frequency."""
    return isinstance(model.embedding, FreeSingularValues)


def prune_hypernetwork(
    model: MetaLRPINN, params: Parameters, frequency: float | jax.Array
) -> tuple[MetaLRPINN, Parameters]:
    """Replaces the hypernetwork by its singular values at one frequency.

    The function at that frequency stays the same. The pruned model is called with a
    frequency too, which has no effect. Works under `jit` and `vmap`, from which only the
    parameters can be returned.

    Args:
        model: Network with its hypernetwork.
        params: Its parameter tree.
        frequency: Frequency in Hz, ().

    Returns:
        The pruned model and its parameter tree, in which "embedding" holds the singular
        values of each hidden layer, (rank,).

    Raises:
        ValueError: if the model is pruned already, or the frequency is not one positive
            number.
    """
    if is_pruned(model):
        raise ValueError("the hypernetwork is pruned already")
    if jnp.ndim(frequency) != 0:
        raise ValueError(
            f"pruning needs one frequency, got an array of shape {jnp.shape(frequency)}"
        )
    if not isinstance(frequency, Tracer) and not frequency > 0:
        raise ValueError(f"frequency must be positive, got {float(frequency)} Hz")
    values = model.embedding.apply({"params": params["embedding"]}, frequency)
    network = model.network
    pruned = MetaLRPINN(
        network=network.clone(),
        embedding=FreeSingularValues(network.rank, network.depth, network.param_dtype),
    )
    return pruned, {"network": params["network"], "embedding": _by_layer(values)}


def truncate(
    model: MetaLRPINN,
    params: Parameters,
    *,
    fraction: float | None = None,
    count: int | None = None,
    energy: float | None = None,
) -> tuple[MetaLRPINN, Parameters]:
    """Keeps the largest singular values of every layer, with their columns of U and V.

    For orthonormal U and V the result is the best approximation of each layer's weights
    at its rank, and their difference in the spectral norm is the gain times the largest
    |σ| dropped (Eckart and Young, 1936). The gain of each layer is not changed.

    Args:
        model: A pruned network.
        params: Its parameter tree.
        fraction: Fraction of the singular values to keep, in (0, 1].
        count: Number of singular values to keep.
        energy: Keep the fewest whose Σσ² is at least this fraction of the whole, in
            (0, 1]; needs concrete values, so it does not run under `jit`.

    Returns:
        The reduced model and its parameter tree.

    Raises:
        ValueError: if not exactly one criterion is given or it is out of its range, or
            if the hypernetwork is not pruned.
    """
    _check_pruned(model, "reducing the rank")
    network = model.network
    old_ranks = layer_ranks(network.rank, network.depth)
    kept_number = _criterion(fraction, count, energy, old_ranks)

    reduced, values = dict(params["network"]), []
    for name, sigma in _in_order(params["embedding"], network.depth):
        order = jnp.argsort(-jnp.abs(sigma))
        kept = order[: kept_number(sigma)]
        values.append(sigma[kept])
        reduced[name] = {
            factor: columns[:, kept] for factor, columns in reduced[name].items()
        }
    return _assembled(network, reduced, values)


def leading_features(
    model: MetaLRPINN, params: Parameters, number: int
) -> tuple[MetaLRPINN, Parameters]:
    """Keeps the first units of the last hidden layer, pruned or not.

    Features trained by `objectives.projection_objective` come in order of use, so that
    the first so many are a good basis by themselves. They stay as they are; the own
    output of the network loses the terms of the others.

    Args:
        model: Network with at least so many features.
        params: Its parameter tree.
        number: How many features to keep, at least the rank of the last layer.

    Returns:
        The smaller model and its parameter tree.

    Raises:
        ValueError: if the number is not a whole one in that range.
    """
    network = model.network
    smallest = layer_ranks(network.rank, network.depth)[-1]
    largest = network.number_of_features
    if not (number == int(number) and smallest <= number <= largest):
        raise ValueError(
            "the number of features must be a whole one from the last layer's rank "
            f"{smallest} to {largest}, got {number}"
        )
    smaller = model.clone(network=network.clone(last_width=int(number), gain=network.gains))
    last = f"hidden_{network.depth - 1}"
    kept = dict(params["network"])
    kept[last] = {**kept[last], "U": kept[last]["U"][: int(number)]}
    kept["last"] = {**kept["last"], "kernel": kept["last"]["kernel"][: int(number)]}
    return smaller, {**params, "network": kept}


def grow(
    model: MetaLRPINN,
    params: Parameters,
    rank: int,
    key: jax.Array,
    sigma: float = 0.0,
) -> tuple[MetaLRPINN, Parameters]:
    """Appends singular values to every layer, with new columns of U and V.

    The new columns are random, orthonormal among themselves and orthogonal to the old
    ones, which stay as they are. With σ = 0 the function is unchanged, and the gradient
    with respect to the new σ is not zero, so that training can use them. The gain of
    each layer is not changed, so that `truncate` undoes this.

    Args:
        model: A pruned network.
        params: Its parameter tree.
        rank: New rank; a layer that has it, or more, stays as it is.
        key: Random key of the new columns.
        sigma: The new singular values.

    Returns:
        The larger model and its parameter tree.

    Raises:
        ValueError: if the hypernetwork is not pruned, or the rank is not a whole number
            from 1 to the width.
    """
    _check_pruned(model, "changing the rank")
    network = model.network
    if not (rank == int(rank) and 1 <= rank <= network.width):
        raise ValueError(
            f"rank must be a whole number from 1 to the width {network.width}, got {rank}"
        )
    grown, values = dict(params["network"]), []
    layers = _in_order(params["embedding"], network.depth)
    for layer_key, (name, old) in zip(
        jax.random.split(key, network.depth), layers, strict=True
    ):
        added = max(0, int(rank) - len(old))
        values.append(jnp.concatenate([old, jnp.full(added, sigma, old.dtype)]))
        grown[name] = {
            factor: _with_columns(columns, added, jax.random.fold_in(layer_key, index))
            for index, (factor, columns) in enumerate(sorted(grown[name].items()))
        }
    return _assembled(network, grown, values)


def _assembled(
    network: LRPINN, params: Parameters, values: Sequence[jax.Array]
) -> tuple[MetaLRPINN, Parameters]:
    """A pruned network of other ranks, with its parameter tree.

    Args:
        network: Whose gains are kept.
        params: Its parameters, with the columns of U and V of the other ranks.
        values: σ of each hidden layer, (rank,).
    """
    ranks = tuple(len(sigma) for sigma in values)
    pruned = MetaLRPINN(
        network=network.clone(rank=ranks, gain=network.gains),
        embedding=FreeSingularValues(ranks, network.depth, network.param_dtype),
    )
    return pruned, {"network": params, "embedding": _by_layer(values)}


def _check_pruned(model: MetaLRPINN, what: str) -> None:
    if not is_pruned(model):
        raise ValueError(
            f"prune the hypernetwork before {what}: its singular values still depend on "
            "frequency"
        )


def _with_columns(columns: jax.Array, added: int, key: jax.Array) -> jax.Array:
    """Columns (n, k) and `added` more, orthonormal and orthogonal to them."""
    random = jax.random.normal(key, (columns.shape[0], added), columns.dtype)
    basis, _ = jnp.linalg.qr(jnp.concatenate([columns, random], axis=1))
    return jnp.concatenate([columns, basis[:, columns.shape[1] :]], axis=1)


def _criterion(
    fraction: float | None,
    count: int | None,
    energy: float | None,
    ranks: tuple[int, ...],
) -> Callable[[jax.Array], int]:
    """The number of singular values to keep, as a function of a layer's own."""
    criteria = {"fraction": fraction, "count": count, "energy": energy}
    given = [name for name, value in criteria.items() if value is not None]
    if len(given) != 1:
        raise ValueError(
            "give exactly one of fraction, count and energy, got "
            f"{' and '.join(given) or 'none'}"
        )
    if count is not None:
        if not (count == int(count) and 1 <= count <= min(ranks)):
            raise ValueError(
                f"count must be a whole number from 1 to the rank {min(ranks)}, got {count}"
            )
        return lambda sigma: int(count)
    (name,) = given
    part = float(criteria[name] or 0.0)
    if not 0 < part <= 1:
        raise ValueError(f"{name} must be above 0 and at most 1, got {criteria[name]}")
    if name == "fraction":
        return lambda sigma: max(1, round(part * len(sigma)))
    return lambda sigma: _energy_rank(np.asarray(sigma), part)


def _energy_rank(sigma: np.ndarray, energy: float) -> int:
    cumulative = np.cumsum(np.sort(sigma.astype(np.float64) ** 2)[::-1])
    return int(np.argmax(cumulative >= energy * cumulative[-1])) + 1


def _in_order(by_layer: Parameters, depth: int) -> list[tuple[str, jax.Array]]:
    names = [f"hidden_{layer}" for layer in range(depth)]
    return [(name, by_layer[name]) for name in names]


def _by_layer(values) -> Parameters:
    return {f"hidden_{layer}": sigma for layer, sigma in enumerate(values)}
