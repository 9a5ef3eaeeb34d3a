"""First and second derivatives carried through a network, layer by layer.

The rules of `physics.derivatives`'s Taylor mode, written out: forward mode applied twice
carries the value and one slope of each axis twice, and reverse mode then pays for each of
the copies. Here every layer sees 1 + 2 ndim arrays, and its sine is evaluated once.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from meta_lrpinn.models.activations import cosine, sine


class Jets(NamedTuple):
    """Values at n points with their pure derivatives along each axis."""

    value: jax.Array  # (n, units)
    slopes: tuple[jax.Array, ...]  # ∂/∂x_d, ndim times (n, units) [1/km]
    curvatures: tuple[jax.Array, ...]  # ∂²/∂x_d², ndim times (n, units), 1/km²


def linear_jets(linear: Callable[[jax.Array], jax.Array], jets: Jets) -> Jets:
    """Jets after a linear map (n, units) → (n, other units), which has no bias."""
    return jax.tree.map(linear, jets)


def dense_jets(layer: nn.Dense, jets: Jets) -> Jets:
    """Jets after a dense layer, whose bias adds to the value alone."""
    kernel = layer.variables["params"]["kernel"]
    mapped = linear_jets(lambda array: array @ kernel, jets._replace(value=jets.value[:0]))
    return mapped._replace(value=layer(jets.value))


def sine_jets(jets: Jets) -> Jets:
    """Jets of sin y from those of y: (sin y)″ = y″ cos y − y′² sin y."""
    value, factor = sine(jets.value), cosine(jets.value)
    return Jets(
        value=value,
        slopes=tuple(factor * slope for slope in jets.slopes),
        curvatures=tuple(
            factor * curvature - value * slope**2
            for slope, curvature in zip(jets.slopes, jets.curvatures, strict=True)
        ),
    )


def first_layer_jets(layer: nn.Dense, inputs: jax.Array, ndim: int) -> Jets:
    """Jets of the sine of the first layer, whose first `ndim` inputs are coordinates.

    Args:
        layer: The first layer.
        inputs: (n, inputs), columns x, z (or x, y, z), then what does not depend on them.
        ndim: Dimensions of space.
    """
    phase = layer(inputs)
    value, factor = sine(phase), cosine(phase)
    wavenumbers = layer.variables["params"]["kernel"][:ndim]
    return Jets(
        value=value,
        slopes=tuple(factor * wavenumber for wavenumber in wavenumbers),
        curvatures=tuple(-value * wavenumber**2 for wavenumber in wavenumbers),
    )


def stacked(jets: Jets) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Values (n, units), and slopes and curvatures (n, ndim, units)."""
    return jets.value, jnp.stack(jets.slopes, axis=1), jnp.stack(jets.curvatures, axis=1)
