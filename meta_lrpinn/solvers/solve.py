"""`solve`: one call from a velocity model to its scattered wavefield."""

import functools
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

from meta_lrpinn import checkpoints, configs, models, networks, objectives
from meta_lrpinn import problem as problems
from meta_lrpinn.adapt import finetune, gauss_newton, output_layer, rank_choice
from meta_lrpinn.linear import lattice as lattices
from meta_lrpinn.linear import weak_form
from meta_lrpinn.metrics import relative_l2
from meta_lrpinn.problem import HelmholtzProblem
from meta_lrpinn.tasks import single_task
from meta_lrpinn.velocity import VelocityModel
from meta_lrpinn.wavefield import Wavefield

METHODS = ("galerkin", "least_squares", "gradient")
FEATURES = ("plane_waves", "random_waves", "lrpinn", "pinn")
OPTIMISERS = ("adamw", "gauss_newton")
PRECISIONS = ("double", "single")
Initialisation = str | Path | None | tuple[nn.Module, objectives.Params]
ASSETS = Path(__file__).parent.parent / "assets"
DEFAULT_INITIALISATION = ASSETS / "small"

_DEFAULT_STEPS = {"galerkin": 0, "least_squares": 300, "gradient": 2000}
_DEFAULT_WAVENUMBER_RATIO = {2: 2.4, 3: 1.9}
# The estimate of a network's own error is half of the change by the last third of its
# features: 1.24 times the error of the shipped ones, by the median of 40 random
# velocities at 4 to 10 Hz, within a factor of two for 88 % (experiments.comparison).
_ENRICHMENT = 1.5
CHANGE_OVER_ERROR = 2.0
ESTIMATE = "error_estimate"  # of a record of the history
_RANDOM_WAVENUMBER_RATIO = 1.4  # of random waves, which all go into one matrix
_COLLOCATION_PER_WAVELENGTH = 6.0
_MAXIMUM_COLLOCATION = 20_000
# The matrix of this many waves takes 2.3 GiB, and its factors as much again.
_MAXIMUM_WAVES = 12_000


def solve(
    model: VelocityModel,
    frequency: float,
    source: np.ndarray,
    *,
    method: str = "galerkin",
    features: str = "plane_waves",
    init: Initialisation = "default",
    amplitude: complex | None = None,
    background_velocity: float | None = None,
    thickness: float | None = None,
    unknowns: int | None = None,
    tolerance: float | None = None,
    steps: int | None = None,
    patience: int | None = None,
    optimiser: str = "adamw",
    learning_rate: float | None = None,
    points: int | None = None,
    prune_hypernetwork: bool = True,
    rank_fraction: float | None = None,
    rank_tolerance: float | None = None,
    freeze_bases: bool = False,
    output_start: str = "solved",
    precision: str = "double",
    truth: np.ndarray | None = None,
    report_every: int | None = None,
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
            path of an initialisation or of a training run, None for random, or a pair
            of module and parameters.
        amplitude: A of the background field; default: fundamental solution.
        background_velocity: v₀, km/s; default: the velocity at each source.
        thickness: Absorbing layer, km; default: `problem.default_thickness`, or the
            share of it that a network's features are for (its `layer_share`).
        unknowns: Number of plane waves; default: by area and frequency. Of an "lrpinn",
            the number of leading features to use; default: all.
        tolerance: Relative error to reach: plane waves are added until the estimate of
            the own error is below it. Plane waves only.
        steps: Adaptation steps of a network's features; defaults 0 for "galerkin", 300
            for "least_squares", 2,000 for "gradient", and 8 of "gauss_newton". The
            parameters of the record with the smallest estimate of the error are kept,
            the first included, or, of "gradient", with the smallest loss at held-out
            points.
        patience: Stop after so many records of the history without a smaller estimate
            or loss; default: take all steps. Of "gauss_newton" so many refused steps,
            by default 5.
        optimiser: "adamw" adapts all parameters; "gauss_newton" the singular values
            alone, by few and costly steps (methods "galerkin" and "least_squares",
            "lrpinn", pruned).
        points: Collocation points per step; default: six per shortest wavelength along
            each axis, at most 20,000.
        learning_rate: Of AdamW; default for features 1e-3 from an initialisation on
            disk and 2e-3 from other parameters, with cosine decay; for "gradient" the
            paper's schedule from 1e-3.
        prune_hypernetwork: Turn the singular values into free parameters at this
            frequency ("lrpinn" only).
        rank_fraction: Keep this fraction of the singular values of each layer, the
            largest ("lrpinn", pruned).
        rank_tolerance: Keep the smallest fraction of the singular values that raises
            the strong residual, before any step, by no more than this fraction of it
            ("lrpinn", pruned); the rank is then in the result's `method`.
        freeze_bases: Adapt everything but U and V ("lrpinn" only).
        output_start: Output layer that "gradient" starts from: "solved", in the weak
            form over the initial features, or the "network"'s own.
        precision: "double" or "single", of the exact solves; networks train in single.
        truth: Known δu on the grid; if given, the history has its relative L2 distance.
        report_every: Steps between records of the history; default: a fifth of all
            steps, of "gradient" a twentieth, at most 10. Every step of "gauss_newton"
            is a record.
        seed: Seed of random features, random starts and collocation points.
        progress: Show a progress bar.

    Returns:
        The wavefield; `error_estimate` is the relative change by the last third of the
        waves, or half of that by the last third of a network's features. "gradient"
        has none.

    Raises:
        ValueError: bad input or an option that does not apply, in one line.
    """
    began = time.perf_counter()
    options = {name: value for name, value in locals().items() if name != "began"}
    _check_options(options)
    sources = np.atleast_2d(np.asarray(source, float))
    several = np.ndim(source) == 2
    network = None
    if features in ("lrpinn", "pinn"):
        network = load_network(init, features, model.ndim, jax.random.key(seed))
    all_problems = [
        problems.make_problem(
            model,
            frequency,
            position,
            amplitude=amplitude,
            background_velocity=background_velocity,
            thickness=thickness,
            layer_share=network[0].layer_share if network else 1.0,
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
        fields, extras = _solve_features(all_problems, network, options)
    background = np.stack([_background_on_grid(p) for p in all_problems])
    pick = (lambda array: array) if several else (lambda array: array[0])
    evaluate = extras.pop("evaluate")
    return Wavefield(
        model=model,
        frequency=float(frequency),
        source=pick(sources),
        scattered=pick(np.asarray(fields, np.complex64)),
        background=pick(np.asarray(background, np.complex64)),
        method=", ".join([method, features, *extras.pop("remarks", ())]),
        elapsed=time.perf_counter() - began,
        evaluate=lambda points: pick(evaluate(points)),
        **extras,
    )


def _check_options(options: dict[str, Any]) -> None:
    """Refuse unknown values, and options that would have no effect."""
    for name, known in (
        ("method", METHODS),
        ("features", FEATURES),
        ("optimiser", OPTIMISERS),
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
    if features == "pinn" and options["unknowns"] is not None:
        raise ValueError("unknowns applies to waves and to features lrpinn")
    if options["unknowns"] is not None and options["tolerance"] is not None:
        raise ValueError("give unknowns or tolerance, not both")
    for name in (
        "unknowns", "tolerance", "learning_rate", "patience", "points", "report_every",
        "rank_tolerance",
    ):  # fmt: skip
        if options[name] is not None and not options[name] > 0:
            raise ValueError(f"{name} must be positive, got {options[name]}")
    if options["steps"] is not None and options["steps"] < 0:
        raise ValueError(f"steps must not be negative, got {options['steps']}")
    for name in ("steps", "patience", "learning_rate", "points", "report_every"):
        if waves and options[name]:
            raise ValueError(f"{features} have nothing to train; {name} has no effect")
    if features != "lrpinn":
        for name in ("rank_fraction", "rank_tolerance", "freeze_bases"):
            if options[name] is not None and options[name] is not False:
                raise ValueError(f"{name} applies to features lrpinn only")
    reductions = [
        name for name in ("rank_fraction", "rank_tolerance") if options[name] is not None
    ]
    if len(reductions) > 1:
        raise ValueError("give rank_fraction or rank_tolerance, not both")
    if reductions and not options["prune_hypernetwork"]:
        raise ValueError(f"{reductions[0]} needs a pruned hypernetwork")
    if options["optimiser"] == "gauss_newton":
        _check_gauss_newton(options)
    if np.size(options["source"]) == 0:
        raise ValueError("at least one source is needed")
    shape = (len(np.atleast_2d(options["source"])), *options["model"].shape)
    shape = shape if np.ndim(options["source"]) == 2 else shape[1:]
    if options["truth"] is not None and np.shape(options["truth"]) != shape:
        raise ValueError(
            f"the known field has shape {np.shape(options['truth'])}, expected {shape}"
        )


def _check_gauss_newton(options: dict[str, Any]) -> None:
    """Refuse what second-order steps of the singular values cannot do, or ignore."""
    if options["features"] != "lrpinn":
        raise ValueError(
            "optimiser gauss_newton adapts the singular values of features lrpinn, "
            f"which {options['features']} have not"
        )
    if options["method"] == "gradient":
        raise ValueError(
            "optimiser gauss_newton needs method galerkin or least_squares; method "
            "gradient is AdamW on everything"
        )
    if not options["prune_hypernetwork"]:
        raise ValueError("optimiser gauss_newton needs a pruned hypernetwork")
    for name in ("learning_rate", "freeze_bases", "report_every"):
        if options[name]:
            raise ValueError(f"optimiser gauss_newton makes no use of {name}")


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
    wavenumber_ratio = _DEFAULT_WAVENUMBER_RATIO[first.ndim]
    if options["unknowns"] is not None:
        wavenumber_ratio = lattices.wavenumber_ratio_for(first, options["unknowns"])
    elif tolerance is not None:
        wavenumber_ratio = lattices.wavenumber_ratio_for_tolerance(tolerance)
    history = []
    with (
        jax.enable_x64(options["precision"] == "double"),
        tqdm.tqdm(disable=not options["progress"], unit="solve") as bar,
    ):
        while True:
            lattice = lattices.make_lattice(first, wavenumber_ratio, sources=len(sources))
            if lattice.dense > _MAXIMUM_WAVES:
                raise ValueError(
                    f"{lattice.dense} plane waves are too many to solve for; choose a "
                    "smaller model, a lower frequency, or a looser tolerance"
                )
            solution = jax.block_until_ready(
                _solve_lattice(first, lattice, sources, velocities)
            )
            estimate = float(solution.change)
            record = {"unknowns": lattice.number, "error_estimate": estimate}
            if options["truth"] is not None:
                truth = np.reshape(options["truth"], solution.fields.shape)
                record["relative_l2"] = relative_l2(solution.fields, truth)
            history.append(record)
            bar.update()
            bar.set_postfix(unknowns=lattice.number, estimate=f"{estimate:.2g}")
            if tolerance is None or estimate <= tolerance:
                break
            wavenumber_ratio *= 1.5 ** (1 / first.ndim)

    def evaluate(points):
        with jax.enable_x64(options["precision"] == "double"):
            points = jnp.asarray(points, float)
            return lattices.evaluate(first, lattice, solution.weights, points).T

    return np.asarray(solution.fields), {
        "evaluate": evaluate,
        "history": tuple(history),
        "error_estimate": estimate,
        "unknowns": lattice.number,
    }


_solve_lattice = jax.jit(lattices.solve)


# Features of a network, or random waves ------------------------------------------------


def _solve_features(
    all_problems: list[HelmholtzProblem],
    network: tuple[nn.Module, objectives.Params] | None,
    options: dict[str, Any],
) -> tuple[np.ndarray, dict[str, Any]]:
    if network is None:
        model, params = _random_waves(all_problems[0], options)
    else:
        model, params = _as_asked(*network, all_problems[0], options)
    remarks = ()
    if options["rank_tolerance"] is not None:
        model, params, remark = _choose_rank(model, params, all_problems, options)
        remarks = (remark,)
    fields, solutions, history, estimates = [], [], [], []
    for index, problem in enumerate(all_problems):
        truth = options["truth"]
        if truth is not None:
            truth = np.asarray(truth).reshape(-1, *problem.model.shape)[index]
        solution, records = _adapt(model, params, problem, truth, options)
        values = solution(problem.model.grid_points())
        fields.append(values[:, 0].reshape(problem.model.shape))
        estimates.append(_estimate(values))
        solutions.append(solution)
        history += [{"source": index, **record} for record in records]

    def evaluate(points):
        return np.stack([solution(np.asarray(points))[:, 0] for solution in solutions])

    return np.stack(fields), {
        "evaluate": evaluate,
        "history": tuple(history),
        "error_estimate": max(filter(np.isfinite, estimates), default=None),
        "unknowns": _number_of_features(model, params),
        "remarks": remarks,
    }


def _estimate(values: np.ndarray) -> float:
    """Estimated relative error of the field in the first column of values (n, k).

    Args:
        values: In the second column the field of the leading features; it may lack.

    Returns:
        The estimate; not a number without that column, or of a field of zeros.
    """
    field, *coarser = values.T
    if not coarser or not np.any(field):
        return np.nan
    return relative_l2(coarser[0], field) / CHANGE_OVER_ERROR


def _choose_rank(
    model: nn.Module,
    params: objectives.Params,
    all_problems: list[HelmholtzProblem],
    options: dict[str, Any],
) -> tuple[nn.Module, objectives.Params, str]:
    """The network at the rank that `rank_tolerance` asks for, and that in words."""
    reduced, params, record = rank_choice.choose_rank(
        model,
        params,
        all_problems,
        options["rank_tolerance"],
        points=options["points"] or _collocation_number(all_problems[0]),
        key=jax.random.key(options["seed"]),
    )
    ranks = "/".join(str(rank) for rank in sorted(set(reduced.network.rank)))
    return reduced, params, f"rank {ranks} ({record['rank_fraction']:.0%})"


def _number_of_features(model: nn.Module, params: objectives.Params) -> int:
    shape = jax.eval_shape(
        lambda: model.apply(
            {"params": params},
            jnp.zeros((1, model.ndim)),
            jnp.zeros(model.ndim - 1),
            jnp.ones(()),
            method="features",
        )
    )
    return shape.shape[-1]


def _random_waves(
    problem: HelmholtzProblem, options: dict[str, Any]
) -> tuple[nn.Module, objectives.Params]:
    """Random plane waves and their parameters."""
    largest = 1.15 * float(problem.omega) / problem.model.minimum
    number = options["unknowns"]
    if number is None:
        number = lattices.make_lattice(problem, _RANDOM_WAVENUMBER_RATIO).number
    key = jax.random.key(options["seed"])
    waves = models.plane_wave_parameters(key, number, largest, problem.ndim)
    return models.PlaneWaves(ndim=problem.ndim, number=number), waves


def _as_asked(
    model: nn.Module,
    params: objectives.Params,
    problem: HelmholtzProblem,
    options: dict[str, Any],
) -> tuple[nn.Module, objectives.Params]:
    """Network and parameters to start from, pruned and reduced as asked."""
    if not isinstance(model, models.MetaLRPINN):
        return model, params
    if options["prune_hypernetwork"] and not models.is_pruned(model):
        frequency = float(problem.omega) / (2 * np.pi)
        model, params = models.prune_hypernetwork(model, params, frequency)
    if options["rank_fraction"] is not None:
        fraction = options["rank_fraction"]
        model, params = models.truncate(model, params, fraction=fraction)
    if options["unknowns"] is not None:
        model, params = models.leading_features(model, params, options["unknowns"])
    return model, params


def load_network(
    init: Initialisation, features: str, ndim: int, key: jax.Array
) -> tuple[nn.Module, objectives.Params]:
    """A network with the parameters that adaptation starts from.

    Args:
        init: "default" for the shipped meta-initialisation, the folder of an
            initialisation or of a training run, None for random parameters of the
            `small` preset's size, or a module and its parameters, which are returned.
        features: "lrpinn" or "pinn", which the initialisation must be.
        ndim: Space dimension it must have.
        key: Random key of the random start.

    Returns:
        Module and parameters.

    Raises:
        ValueError: there is no such initialisation, or it is of another kind.
    """
    if isinstance(init, tuple):
        return init
    if init is None:
        small = configs.PRESETS["small"].network
        config = configs.NetworkConfig(**{**vars(small), "kind": features, "ndim": ndim})
        model = networks.make_network(config)
        return model, models.initial_parameters(model, key)
    folder = DEFAULT_INITIALISATION if init == "default" else Path(init)
    if (folder / "checkpoints").is_dir():
        params, settings, _ = checkpoints.load_run_parameters(folder / "checkpoints")
        network = settings["network"]
    else:
        params, network, _ = checkpoints.load_initialisation(folder)
    config = configs.network_from_dict(network)
    if (config.kind, config.ndim) != (features, ndim):
        raise ValueError(
            f"the initialisation {folder.name} is a {config.ndim}D {config.kind}; "
            f"asked for a {ndim}D {features} (init none starts at random)"
        )
    return networks.make_network(config), params


def _adapt(
    model: nn.Module,
    params: objectives.Params,
    problem: HelmholtzProblem,
    truth: np.ndarray | None,
    options: dict[str, Any],
) -> tuple[Callable[[np.ndarray], np.ndarray], tuple[dict[str, Any], ...]]:
    """Adapt a network to one problem.

    Returns points (n, ndim) → (n, k), of which the first column is δu and a second one
    what two thirds of the features would have given, and the history. The network sees
    a unit amplitude, so that its output is of order one; the field is linear in the
    amplitude.
    """
    method = options["method"]
    second_order = options["optimiser"] == "gauss_newton"
    steps = options["steps"]
    if steps is None:
        steps = gauss_newton.STEPS if second_order else _DEFAULT_STEPS[method]
    if options["features"] == "random_waves":
        steps = 0
    amplitude = np.abs(problem.amplitude)
    unit = problem.replace(amplitude=problem.amplitude / amplitude)
    number = options["points"] or _collocation_number(problem)
    trains_output = method == "gradient"
    if trains_output and options["output_start"] == "solved":
        weights = output_layer.solve("galerkin", model, params, unit, double=True)
        params = output_layer.replace(params, weights)

    def solution(params):
        if trains_output:
            field = output_layer.own_field(model, params, unit)
            return lambda points: amplitude * field(points)[:, None]
        double, shares = options["precision"] == "double", (1.0, 1 / _ENRICHMENT)
        weights = output_layer.solve_nested(method, model, params, unit, shares, double)
        field = output_layer.feature_field(model, params, unit, weights, double)
        return lambda points: amplitude * field(points)

    def evaluate(params):
        values = solution(params)(problem.model.grid_points())
        figures = {} if trains_output else {ESTIMATE: _estimate(values)}
        if truth is not None:
            figures["relative_l2"] = relative_l2(values[:, 0], np.ravel(truth))
        return figures

    # The residual can fall while the error grows: where the output layer is solved for,
    # the estimate of the error decides.
    choose = finetune.HELD_OUT if trains_output else ESTIMATE
    history = ()
    key = jax.random.key(options["seed"])
    if second_order:
        params, history = gauss_newton.gauss_newton(
            model,
            params,
            unit,
            steps=steps,
            points=number,
            key=key,
            patience=options["patience"] or gauss_newton.PATIENCE,
            evaluate=evaluate,
            choose=choose,
            progress=options["progress"],
        )
    elif steps or truth is not None:
        objective = (
            objectives.paper_objective(model, number, source_penalty=0.0)
            if trains_output
            else objectives.residual_objective(model, number)
        )
        params, history = finetune.finetune(
            objective,
            params,
            single_task(jax.tree.map(jnp.asarray, unit)),
            steps=steps,
            optimiser=_optimiser(
                method, steps, _learning_rate(options), options["freeze_bases"]
            ),
            key=key,
            report_every=options["report_every"] or _report_every(steps, choose),
            patience=options["patience"],
            evaluate=evaluate,
            choose=choose,
            progress=options["progress"],
        )
    return solution(params), history


def _report_every(steps: int, choose: str) -> int:
    """Steps between records, which take an exact solve each where that chooses."""
    return max(1, min(10, steps // 20) if choose == finetune.HELD_OUT else steps // 5)


def _learning_rate(options: dict[str, Any]) -> float:
    if options["learning_rate"] is not None:
        return options["learning_rate"]
    if options["method"] == "gradient":
        return 1e-3
    # Trained features are nearly right: larger steps first lose what they know.
    return 1e-3 if isinstance(options["init"], str | Path) else 2e-3


@functools.cache
def _optimiser(
    method: str, steps: int, rate: float, freeze_bases: bool
) -> optax.GradientTransformation:
    if method == "gradient":
        schedule = finetune.paper_schedule(rate)
    else:
        schedule = optax.cosine_decay_schedule(rate, max(steps, 1))
    optimiser = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=0.0)
    )
    if not freeze_bases:
        return optimiser
    return optax.partition({"free": optimiser, "frozen": optax.set_to_zero()}, _bases_apart)


def _bases_apart(params: objectives.Params) -> objectives.Params:
    return jax.tree_util.tree_map_with_path(
        lambda path, _: "frozen" if path[-1].key in ("U", "V") else "free", params
    )


def _collocation_number(problem: HelmholtzProblem) -> int:
    shape = weak_form.quadrature_shape(problem, _COLLOCATION_PER_WAVELENGTH)
    return min(int(np.prod(shape)), _MAXIMUM_COLLOCATION)
