"""Errors, their own estimates and seconds where solvers are known to go wrong.

Sharp steps, guides, thin layers, grazing incidence in long flat models, a homogeneous
model seen from another background, wavelengths of many times the model, and models of
metres and millimetres: the default solver and finite differences against exact
solutions (wavenumber integrals). The published layered model, where its file is at
hand, is measured against finite differences of a thirtieth of the tolerance.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from absl import flags
from matplotlib.figure import Figure

import meta_lrpinn as ml
from experiments import common, histories
from meta_lrpinn import reference
from meta_lrpinn.runtime import scripts

FLAGS = flags.FLAGS
NAME = "trust"
flags.DEFINE_list("cases", None, "Of trust's cases; by default all.")
flags.DEFINE_float("default_tolerance", None, "Of the default solver; by default none.")
flags.DEFINE_float("trust_tolerance", 0.003, "Of the finite differences.")
PUBLISHED = "layered 5 Hz, published"


class Case(NamedTuple):
    """A model whose exact wavefield is known."""

    model: ml.VelocityModel
    frequency: float  # Hz
    source: tuple[float, float]  # km
    background_velocity: float | None = None  # km/s


def along_x(velocity: np.ndarray, columns: int, spacing: float) -> ml.VelocityModel:
    """A model v(z) of so many columns."""
    column = np.asarray(velocity, float)[:, None]
    return ml.VelocityModel(np.repeat(column, columns, axis=1), spacing)


def exact_cases() -> dict[str, Case]:
    """All cases by name; velocities vary with depth alone."""
    step = np.arange(41)  # nodes of a kilometre in depth, 25 m
    gradient = 1.5 + 1.5 * step / 40
    guide = np.where((step >= 16) & (step <= 24), 1.5, 4.5)
    top = (1.5, 0.05)
    cases = {
        "half-spaces 1.5 / 3": Case(
            along_x(np.where(step < 20, 1.5, 3.0), 121, 0.025), 6.0, top
        ),
        "slow guide, source above": Case(along_x(guide, 121, 0.025), 6.0, top),
        "slow guide, source within": Case(along_x(guide, 121, 0.025), 6.0, (1.5, 0.5)),
        "thin layer 2 in 4": Case(
            along_x(np.where(step == 20, 2.0, 4.0), 121, 0.025), 6.0, top
        ),
        "10 x 0.5 km, faster below": Case(
            along_x(gradient[::2], 401, 0.025), 5.0, (0.2, 0.05)
        ),
        "10 x 0.5 km, faster above": Case(
            along_x(gradient[::-2], 401, 0.025), 5.0, (0.2, 0.05)
        ),
        "homogeneous 2.0 from 1.9": Case(
            along_x(np.full(26, 2.0), 501, 0.02), 5.0, (0.2, 0.02), 1.9
        ),
        "60 x 20 m, 60 Hz": Case(
            along_x(0.3 + 0.3 * np.arange(21) / 20, 61, 0.001), 60.0, (0.03, 0.002)
        ),
        "20 mm, 1.5 MHz": Case(
            along_x(1.4 + 0.3 * np.arange(101) / 100, 101, 2e-7), 1.5e6, (1e-5, 1e-6)
        ),
    }
    for factor in (2.5, 5.0, 12.5, 50.0):
        cases[f"wavelength {factor:g} x model"] = Case(
            along_x(gradient, 41, 0.025), 2.25 / factor, (0.5, 0.05)
        )
    return cases


def exact(case: Case) -> np.ndarray:
    """δu of a case on its grid, by wavenumber integral."""
    field = reference.layered_medium(
        case.model.grid_points(),
        case.frequency,
        np.array(case.source),
        *reference.depth_profile(case.model),
        background_velocity=case.background_velocity,
    )
    return field.reshape(case.model.shape)


def published() -> tuple[Case, np.ndarray]:
    """The published layered model, and δu by much finer finite differences."""
    known = common.published_case("layered_5hz.npz")
    source = tuple(np.ravel(known.source).tolist())
    case = Case(known.model, known.frequency, source, known.background_velocity)
    return case, differences(case, FLAGS.trust_tolerance / 30).scattered


def differences(case: Case, tolerance: float) -> ml.Wavefield:
    """Finite differences to a tolerance."""
    return ml.reference_wavefield(
        case.model,
        case.frequency,
        case.source,
        background_velocity=case.background_velocity,
        tolerance=tolerance,
    )


def default_solver(case: Case) -> ml.Wavefield:
    """`ml.solve` as a newcomer calls it, or to --default_tolerance."""
    settings = None
    if FLAGS.default_tolerance is not None:
        settings = ml.PlaneWaves(tolerance=FLAGS.default_tolerance)
    return ml.solve(
        case.model,
        case.frequency,
        case.source,
        settings,
        background_velocity=case.background_velocity,
    )


def solvers() -> Mapping[str, Callable[[Case], ml.Wavefield]]:
    """What is compared, by name."""
    return {
        "default": default_solver,
        "finite differences": lambda case: differences(case, FLAGS.trust_tolerance),
    }


def measure(case: Case, truth: np.ndarray, solver: str) -> list[dict[str, Any]]:
    """The row of a solver."""
    return timed(lambda: solvers()[solver](case), truth)


def timed(solve: Callable[[], ml.Wavefield], truth: np.ndarray) -> list[dict[str, Any]]:
    """One row, of a second call; a refusal is one too, and so is a lack of memory."""
    try:
        solve()  # compiles
        began = time.perf_counter()
        field = solve()
    except ValueError as error:
        return [{"refusal": f"refused: {error}"}]
    except MemoryError as error:
        return [{"refusal": f"out of memory: {error}"}]
    return [
        {
            "error": ml.relative_l2(field.scattered, truth),
            "estimate": field.error_estimate,
            "converged": field.converged,
            "seconds": time.perf_counter() - began,
            "unknowns": field.stats.unknowns,
        }
    ]


def main() -> None:
    """Measures what is missing, then writes table and figure."""
    cases = exact_cases()
    names = [*cases, PUBLISHED] if FLAGS.cases is None else FLAGS.cases
    unknown = sorted(set(names) - {*cases, PUBLISHED})
    if unknown:
        raise ValueError(f"there is no case {unknown[0]!r}; there are {', '.join(cases)}")
    keys = ("case", "solver", "tolerance", "default_tolerance")
    records = common.Records(common.folder(NAME) / "errors.csv", keys)
    rows = []
    for name in names:
        try:
            case, truth = (
                published() if name == PUBLISHED else (cases[name], exact(cases[name]))
            )
        except ValueError as error:
            print(f"left out: {error}", flush=True)
            continue
        for solver in solvers():
            asked = FLAGS.default_tolerance or "none"
            values = (name, solver, FLAGS.trust_tolerance, asked)
            rows += records.at(values, lambda: measure(case, truth, solver))
    common.save_report(NAME, report(rows))
    draw(rows).savefig(common.folder(NAME) / "figure.png", dpi=150)


def draw(rows: list[dict[str, Any]]) -> Figure:
    """Error and estimate of every case and solver; one that refused has no bar."""
    groups: dict[str, dict[str, float]] = {}
    for row in rows:
        if isinstance(row.get("error"), float | int):
            own = groups.setdefault(row["case"], {})
            own[f"{row['solver']}: error"] = 100 * row["error"]
            own[f"{row['solver']}: estimate"] = 100 * row["estimate"]
    return histories.bars(groups, "relative L2 error, %")


def report(rows: list[dict[str, Any]]) -> str:
    """Markdown: a line for each case, error, estimate and seconds of each solver."""
    names = list(dict.fromkeys(row["solver"] for row in rows))
    columns = ["case"]
    for name in names:
        columns += [f"{name}: error", "its estimate", "seconds"]
    by_case: dict[str, dict[str, dict]] = {}
    for row in rows:
        by_case.setdefault(row["case"], {})[row["solver"]] = row
    lines = []
    for case, results in by_case.items():
        line = [case]
        for name in names:
            line += cells(results[name])
        lines.append(line)
    return common.table(columns, lines)


def cells(row: Mapping[str, Any]) -> list[str]:
    """Error, estimate and seconds of a row; of one from a file, empty is absent."""
    if row.get("refusal"):
        return [row["refusal"].partition(":")[0], "", ""]
    estimate = row["estimate"]
    text = "none" if estimate in (None, "") else f"{estimate:.3%}"
    if str(row["converged"]) == "False":
        text += ", not converged"
    return [f"{row['error']:.3%}", text, f"{row['seconds']:.2g}"]


if __name__ == "__main__":
    scripts.run(main)
