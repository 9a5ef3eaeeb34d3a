"""Changes of a pruned network that one study makes: ranks that rise, ranks by energy."""

import jax
import jax.numpy as jnp
import numpy as np

from meta_lrpinn import models
from meta_lrpinn.models.pinn import Parameters


def grow(
    model: models.MetaLRPINN,
    params: Parameters,
    rank: int,
    key: jax.Array,
    sigma: float = 0.0,
) -> tuple[models.MetaLRPINN, Parameters]:
    """Appends singular values to every layer, with new columns of U and V.

    The new columns are random, orthonormal among themselves and orthogonal to the old
    ones, which stay as they are. With σ = 0 the function is unchanged, and the gradient
    with respect to the new σ is not zero, so that training can use them. The gain of
    each layer is not changed, so that `models.truncate` undoes this.

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
    models.check_pruned(model, "changing the rank")
    network = model.network
    if not (rank == int(rank) and 1 <= rank <= network.width):
        raise ValueError(
            f"rank must be a whole number from 1 to the width {network.width}, got {rank}"
        )
    factors, values = [], []
    layers = zip(
        jax.random.split(key, network.depth),
        models.orthogonal_factors(params),
        models.singular_values(params),
        strict=True,
    )
    for layer_key, (U, V), old in layers:
        added = max(0, int(rank) - len(old))
        values.append(jnp.concatenate([old, jnp.full(added, sigma, old.dtype)]))
        key_u, key_v = jax.random.split(layer_key)
        factors.append((_with_columns(U, added, key_u), _with_columns(V, added, key_v)))
    return models.with_ranks(model, params, factors, values)


def keep_energy(
    model: models.MetaLRPINN, params: Parameters, energy: float
) -> tuple[models.MetaLRPINN, Parameters]:
    """Keeps of every layer the fewest σ whose Σσ² is a fraction of the whole.

    Args:
        model: A pruned network.
        params: Its parameter tree.
        energy: The fraction, in (0, 1].

    Returns:
        The smaller model and its parameter tree.
    """
    models.check_pruned(model, "changing the rank")
    factors, values = [], []
    for (U, V), sigma in zip(
        models.orthogonal_factors(params), models.singular_values(params), strict=True
    ):
        order = np.argsort(-np.abs(sigma))
        cumulative = np.cumsum(np.asarray(sigma, np.float64)[order] ** 2)
        kept = order[: int(np.argmax(cumulative >= energy * cumulative[-1])) + 1]
        factors.append((U[:, kept], V[:, kept]))
        values.append(sigma[kept])
    return models.with_ranks(model, params, factors, values)


def _with_columns(columns: jax.Array, added: int, key: jax.Array) -> jax.Array:
    """Columns (n, k) and `added` more, orthonormal and orthogonal to them."""
    random = jax.random.normal(key, (columns.shape[0], added), columns.dtype)
    basis, _ = jnp.linalg.qr(jnp.concatenate([columns, random], axis=1))
    return jnp.concatenate([columns, basis[:, columns.shape[1] :]], axis=1)
