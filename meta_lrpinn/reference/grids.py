"""Grids of the finite differences: the model's, refined, and its layer of complex steps.

In stretched coordinates the absorbing layer is a grid whose lines stand at complex
positions x̃, so only its steps are to be chosen (Chew and Weedon 1994). They grow
geometrically from that of the model, turning towards the direction e^{−iφ}:

    dx̃/dξ = h [1 + e^{−iφ} (e^{bξ} − 1)],   ξ the number of the cell.

A wave e^{−iγx̃} of any γ then finds steps that resolve it where it lives, a normally
incident one at the beginning of the layer, a grazing or an evanescent one further out
(the idea of near-optimal layers, Druskin, Güttel and Knizhnerman 2016), and the number
of lines grows with the logarithm of the layer's extent: grazing incidence on long
models and wavelengths of many times the model cost a few lines each. φ beyond π/4 damps
travelling waves the more, below π/2 evanescent ones too. Measured for one axis at 10
points per wavelength, 12 wavelengths of extent, b = 0.2: 17 lines reflect 3e-4 at normal
incidence, 1e-4 or less at cos θ = 0.8 to 0.1; of half the step, 2e-5 and 1e-5.
"""

import dataclasses

import numpy as np

from meta_lrpinn.linear import stencils
from meta_lrpinn.physics import absorbing
from meta_lrpinn.physics.velocity import VelocityModel
from meta_lrpinn.runtime.machine import machine_memory

# Errors near 0.05 % in 2D and 0.5 % in 3D (docs/results/speed.md has some of both). In 3D
# fewer points have to do, since memory grows with their fourth power.
POINTS_PER_WAVELENGTH = {2: 10.0, 3: 6.0}
# Where a tolerance decides, the first grid need only be good enough to refine from.
FIRST_POINTS_PER_WAVELENGTH = 5.0  # it trades a refinement more for a smaller first solve
# What is left of a wave that crosses the layer twice; below the error of the grid.
REFLECTION = {2: 1e-6, 3: 1e-4}
# Growth b of the steps from line to line, measured at the top of this file: the layer's
# error is that of the grid. In 3D it trades accuracy for lines.
_GROWTH = {2: 0.2, 3: 0.4}
_DIRECTION = np.exp(-1j * np.pi / 3)
# Each level of the layer reaches this many times as far as the one below it. Lines that
# both have stand in the same places, so that the change is that of the reach alone; their
# steps are refined with the grid. Not tuned.
_FURTHER = 3.0
# Bytes of an entry of the factors, and of the rest for each unknown: the largest memory
# of processes with 24,000 to 190,000 unknowns in 2D and 3D is 0.9 to 1.0 times this.
_BYTES_PER_ENTRY, _BYTES_PER_UNKNOWN = 22, 1300
_LARGEST_INDEX = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class GradedLayer:
    """A layer of complex steps that grow geometrically."""

    extent: float  # |x̃| at which it ends [km]
    growth: float  # b, for a cell of the model


def refinement_for(
    model: VelocityModel, frequency: float, points: float | None = None
) -> int:
    """Smallest refinement with so many grid points per shortest wavelength v_min / f.

    By default 10 in 2D and 6 in 3D; the frequency is in Hz.
    """
    if points is None:
        points = POINTS_PER_WAVELENGTH[model.ndim]
    wavelength = model.minimum / frequency
    cells = points * max(model.spacing) / wavelength
    # Beyond any grid's size: kept a number, for the message that refuses it.
    return max(1, int(np.ceil(min(cells, 1e15) - 1e-9)))


def graded_layer(
    model: VelocityModel,
    frequency: float,
    refinement: int,
    reflection: float | None = None,
    level: int = 0,
) -> GradedLayer:
    """Layer by geometry and wavelength; arguments as of `factorised.make_layer`.

    A wave straight through decays like exp(−2k Λ sin φ). A reflection that travels X
    along the layer has an image at the complex distance √(X² + 4Λ²e^{−2iφ}) and decays
    like exp(−2k Λ² sin 2φ / X). Both are to be R for the longest wavelength.
    """
    if reflection is None:
        reflection = REFLECTION[model.ndim]
    if not 0 < reflection < 1:
        raise ValueError(f"reflection must lie between 0 and 1, got {reflection}")
    k = 2 * np.pi * frequency / model.maximum
    reach = float(np.hypot.reduce(model.upper - model.lower))
    decay = np.log(1 / reflection) / (2 * k)
    straight = decay / -_DIRECTION.imag
    grazing = np.sqrt(decay * reach / -(_DIRECTION**2).imag)
    return GradedLayer(
        extent=float(max(straight, grazing)) * _FURTHER**level,
        growth=_GROWTH[model.ndim] * refinement,
    )


@dataclasses.dataclass(frozen=True)
class Lines:
    """The lines of a grid along one axis, with the outermost ones, where δu is zero."""

    positions: np.ndarray  # (n + 2,) km, real; in a graded layer the real part of x̃
    stretched: np.ndarray  # (n + 2,) km, x̃
    margin: int  # unknown lines in the layer, on each side


def grid_lines(
    model: VelocityModel,
    refinement: int,
    layer: GradedLayer | absorbing.AbsorbingLayer,
    omega: float,
) -> list[Lines]:
    """Lines along each array axis of the refined model and its layer.

    Args:
        model: Velocity model.
        refinement: Cells per cell of the model.
        layer: A graded layer, or one of a thickness, whose steps are those of the grid.
        omega: ω [rad/s].
    """
    result = []
    strengths = np.zeros(model.ndim)
    if isinstance(layer, absorbing.AbsorbingLayer):  # one strength, or one an axis
        strengths = np.broadcast_to(layer.strength, model.ndim)[::-1]
    for start, step, count, strength in zip(
        model.lower[::-1], model.spacing, model.shape, strengths, strict=True
    ):
        nodes = step / refinement * np.arange((count - 1) * refinement + 1)
        cells = np.arange(1, _layer_lines(step, refinement, layer) + 1) / refinement
        if isinstance(layer, GradedLayer):
            beyond = _graded(step, layer.growth, cells)
        else:
            depth = step * cells
            integral = strength * depth**3 / (3 * layer.thickness**2)
            beyond = depth - 1j * integral / omega
        stretched = np.concatenate([-beyond[::-1], nodes, nodes[-1] + beyond])
        result.append(Lines(start + stretched.real, start + stretched, len(beyond) - 1))
    return result


def layer_cells(step: float, layer: GradedLayer) -> int:
    """Cells of the model that a graded layer takes on each side."""
    cells = 1
    # Numbers beyond double precision end the loop; their sizes are refused later.
    with np.errstate(over="ignore", invalid="ignore"):
        while abs(_graded(step, layer.growth, cells)) < layer.extent:
            cells += 1
    # Even a layer of no extent needs a few lines to be one.
    return max(cells, 3)


def _graded(step: float, growth: float, cell: np.ndarray | int) -> np.ndarray:
    return step * (cell + _DIRECTION * (np.expm1(growth * cell) / growth - cell))


def _layer_lines(
    step: float, refinement: int, layer: GradedLayer | absorbing.AbsorbingLayer
) -> int:
    """Lines of a layer on each side, the outermost one included."""
    if isinstance(layer, GradedLayer):
        return layer_cells(step, layer) * refinement
    cells = min(float(layer.thickness) / step * refinement, 1e15)
    return int(np.ceil(cells - 1e-9))


def grid_shape(
    model: VelocityModel,
    refinement: int,
    layer: GradedLayer | absorbing.AbsorbingLayer,
) -> tuple[int, ...]:
    """Unknowns along each array axis, without making a grid."""
    return tuple(
        (count - 1) * refinement + 1 + 2 * (_layer_lines(step, refinement, layer) - 1)
        for step, count in zip(model.spacing, model.shape, strict=True)
    )


def check_size(
    model: VelocityModel,
    frequency: float,
    refinement: int,
    layer: GradedLayer | absorbing.AbsorbingLayer,
) -> None:
    """Raises ValueError where the factors would not fit into the machine's memory."""
    shape = grid_shape(model, refinement, layer)
    unknowns = float(np.prod(shape, dtype=float))
    # Nested dissection of the largest grids is not worth counting.
    entries = stencils.factor_entries(shape) if unknowns < 1e12 else unknowns**1.2
    needed = entries * _BYTES_PER_ENTRY + unknowns * _BYTES_PER_UNKNOWN
    available = machine_memory()
    if needed <= available and entries < _LARGEST_INDEX:
        return
    size = " x ".join(f"{n:.4g}" for n in model.upper - model.lower)
    waves = np.max(model.upper - model.lower) * frequency / model.minimum
    limit = (
        f"this machine has {available / 2**30:.3g} GiB"
        if needed > available
        else "its sparse factors can have 2^31 entries"
    )
    raise ValueError(
        f"finite differences over {size} km at {frequency:.6g} Hz, {waves:.3g} "
        f"wavelengths across, need {unknowns:.3g} unknowns and about "
        f"{needed / 2**30:.3g} GiB, but {limit}; is the spacing in metres, not km?"
    )
