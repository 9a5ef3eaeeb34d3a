"""How far in wavenumber a lattice is to reach, by the model's roughness or a tolerance.

A smooth model needs waves a little shorter than those that travel in it. What a rough one
scatters into shorter waves still follows from its spectrum. In the Born approximation
(Born and Wolf 1999, §13.1) the wave of wave vector q, scattered by m_q from a wave that is
much longer, is ω² m_q / (q² − k²); of these the share beyond the lattice is missing.
"""

import numpy as np
import scipy.fft

from meta_lrpinn.linear.lattice.waves import period_of, resolved_wavenumber
from meta_lrpinn.physics.problem import HelmholtzProblem

# Of models that are not rough: errors near 0.2 % in 2D.
_DEFAULT = {2: 2.4, 3: 1.9}
# Share of the scattered field that the default may miss, as long as so many times the
# waves are enough: beyond that the estimate and a tolerance have to tell. In 2D a layer of
# 2 km/s and one node in 4 km/s needs four times for 0.5 %.
_DEFAULT_MISSING, _MORE_WAVES = {2: 0.003, 3: 0.01}, {2: 4.0, 3: 1.8}
# Where there is a tolerance, the field that may be missing over it, and the same.
_MISSING_OVER_TOLERANCE, _MOST_WAVES = 0.5, {2: 25.0, 3: 8.0}
_STEP = 0.1
# Relative contrast of the squared slowness that is rounding.
_ROUNDING = 1e-12


def default_wavenumber_ratio(problem: HelmholtzProblem) -> float:
    """Wavenumber ratio κ of a problem, larger for a rough model."""
    ndim = problem.ndim
    return _enough(problem, _DEFAULT[ndim], _DEFAULT_MISSING[ndim], _MORE_WAVES[ndim])


def wavenumber_ratio_for_tolerance(problem: HelmholtzProblem, tolerance: float) -> float:
    """Wavenumber ratio κ to begin with for a relative error; larger for a rough model."""
    # Measured on layered models.
    tolerances, ratios = [-4, -3, -2.5, -2, -1], [3.6, 2.8, 1.9, 1.5, 1.2]
    least = float(np.interp(np.log10(tolerance), tolerances, ratios))
    missing = _MISSING_OVER_TOLERANCE * tolerance
    return _enough(problem, least, missing, _MOST_WAVES[problem.ndim])


def _enough(
    problem: HelmholtzProblem, least: float, missing: float, more_waves: float
) -> float:
    """Ratio from `least` up beyond which such a share lies, or the most there may be."""
    most = least * more_waves ** (1 / problem.ndim)
    ratios = np.append(np.arange(least, most, _STEP), most)
    enough = missing_share(problem, ratios) <= missing
    return float(ratios[np.argmax(enough)] if np.any(enough) else most)


def wavenumber_ratio_for(problem: HelmholtzProblem, number: int) -> float:
    """Wavenumber ratio κ that gives about `number` plane waves (see `make_lattice`)."""
    volume = float(np.prod(np.asarray(period_of(problem))))
    return np.pi * (number / volume) ** (1 / problem.ndim) / resolved_wavenumber(problem)


def waves_in_ball(problem: HelmholtzProblem, ratio: float) -> int:
    """About how many waves of a lattice are no longer than κ = ratio allows."""
    per_length = ratio * resolved_wavenumber(problem) / (2 * np.pi)
    ball = {2: np.pi, 3: 4 * np.pi / 3}[problem.ndim]
    return round(ball * float(np.prod(np.asarray(period_of(problem)) * per_length)))


def missing_share(problem: HelmholtzProblem, ratios: np.ndarray) -> np.ndarray:
    """Share of the scattered field beyond lattices, in the Born approximation.

    Args:
        problem: The problem, with concrete values.
        ratios: Wavenumber ratios κ (n,).

    Returns:
        (n,), of the relative L2 norm.
    """
    model, omega = problem.model, float(problem.omega)
    velocity = np.asarray(model.complex_velocity)
    slowness = velocity.astype(np.result_type(velocity.dtype, float)) ** -2
    contrast = np.abs(slowness - slowness.flat[0])
    if np.max(contrast) <= _ROUNDING * np.max(np.abs(slowness)):
        return np.zeros(len(ratios))
    # Cosines: the even continuation of a model has no step at its edges.
    amplitude = np.asarray(scipy.fft.dctn(slowness, norm="ortho"))
    amplitude.flat[0] = 0.0
    axes = [
        np.pi * np.arange(count) / (count * step)
        for count, step in zip(model.shape, model.spacing, strict=True)
    ]
    mesh = np.meshgrid(*axes, indexing="ij")
    for q, step in zip(mesh, model.spacing, strict=True):
        amplitude *= np.sinc(q * step / (2 * np.pi)) ** 2  # linear between nodes
    wavenumber = np.sqrt(sum(q**2 for q in mesh))
    travelling = omega * np.sqrt(np.abs(np.mean(slowness)))
    power = np.abs(amplitude / np.maximum(wavenumber, travelling) ** 2) ** 2
    limits = np.asarray(ratios) * resolved_wavenumber(problem)
    largest = np.max(mesh, axis=0)
    beyond = [np.sum(power[largest > limit]) for limit in limits]
    return np.sqrt(np.array(beyond) / np.sum(power))
