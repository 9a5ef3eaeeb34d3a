"""`solve`: one call from a velocity model to its scattered wavefield."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tqdm
from flax import linen as nn

from meta_lrpinn import checkpoints, configs, models, objectives
from meta_lrpinn import problem as problems
from meta_lrpinn.adapt import finetune, galerkin, least_squares, spectral
from meta_lrpinn.physics import derivatives, residual
from meta_lrpinn.problem import HelmholtzProblem
from meta_lrpinn.tasks import single_task
from meta_lrpinn.velocity import VelocityModel
from meta_lrpinn.wavefield import Wavefield, relative_l2

METHODS = ("galerkin", "least_squares", "gradient")
FEATURES = ("plane_waves", "random_waves", "lrpinn", "pinn")
PRECISIONS = ("double", "single")
ASSETS = Path(__file__).parent.parent / "assets"
DEFAULT_INITIALISATION = ASSETS / "small"

_DEFAULT_STEPS = {"galerkin": 0, "least_squares": 300, "gradient": 2000}
_DEFAULT_MARGIN = {2: 1.4, 3: 1.25}
_COLLOCATION_PER_WAVELENGTH = 6.0
_MAXIMUM_COLLOCATION = 20_000
# More waves than this many need tens of GiB and minutes.
_MAXIMUM_WAVES = 30_000


def solve(
    model: VelocityModel,
    frequency: float,
    source: np.ndarray,
    *,
    method: str = "galerkin",
    features: str = "plane_waves",
    init: str | Path | None = "default",
    amplitude: complex | None = None,
    background_velocity: float | None = None,
    thickness: float | None = None,
    unknowns: int | None = None,
    tolerance: float | None = None,
    steps: int | None = None,
    learning_rate: float | None = None,
    prune_hypernetwork: bool = True,
    rank_fraction: float | None = None,
    freeze_bases: bool = False,
    output_start: str = "solved",
    precision: str = "double",
    truth: np.ndarray | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Wavefield:
    """Scattered wavefield of one or several sources in a velocity model.

    Args:
        model: Velocity model.
        frequency: Frequency, Hz.
        source: Source position (ndim,), or several, (n_sources, ndim), km.
        method: "galerkin" solves the output layer exactly in the weak form;
            "least_squares" eliminates it from the strong residual while AdamW trains
            the features (variable projection); "gradient" is the paper's, AdamW on
            everything.
        features: "plane_waves" (on a lattice; the matrix is assembled by FFT),
            "random_waves", or the last hidden layer of an "lrpinn" or "pinn".
        init: Where a network starts: "default" (the shipped meta-initialisation), the
            path of an initialisation or of a training run, or None for random.
        amplitude: A of the background field; default: fundamental solution.
        background_velocity: v₀, km/s; default: the velocity at each source.
        thickness: Absorbing layer, km; default: `problem.default_thickness`.
        unknowns: Number of plane waves; default: by area and frequency.
        tolerance: Relative error to reach: plane waves are added until the estimate of
            the own error is below it. Plane waves only.
        steps: Adaptation steps of a network's features; defaults 0 for "galerkin", 300
            for "least_squares", 2,000 for "gradient".
        learning_rate: Of AdamW; default 2e-3 with cosine decay for features, the
            paper's schedule from 1e-3 for "gradient".
        prune_hypernetwork: Turn the singular values into free parameters at this
            frequency ("lrpinn" only).
        rank_fraction: Keep this fraction of the singular values of each layer, the
            largest ("lrpinn", pruned).
        freeze_bases: Adapt everything but U and V ("lrpinn" only).
        output_start: Output layer that "gradient" starts from: "solved", by least
            squares on the initial features, or the "network"'s own.
        precision: "double" or "single", of the exact solves; networks train in single.
        truth: Known δu on the grid; if given, the history has its relative L2 distance.
        seed: Seed of random features, random starts and collocation points.
        progress: Show a progress bar.

    Returns:
        The wavefield; `error_estimate` is set for plane waves.

    Raises:
        ValueError: bad input or an option that does not apply, in one line.
    """
    began = time.perf_counter()
    options = {name: value for name, value in locals().items() if name != "began"}
    _check_options(options)
    sources = np.atleast_2d(np.asarray(source, float))
    several = np.ndim(source) == 2
    all_problems = [
        problems.make_problem(
            model,
            frequency,
            position,
            amplitude=amplitude,
            background_velocity=background_velocity,
            thickness=thickness,
        )
        for position in sources
    ]
    if thickness is None:
        # One layer for all sources, so that they share a matrix.
        widest = max(all_problems, key=lambda p: float(p.layer.thickness)).layer
        all_problems = [p.replace(layer=widest) for p in all_problems]
    if features == "plane_waves":
        fields, extras = _solve_plane_waves(all_problems, options)
    else:
        fields, extras = _solve_features(all_problems, options)
    background = np.stack([_background_on_grid(p) for p in all_problems])
    pick = (lambda array: array) if several else (lambda array: array[0])
    evaluate = extras.pop("evaluate")
    return Wavefield(
        model=model,
        frequency=float(frequency),
        source=pick(sources),
        scattered=pick(np.asarray(fields, np.complex64)),
        background=pick(background),
        method=f"{method}, {features}",
        elapsed=time.perf_counter() - began,
        evaluate=lambda points: pick(evaluate(points)),
        **extras,
    )


def _check_options(options: dict[str, Any]) -> None:
    """Refuse unknown values, and options that would have no effect."""
    for name, known in (
        ("method", METHODS),
        ("features", FEATURES),
        ("precision", PRECISIONS),
        ("output_start", ("solved", "network")),
    ):
        if options[name] not in known:
            raise ValueError(
                f"{name} must be one of {', '.join(known)}, got {options[name]!r}"
            )
    method, features = options["method"], options["features"]
    waves = features in ("plane_waves", "random_waves")
    if waves and method != "galerkin":
        raise ValueError(
            f"{features} have nothing to train; method {method} needs features lrpinn "
            "or pinn"
        )
    if features != "plane_waves" and options["tolerance"] is not None:
        raise ValueError("tolerance needs features plane_waves")
    if not waves and options["unknowns"] is not None:
        raise ValueError("unknowns applies to plane waves; a network has its width")
    if options["unknowns"] is not None and options["tolerance"] is not None:
        raise ValueError("give unknowns or tolerance, not both")
    for name in ("unknowns", "tolerance", "learning_rate"):
        if options[name] is not None and not options[name] > 0:
            raise ValueError(f"{name} must be positive, got {options[name]}")
    if options["steps"] is not None and options["steps"] < 0:
        raise ValueError(f"steps must not be negative, got {options['steps']}")
    if waves and options["steps"]:
        raise ValueError(f"{features} have nothing to train; steps has no effect")
    if features != "lrpinn":
        for name in ("rank_fraction", "freeze_bases"):
            if options[name]:
                raise ValueError(f"{name} applies to features lrpinn only")
    if options["rank_fraction"] is not None and not options["prune_hypernetwork"]:
        raise ValueError("rank_fraction needs a pruned hypernetwork")
    shape = (len(np.atleast_2d(options["source"])), *options["model"].shape)
    shape = shape if np.ndim(options["source"]) == 2 else shape[1:]
    if options["truth"] is not None and np.shape(options["truth"]) != shape:
        raise ValueError(
            f"the known field has shape {np.shape(options['truth'])}, expected {shape}"
        )


def _background_on_grid(problem: HelmholtzProblem) -> np.ndarray:
    with jax.enable_x64(True):
        points = jnp.asarray(problem.model.grid_points())
        field = jax.jit(problems.background_at)(problem, points)
        return np.asarray(field).reshape(problem.model.shape)


# Plane waves ---------------------------------------------------------------------------


def _solve_plane_waves(
    all_problems: list[HelmholtzProblem], options: dict[str, Any]
) -> tuple[np.ndarray, dict[str, Any]]:
    first, tolerance = all_problems[0], options["tolerance"]
    sources = np.stack([p.source for p in all_problems])
    velocities = np.stack([p.background_velocity for p in all_problems])
    margin = _DEFAULT_MARGIN[first.ndim]
    if options["unknowns"] is not None:
        margin = spectral.margin_for(first, options["unknowns"])
    elif tolerance is not None:
        margin = spectral.margin_for_tolerance(tolerance)
    history = []
    with (
        jax.enable_x64(options["precision"] == "double"),
        tqdm.tqdm(disable=not options["progress"], unit="solve") as bar,
    ):
        while True:
            lattice = spectral.make_lattice(first, margin)
            if lattice.number > _MAXIMUM_WAVES:
                raise ValueError(
                    f"{lattice.number} plane waves are too many to solve for; choose a "
                    "smaller model, a lower frequency, or a looser tolerance"
                )
            solution = jax.block_until_ready(
                _solve_lattice(first, lattice, sources, velocities)
            )
            estimate = float(solution.error_estimate)
            history.append({"unknowns": lattice.number, "error_estimate": estimate})
            bar.update()
            bar.set_postfix(unknowns=lattice.number, estimate=f"{estimate:.2g}")
            if tolerance is None or estimate <= tolerance:
                break
            margin *= 1.2 ** (1 / first.ndim)
        fields = np.asarray(_lattice_on_grid(first, lattice, solution.weights))

    def evaluate(points):
        with jax.enable_x64(options["precision"] == "double"):
            points = jnp.asarray(points, float)
            return spectral.evaluate(first, lattice, solution.weights, points).T

    return fields, {
        "evaluate": evaluate,
        "history": tuple(history),
        "error_estimate": estimate,
        "unknowns": lattice.number,
    }


_solve_lattice = jax.jit(spectral.solve_with_estimate)
_lattice_on_grid = jax.jit(spectral.evaluate_on_grid)


# Features of a network, or random waves ------------------------------------------------


def _solve_features(
    all_problems: list[HelmholtzProblem], options: dict[str, Any]
) -> tuple[np.ndarray, dict[str, Any]]:
    model, params = _initial_network(all_problems[0], options)
    solved = [
        _solve_one(index, model, params, problem, options)
        for index, problem in enumerate(all_problems)
    ]
    shape = all_problems[0].model.shape
    fields = np.stack([field(p.model.grid_points()).reshape(shape) for field, p, _ in
                       ((f, p, h) for (f, h), p in zip(solved, all_problems))])
    histories = [
        {"source": index, **record} if len(solved) > 1 else record
        for index, (_, history) in enumerate(solved)
        for record in history
    ]

    def evaluate(points):
        return np.stack([field(np.asarray(points)) for field, _ in solved])

    return fields, {
        "evaluate": evaluate,
        "history": tuple(histories),
        "unknowns": getattr(model, "number", None) or _width(model),
    }
