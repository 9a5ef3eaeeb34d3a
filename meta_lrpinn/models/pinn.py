"""The dense network (vanilla PINN, Meta-PINN) and the input layer all share."""

from collections.abc import Mapping, Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from meta_lrpinn.models.activations import sine, uniform_phase
from meta_lrpinn.models.frequency_embedding import normalise_frequency
from meta_lrpinn.models.jets import Jets, dense_jets, first_layer_jets, sine_jets

FIRST_SCALE = 8.0  # rad/km
SOURCE_SCALE = 2.0  # rad/km

# Nested, the leaves arrays.
Parameters = Mapping[str, Any]


def network_input(points: jax.Array, source: jax.Array) -> jax.Array:
    """Appends the horizontal source position to every point.

    Args:
        points: (..., ndim) in km, columns (x, z) or (x, y, z).
        source: Horizontal source position in km, (ndim - 1,) for all points or
            (..., ndim - 1) for each; in 2D also a number.

    Returns:
        (..., 2 ndim - 1).

    Raises:
        ValueError: if the shape of `source` does not fit.
    """
    points, source = jnp.asarray(points), jnp.asarray(source)
    shape = (*points.shape[:-1], points.shape[-1] - 1)
    try:
        source = jnp.broadcast_to(source, shape)
    except ValueError:
        raise ValueError(
            f"source must hold the {shape[-1]} horizontal coordinate(s) of the source, "
            f"of shape {shape[-1:]} or {shape}, got shape {source.shape}"
        ) from None
    return jnp.concatenate([points, source], axis=-1)


def plane_wave_layer(
    features: int,
    scales: Sequence[float],
    *,
    param_dtype: jax.typing.DTypeLike = jnp.float32,
) -> nn.Dense:
    """A first layer that, with its sine, starts as random plane waves.

    The weights are normal with one standard deviation per input, the biases uniform in
    [-π, π]. Xavier weights on inputs in km give wavelengths of tens of km instead.

    Args:
        features: Number of units.
        scales: Standard deviation of the weights of each input, in rad per its unit.
        param_dtype: Type of the parameters.

    Returns:
        The layer.
    """
    deviations = np.asarray(scales)[:, None]

    def wave_vectors(key, shape, dtype):
        return jax.random.normal(key, shape, dtype) * deviations.astype(dtype)

    return nn.Dense(
        features,
        kernel_init=wave_vectors,
        bias_init=uniform_phase,
        param_dtype=param_dtype,
    )


def small_output_layer(
    outputs: int, *, param_dtype: jax.typing.DTypeLike = jnp.float32
) -> nn.Dense:
    """A last layer whose output starts near 0.06, below the wavefield's own scale."""
    return nn.Dense(
        outputs,
        kernel_init=nn.initializers.variance_scaling(0.01, "fan_in", "normal"),
        param_dtype=param_dtype,
    )


class PINN(nn.Module):
    """A dense sine network of position, source position and, optionally, frequency.

    The weights of the hidden layers start uniform in ±√(6/width), which keeps the scale
    of sine activations with depth (Sitzmann et al., 2020).

    Attributes:
        width: Units of each layer.
        depth: Number of hidden layers after the first.
        ndim: Dimensions of space, 2 or 3.
        outputs: Number of outputs: real and imaginary part.
        frequency_input: Whether the normalised frequency is an input.
        first_scale: Standard deviation of the initial wavenumbers along each axis, in
            rad/km; a few times less than ω/v, since each hidden layer adds harmonics.
        source_scale: The same along the source's coordinates, in rad/km.
        last_width: Units of the last hidden layer, the features of an exact solve;
            None for `width`.
        layer_fraction: Thickness of the absorbing layer the features are for, over a
            problem's default; `solve` makes it so. Without effect on the network.
        param_dtype: Type of the parameters.
    """

    width: int = 320
    depth: int = 6
    ndim: int = 2
    outputs: int = 2
    frequency_input: bool = False
    first_scale: float = FIRST_SCALE
    source_scale: float = SOURCE_SCALE
    last_width: int | None = None
    layer_fraction: float = 1.0
    param_dtype: jax.typing.DTypeLike = jnp.float32

    @property
    def number_of_features(self) -> int:
        """Units of the last hidden layer."""
        return self.width if self.last_width is None else self.last_width

    def setup(self):
        scales = [self.first_scale] * self.ndim + [self.source_scale] * (self.ndim - 1)
        if self.frequency_input:
            scales.append(1.0)
        self.first = plane_wave_layer(self.width, scales, param_dtype=self.param_dtype)
        self.hidden = [
            nn.Dense(
                width,
                kernel_init=nn.initializers.variance_scaling(2.0, "fan_in", "uniform"),
                param_dtype=self.param_dtype,
            )
            for width in (self.width,) * (self.depth - 1) + (self.number_of_features,)
        ]
        self.last = small_output_layer(self.outputs, param_dtype=self.param_dtype)

    def __call__(
        self, points: jax.Array, source: jax.Array, frequency: jax.Array | None = None
    ) -> jax.Array:
        """The network's output.

        Args:
            points: (n, ndim) in km.
            source: Horizontal source position in km, (ndim - 1,) or (n, ndim - 1).
            frequency: Frequency in Hz, () or (n,); used with `frequency_input` only.

        Returns:
            (n, outputs).

        Raises:
            ValueError: if an argument's shape does not fit or the frequency is missing.
        """
        return self.last(self.features(points, source, frequency))

    def features(
        self, points: jax.Array, source: jax.Array, frequency: jax.Array | None = None
    ) -> jax.Array:
        """The last hidden layer.

        Args:
            points: (n, ndim) in km.
            source: Horizontal source position in km, (ndim - 1,) or (n, ndim - 1).
            frequency: Frequency in Hz, () or (n,); used with `frequency_input` only.

        Returns:
            (n, number_of_features).

        Raises:
            ValueError: if an argument's shape does not fit or the frequency is missing.
        """
        hidden = sine(self.first(self._inputs(points, source, frequency)))
        for layer in self.hidden:
            hidden = sine(layer(hidden))
        return hidden

    def jets(
        self, points: jax.Array, source: jax.Array, frequency: jax.Array | None = None
    ) -> Jets:
        """The output with its first and second derivatives along each axis.

        Args:
            points: (n, ndim) in km.
            source: Horizontal source position in km, (ndim - 1,) or (n, ndim - 1).
            frequency: Frequency in Hz, () or (n,); used with `frequency_input` only.

        Returns:
            Jets of (n, outputs).

        Raises:
            ValueError: if an argument's shape does not fit or the frequency is missing.
        """
        inputs = self._inputs(points, source, frequency)
        jets = first_layer_jets(self.first, inputs, self.ndim)
        for layer in self.hidden:
            jets = sine_jets(dense_jets(layer, jets))
        return dense_jets(self.last, jets)

    def _inputs(
        self, points: jax.Array, source: jax.Array, frequency: jax.Array | None
    ) -> jax.Array:
        chex.assert_axis_dimension(points, -1, self.ndim)
        inputs = network_input(points, source)
        if self.frequency_input:
            if frequency is None:
                raise ValueError("a network with frequency_input needs a frequency")
            column = normalise_frequency(frequency)[..., None]
            column = jnp.broadcast_to(column, (*inputs.shape[:-1], 1))
            inputs = jnp.concatenate([inputs, column], axis=-1)
        return inputs


def initial_parameters(model: nn.Module, key: jax.Array) -> Parameters:
    """Draws the parameters of a network called with (points, source, frequency).

    Args:
        model: A `MetaLRPINN`, `PINN` or `PlaneWaves`.
        key: Random key.

    Returns:
        Its parameter tree: `model.apply({"params": tree}, points, source, frequency)`.
    """
    point, source = jnp.zeros((1, model.ndim)), jnp.zeros(model.ndim - 1)
    return model.init(key, point, source, jnp.ones(()))["params"]
