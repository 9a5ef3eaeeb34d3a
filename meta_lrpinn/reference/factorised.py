"""The factorised finite-difference operator of one model and frequency.

    Σ_d (1/s_d) ∂_d ((1/s_d) ∂_d δu) + ω² m δu = −ω² (m − m₀) u₀(r̃)

In stretched coordinates dx̃ = s dx this is the plain Helmholtz equation, so the layer
needs no terms of its own: its grid lines simply stand at complex positions x̃. The
squared slowness is bilinear (trilinear) between the nodes of the model; its integrals see
it so, and its kinks, which lie on grid lines, do not lower the order. δu vanishes at the
outer edge of the layer. The equation is solved with v₀ the velocity at the source, where
its right-hand side is finite; another background differs by a closed form.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import scipy.ndimage

from meta_lrpinn.linear import stencils
from meta_lrpinn.linear.interpolation import ROUNDING, squared_slowness_on
from meta_lrpinn.physics import absorbing, background
from meta_lrpinn.physics.velocity import VelocityModel
from meta_lrpinn.reference import analytic, grids

# Of a layer of a thickness, at normal incidence: below the error of the grid. Not tuned.
REFLECTION = 1e-5


@dataclasses.dataclass(frozen=True)
class FiniteDifferenceSolver:
    """Factorised operator of one model and frequency; every source costs one solve."""

    model: VelocityModel
    frequency: float  # Hz
    refinement: int  # cells per cell of the model
    margins: tuple[int, ...]  # unknown nodes of the layer, each side, in array order
    axes: tuple[stencils.Axis, ...]  # in array order
    squared_slowness: np.ndarray  # m at the quadrature points [s²/km²], maybe complex
    is_graded: bool  # whether the layer's lines stand at graded complex positions
    is_corrected: bool  # whether the leading error of the dispersion is taken off
    inverse: stencils.Inverse | None  # None once all is solved

    @property
    def omega(self) -> float:
        """ω [rad/s]."""
        return 2 * np.pi * self.frequency

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the solver's own grid: the refined model with its layer."""
        return tuple(len(axis.positions) for axis in self.axes)

    @property
    def unknowns(self) -> int:
        """Number of complex unknowns."""
        return int(np.prod(self.shape))

    def without_factors(self) -> "FiniteDifferenceSolver":
        """For interpolation only: factors are large, and cannot be pickled."""
        return dataclasses.replace(self, inverse=None)

    def inverted(self, loads: np.ndarray, transposed: bool = False) -> np.ndarray:
        """Solution for loads of shape `shape`, or of the transposed operator."""
        assert self.inverse is not None, "the factors were dropped"
        return self.inverse(loads.ravel(), transposed).reshape(self.shape)

    def solve(
        self, source: np.ndarray, amplitude: complex, background_velocity: complex
    ) -> np.ndarray:
        """δu of one source on the solver's own grid, complex, of shape `shape`.

        Args:
            source: Source position (ndim,) [km].
            amplitude: A of the background field.
            background_velocity: v₀ [km/s], complex with attenuation.
        """
        return self.solve_together([source], [1.0], amplitude, [background_velocity])

    def solve_together(
        self,
        sources: Sequence[np.ndarray] | np.ndarray,
        weights: Sequence[complex] | np.ndarray,
        amplitude: complex,
        background_velocities: Sequence[complex] | np.ndarray,
    ) -> np.ndarray:
        """As `solve`, of weighted sources that are fired together: one right-hand side."""
        loads, shift = [], 0.0
        for source, weight, v0 in zip(sources, weights, background_velocities, strict=True):
            position = np.asarray(source, float)
            slowness = squared_slowness_on(self.model, position[::-1, None]).item()
            velocity = slowness**-0.5
            loads.append(weight * self._scattering_source(position, amplitude, velocity))
            if abs(v0 / velocity - 1) > ROUNDING:
                shift = shift + weight * self.shift(position, amplitude, velocity, v0)
        load = stencils.project(np.sum(loads, axis=0), self.axes)
        return self.inverted(load) + shift

    def shift(
        self,
        source: np.ndarray,
        amplitude: complex,
        velocity: complex,
        background_velocity: complex,
    ) -> np.ndarray:
        """u₀(r̃) of a velocity less that of another at all nodes, of shape `shape`."""
        return analytic.background_difference(
            offsets([axis.nodes for axis in self.axes], source),
            self.omega / velocity,
            self.omega / background_velocity,
            amplitude,
        )

    def _scattering_source(
        self, source: np.ndarray, amplitude: complex, source_velocity: complex
    ) -> np.ndarray:
        """−ω² (m − m_s) u_s(r̃) at the quadrature points, (q_1, ..., q_d).

        Of the source's own velocity, so that the contrast vanishes where u_s is infinite.
        """
        contrast = self.squared_slowness - source_velocity**-2
        # Hankel functions are dear: none where the contrast is rounding only.
        where = np.nonzero(np.abs(contrast) > ROUNDING * abs(source_velocity**-2))
        columns = [
            axis.stretched[index] - start
            for axis, index, start in zip(self.axes, where, source[::-1], strict=True)
        ]
        incident = background.point_source(
            np.stack(columns[::-1], axis=-1), self.omega / source_velocity, amplitude
        )
        load = np.zeros(contrast.shape, complex)
        load[where] = -(self.omega**2) * contrast[where] * incident
        return load

    def on_model_grid(self, field: np.ndarray) -> np.ndarray:
        """The part of a field of shape `shape` that stands on the model's nodes."""
        return field[
            tuple(
                slice(margin, -margin or None, self.refinement) for margin in self.margins
            )
        ]

    def node_numbers(self, points: np.ndarray) -> list[np.ndarray]:
        """Positions (n, ndim) [km] in nodes along each array axis, ndim times (n,)."""
        return [
            (column - axis.positions[margin]) / axis.step + margin
            for column, axis, margin in zip(
                points.T[::-1], self.axes, self.margins, strict=True
            )
        ]

    def interpolate(
        self, field: np.ndarray, points: np.ndarray, *, layer: bool = False
    ) -> np.ndarray:
        """A field of shape `shape` at points of the model, by cubic splines, (n,).

        Args:
            field: Complex values on the solver's own grid.
            points: Coordinates (n, ndim) [km].
            layer: Whether points may lie in the absorbing layer too, one of a
                thickness: the lines of a graded one have no real positions.

        Raises:
            ValueError: if a point lies outside the model (and its layer), or points of a
                graded layer are asked for.
        """
        if layer and self.is_graded:
            raise ValueError("points of the layer need a layer of a given thickness")
        points = np.asarray(points, float)
        slack = 1e-3 * np.array(self.model.spacing[::-1])
        lower, upper = self.model.lower - slack, self.model.upper + slack
        if layer:  # the field vanishes one step beyond the outermost nodes
            axes = self.axes[::-1]
            lower = np.array([axis.positions[0] - axis.step for axis in axes]) - slack
            upper = np.array([axis.positions[-1] + axis.step for axis in axes]) + slack
        is_outside = ~np.all((points >= lower) & (points <= upper), axis=-1)
        if np.any(is_outside):
            where = "model and its layer" if layer else "model"
            raise ValueError(
                f"{is_outside.sum()} of {len(points)} points lie outside the {where}"
            )
        return scipy.ndimage.map_coordinates(
            field, self.node_numbers(points), order=3, mode="nearest"
        )


def offsets(lines: Sequence[np.ndarray], source: np.ndarray) -> np.ndarray:
    """Displacements from a source (ndim,) on lines in array order, (..., ndim)."""
    axes = [line - start for line, start in zip(lines, source[::-1], strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij")[::-1], axis=-1)


def factorise(
    model: VelocityModel,
    frequency: float,
    *,
    refinement: int | None = None,
    layer: absorbing.AbsorbingLayer | grids.GradedLayer | None = None,
    order: int = 4,
) -> FiniteDifferenceSolver:
    """Builds the operator of a model and a frequency and factorises it.

    Args:
        model: Velocity model; it continues with its edge values into the layer.
        frequency: f [Hz].
        refinement: Cells per cell of the model; by default from `refinement_for`. A
            fine model is never coarsened.
        layer: By default graded, as `make_layer` has it.
        order: 4, or 2 for the classical scheme.

    Raises:
        ValueError: if an argument is out of its range, or the factors would not fit into
            the machine's memory.
    """
    if not (np.isfinite(frequency) and frequency > 0):
        raise ValueError(f"frequency must be positive, got {frequency} Hz")
    if order not in stencils.ORDERS:
        raise ValueError(f"order must be 2 or 4, got {order}")
    if refinement is None:
        refinement = grids.refinement_for(model, frequency)
    if layer is None:
        layer = make_layer(model, frequency, refinement)
    grids.check_size(model, frequency, refinement, layer)
    omega = 2 * np.pi * frequency
    lines = grids.grid_lines(model, refinement, layer, omega)
    axes = tuple(
        stencils.make_axis(line.positions, line.stretched, order, step / refinement)
        for line, step in zip(lines, model.spacing, strict=True)
    )
    at_points = squared_slowness_on(model, [axis.quadrature for axis in axes])
    at_nodes = None
    if order == 4:
        at_nodes = squared_slowness_on(model, [axis.positions for axis in axes])
    operator = stencils.helmholtz(axes, omega, at_points, at_nodes)
    return FiniteDifferenceSolver(
        model=model,
        frequency=frequency,
        refinement=refinement,
        margins=tuple(line.margin for line in lines),
        axes=axes,
        squared_slowness=at_points,
        is_graded=isinstance(layer, grids.GradedLayer),
        is_corrected=order == 4,
        inverse=stencils.inverse(operator),
    )


def make_layer(
    model: VelocityModel,
    frequency: float,
    refinement: int,
    thickness: float | None = None,
    reflection: float | None = None,
    level: int = 0,
) -> absorbing.AbsorbingLayer | grids.GradedLayer:
    """An absorbing layer for `factorise`.

    Args:
        model: Velocity model.
        frequency: f [Hz].
        refinement: Of the coarsest grid that the layer is for.
        thickness: Of a layer of equal real steps [km], rounded up to whole cells; by
            default the layer is graded, see `grids`.
        reflection: Amplitude that it reflects: of thickness, at normal incidence, 1e-5 by
            default; graded, at any angle that the model allows.
        level: 0, or higher for a layer that much better.

    Raises:
        ValueError: if the thickness is not positive, or the reflection outside (0, 1).
    """
    if thickness is None:
        return grids.graded_layer(model, frequency, refinement, reflection, level)
    if not thickness > 0:
        raise ValueError(f"absorbing layer thickness must be positive, got {thickness} km")
    return absorbing.make_layer(
        model.lower,
        model.upper,
        thickness * 2.0**level,
        model.maximum,
        (REFLECTION if reflection is None else reflection) ** (1 + level),
    )
