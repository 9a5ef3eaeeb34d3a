"""What commands write: a wavefield with its figure, all together or nothing."""

import argparse
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from meta_lrpinn import files
from meta_lrpinn.cli.parsing import add_option
from meta_lrpinn.cli.problem import Problem
from meta_lrpinn.cli.report import Report

if TYPE_CHECKING:
    import numpy as np

    import meta_lrpinn as ml

REFERENCE_TOLERANCE = 0.003
_SMALLEST_SHOWN = 1e-4


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the folder to write to."""
    group = parser.add_argument_group("files")
    add_option(group, "out", str, "Folder to write to.", ".")


def check_folder(out: str) -> None:
    """Refuses, before anything is computed, a folder that is a file."""
    for path in (pathlib.Path(out), *pathlib.Path(out).parents):
        if path.exists() and not path.is_dir():
            raise ValueError(f"--out must be a folder, {path} is a file")


def reference_field(problem: Problem, tolerance: float | None) -> "ml.Wavefield":
    """The wavefield by finite differences; in 3D on one grid, a finer is out of reach."""
    import meta_lrpinn as ml

    return ml.reference_wavefield(
        problem.model,
        problem.frequency,
        problem.source,
        tolerance=tolerance if problem.model.ndim == 2 else None,
        **problem.keywords(),
    )


def say_field(field: "ml.Wavefield", report: Report) -> None:
    """Says what a solver did, and how good it takes its field to be."""
    unknowns = f"{field.stats.unknowns} complex unknowns"
    report.say("solver", f"{field.solver.replace('_', ' ')}, {unknowns}")
    report.say("seconds", f"{field.elapsed:.2f}, compilation included")
    estimate = field.error_estimate
    if estimate is not None:
        small = f"below {_SMALLEST_SHOWN:.2%}"
        text = f"{estimate:.2%}" if estimate >= _SMALLEST_SHOWN else small
        report.say("estimate", f"relative error {text} by its own estimate")
    report.add(
        solver=field.solver,
        unknowns=field.stats.unknowns,
        iterations=field.stats.iterations,
        rank=field.stats.rank,
        steps=field.stats.steps,
        seconds=field.elapsed,
        error_estimates=field.error_estimates,
        converged=field.converged,
    )


def errors_of(field: "ml.Wavefield", truth: "np.ndarray") -> list[float | None]:
    """Relative L2 error of every source; None where nothing scatters."""
    import meta_lrpinn as ml

    shape = (-1, *field.model.shape)
    pairs = zip(field.scattered.reshape(shape), truth.reshape(shape), strict=True)
    return [
        ml.relative_l2(prediction, one) if one.any() else None for prediction, one in pairs
    ]


def in_words(errors: list[float | None]) -> str:
    """Errors as text."""
    shown = ["none: nothing scatters" if e is None else f"{e:.2%}" for e in errors]
    return "relative L2 " + ", ".join(shown)


def write_field(
    out: str,
    name: str,
    field: "ml.Wavefield",
    truth: "np.ndarray | None",
    errors: Mapping[str, list[float | None]],
    report: Report,
) -> None:
    """Writes NAME.npz, a case that can be loaded again, and its figure NAME.png."""
    import numpy as np

    from meta_lrpinn import plotting

    contents = {
        "velocity": np.asarray(field.model.velocity),
        "spacing": np.array(field.model.spacing),
        "origin": np.array(field.model.origin),
        "frequency": field.frequency,
        "source": field.source,
        "amplitude": field.amplitude,
        "scattered": field.scattered,
        "background": field.background,
        "solver": field.solver,
        "settings": repr(field.settings),
        "elapsed": field.elapsed,
        **{f"relative_l2_{name}": np.array(error, float) for name, error in errors.items()},
    }
    if np.ptp(field.background_velocity) == 0:
        contents["v0"] = float(np.ravel(field.background_velocity)[0])
    if field.error_estimates is not None:
        contents["error_estimates"] = field.error_estimates
    figure = plotting.wavefield_figure(field, truth)
    folder = pathlib.Path(out)
    paths = [folder / f"{name}.npz", folder / f"{name}.png"]
    files.write_together(
        {
            paths[0]: lambda file: np.savez_compressed(file, **contents),
            paths[1]: lambda file: figure.savefig(file, format="png", dpi=150),
        }
    )
    report.say("wrote", ", ".join(str(path) for path in paths))
    report.add(files=[str(path) for path in paths])
