"""How much sooner the meta-initialisation adapts than random initial parameters do.

The layered 5 Hz and 4 Hz cases, from the given initialisation and from random parameters
of the same network: steps and seconds to relative errors of 20, 15, 10 and 5 % against the
published fields. Adaptation by "galerkin" and "least_squares" trains the features on the
strong residual, with the output layer solved in the weak form or from that residual.
`returned` is the error of what `solve` returns: the record with the smallest estimate of
the error. The paper's own method, AdamW on everything, is in `layered` and `figure5`.
"""

import dataclasses

import numpy as np
from absl import flags
from matplotlib.figure import Figure

from experiments import common, histories, study
from meta_lrpinn.files.cases import Case
from meta_lrpinn.runtime import scripts

FLAGS = flags.FLAGS
flags.DEFINE_integer("least_squares_steps", 20, "Steps from the random start.")
flags.DEFINE_integer("galerkin_steps", 20, "Steps from the random start.")
flags.DEFINE_integer(
    "head_start", 2, "The meta start gets so many times fewer steps.", lower_bound=1
)
flags.DEFINE_list("methods", ["galerkin", "least_squares"], "Which to run.")
flags.DEFINE_list("starts", ["random", "meta"], "Which to run.")

NAME = "adaptation"
CASES = {"layered 5 Hz": "layered_5hz.npz", "layered 4 Hz": "layered_4hz_9sources.npz"}
THRESHOLDS = (0.20, 0.15, 0.10, 0.05)


def load_case(file: str) -> Case:
    """A published case; of several sources, the middle one."""
    case = common.published_case(file)
    if np.ndim(case.source) == 1:
        return case
    middle = len(case.source) // 2
    return dataclasses.replace(
        case, source=case.source[middle], scattered=case.scattered[middle]
    )


def main() -> None:
    """Measures what is missing, then writes table and figure."""
    steps = {
        "galerkin": FLAGS.galerkin_steps,
        "least_squares": FLAGS.least_squares_steps,
    }
    unknown = set(FLAGS.methods) - set(steps)
    if unknown:
        raise ValueError(f"methods must be among {', '.join(steps)}, got {unknown.pop()}")
    steps = {method: steps[method] for method in FLAGS.methods}
    starts = {
        "meta": study.Contender(study.feature_start),
        "random": study.Contender(study.random_start(study.feature_start)),
    }
    fewer = {"meta": FLAGS.head_start, "random": 1}
    keys = ("case", "method", "start", "steps", "points", "seed")
    records = common.Records(common.folder(NAME) / "history.csv", keys)
    curves = {}
    for case_name, file in CASES.items():
        case = load_case(file)
        for method, number in steps.items():
            for start in FLAGS.starts:
                count = number // fewer[start]
                for seed in range(FLAGS.seeds):
                    setting = {
                        "case": case_name,
                        "method": method,
                        "start": start,
                        "steps": count,
                        "points": FLAGS.points,
                        "seed": seed,
                    }
                    rows = records.ensure(
                        setting,
                        lambda: study.adapt(case, starts[start], method, count, seed),
                    )
                    curves.setdefault((case_name, method, start), []).append(rows)
    if set(FLAGS.starts) != set(starts):
        return
    common.save_report(NAME, report(curves, steps))
    draw(curves).savefig(common.folder(NAME) / "figure.png", dpi=150)


def report(curves: dict, steps: dict[str, int]) -> str:
    """Markdown table of steps and seconds to each error, and their ratios."""
    lines = []
    for case_name in CASES:
        for method in steps:
            for threshold in THRESHOLDS:
                meta, random = (
                    np.array([histories.reached(rows, threshold) for rows in runs])
                    for runs in (curves[case_name, method, s] for s in ("meta", "random"))
                )
                lines.append(
                    [
                        case_name,
                        method,
                        f"{threshold:.0%}",
                        _reached(meta[:, 0], steps[method] // FLAGS.head_start),
                        _reached(random[:, 0], steps[method]),
                        _reached(meta[:, 1]),
                        _reached(random[:, 1]),
                        histories.error_returned(curves[case_name, method, "meta"]),
                        histories.error_returned(curves[case_name, method, "random"]),
                    ]
                )
    columns = (
        "case,adaptation,error,steps (meta),steps (random),seconds (meta),"
        "seconds (random),returned (meta),returned (random)"
    ).split(",")
    return common.table(columns, lines)


def _reached(values: np.ndarray, most: int | None = None) -> str:
    finite = values[np.isfinite(values)]
    missing = "" if len(finite) == len(values) else f" ({len(finite)}/{len(values)})"
    if not len(finite):
        return "not reached" if most is None else f"> {most}"
    return common.spread(finite) + missing


def draw(curves: dict) -> Figure:
    """Error against step, mean and range over the seeds."""
    methods = list(dict.fromkeys(key[1] for key in curves))
    figure = Figure(figsize=(11, 4.2 * len(CASES)), layout="constrained")
    panels = figure.subplots(len(CASES), len(methods), squeeze=False)
    colors = {"meta": "#0072b2", "random": "#d55e00"}
    for (case_name, method, start), runs in curves.items():
        axes = panels[list(CASES).index(case_name)][methods.index(method)]
        step = np.array([row["step"] for row in runs[0]])
        errors = np.array([[row["relative_l2"] for row in rows] for rows in runs])
        axes.plot(step, errors.mean(axis=0), color=colors[start], label=f"{start} start")
        low, high = errors.min(axis=0), errors.max(axis=0)
        axes.fill_between(step, low, high, color=colors[start], alpha=0.2, lw=0)
        axes.set(
            xscale="symlog",
            yscale="log",
            xlabel="adaptation steps",
            ylabel="relative L2 error",
            title=f"{case_name}, {method.replace('_', ' ')}",
        )
    for axes in panels.flat:
        for threshold in THRESHOLDS:
            axes.axhline(threshold, color="0.8", lw=0.8, zorder=0)
        axes.legend(frameon=False)
    return figure


if __name__ == "__main__":
    scripts.run(main)
