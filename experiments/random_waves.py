"""Plane waves with given wave vectors: a sine network of one layer."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from scipy.stats import qmc

from meta_lrpinn.models.layers import sine, small_output_layer, uniform_phase
from meta_lrpinn.models.pinn import Parameters


class PlaneWaves(nn.Module):
    """Features sin(k·x + b), the same for every source and frequency.

    The features alone need the parameters of `plane_wave_parameters` and nothing else;
    the output adds a linear layer.

    Attributes:
        ndim: Dimensions of space, 2 or 3.
        number: Number of waves; None for as many as the parameters hold.
        maximum_wavenumber: Largest |k| of the initial waves, in rad/km.
        minimum_wavenumber: Smallest |k| of the initial waves, in rad/km.
        param_dtype: Type of the parameters.
    """

    ndim: int = 2
    number: int | None = None
    maximum_wavenumber: float = 40.0
    minimum_wavenumber: float = 0.0
    param_dtype: jax.typing.DTypeLike = jnp.float32

    def setup(self):
        number = self._number()

        def wave_vectors(key):
            uniform = jax.random.uniform(key, (number, self.ndim), self.param_dtype)
            limits = self.minimum_wavenumber, self.maximum_wavenumber
            return _fill_ball(uniform, *limits)

        self.wave_vectors = self.param("wave_vectors", wave_vectors)
        self.phases = self.param("phases", uniform_phase, (number,), self.param_dtype)
        self.last = small_output_layer()

    def _number(self) -> int:
        if self.number is not None:
            return self.number
        if not self.has_variable("params", "wave_vectors"):
            raise ValueError("plane waves without parameters need their number")
        return self.get_variable("params", "wave_vectors").shape[0]

    def __call__(
        self,
        points: jax.Array,
        source: jax.Array | None = None,
        frequency: jax.Array | None = None,
    ) -> jax.Array:
        """A linear combination of the waves.

        Args:
            points: (n, ndim) in km.
            source: Not used; here so that the call is every network's.
            frequency: Not used, likewise.

        Returns:
            (n, 2).

        Raises:
            ValueError: if the shape of `points` does not fit.
        """
        return self.last(self.features(points, source, frequency))

    def features(
        self,
        points: jax.Array,
        source: jax.Array | None = None,
        frequency: jax.Array | None = None,
    ) -> jax.Array:
        """The waves sin(k·x + b).

        Args:
            points: (n, ndim) in km.
            source: Not used; here so that the call is every network's.
            frequency: Not used, likewise.

        Returns:
            (n, number).

        Raises:
            ValueError: if the shape of `points` does not fit.
        """
        chex.assert_axis_dimension(points, -1, self.ndim)
        return sine(points @ self.wave_vectors.T + self.phases)


def plane_wave_parameters(
    key: jax.Array,
    number: int,
    maximum_wavenumber: float,
    ndim: int = 2,
    *,
    minimum: float = 0.0,
    dtype: jax.typing.DTypeLike = jnp.float32,
) -> Parameters:
    """Draws wave vectors that fill the ball of wavenumbers evenly, with phases.

    They are scrambled Halton points, drawn on the host.

    Args:
        key: Random key.
        number: Number of waves.
        maximum_wavenumber: Largest |k|, in rad/km.
        ndim: Dimensions of space, 2 or 3.
        minimum: Smallest |k|, in rad/km.
        dtype: Type of the parameters.

    Returns:
        Parameters of `PlaneWaves`: wave_vectors (number, ndim) in rad/km, uniform in
        minimum ≤ |k| ≤ maximum_wavenumber; phases (number,) in [-π, π].

    Raises:
        ValueError: if an argument is out of its range.
    """
    if number < 1:
        raise ValueError(f"number of plane waves must be at least 1, got {number}")
    if ndim not in (2, 3):
        raise ValueError(f"plane waves need 2 or 3 dimensions, got {ndim}")
    if not 0 <= minimum < maximum_wavenumber:
        raise ValueError(
            "wavenumbers must have 0 <= minimum < maximum, got "
            f"{minimum} and {maximum_wavenumber} rad/km"
        )
    seed = np.asarray(jax.random.key_data(key)).ravel()
    halton = qmc.Halton(ndim + 1, rng=np.random.default_rng(seed))
    uniform = jnp.asarray(halton.random(number), dtype)
    return {
        "wave_vectors": _fill_ball(uniform[:, :ndim], minimum, maximum_wavenumber),
        "phases": (2.0 * uniform[:, ndim] - 1.0) * jnp.pi,
    }


def _fill_ball(uniform: jax.Array, minimum: float, maximum: float) -> jax.Array:
    """Maps the unit square or cube to a ring or shell, uniform to uniform."""
    ndim = uniform.shape[-1]
    volume = minimum**ndim + uniform[:, 0] * (maximum**ndim - minimum**ndim)
    azimuth = 2.0 * jnp.pi * uniform[:, 1]
    directions = [jnp.cos(azimuth), jnp.sin(azimuth)]
    if ndim == 3:
        cosine = 2.0 * uniform[:, 2] - 1.0
        sine = jnp.sqrt(1.0 - cosine**2)
        directions = [sine * directions[0], sine * directions[1], cosine]
    return volume[:, None] ** (1.0 / ndim) * jnp.stack(directions, axis=-1)
