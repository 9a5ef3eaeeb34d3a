"""Every experiment in turn, each in its own process, with a summary of all.

Each has the settings of its page, docs/results/<name>.md. With --docs=docs/results the
report of an experiment that succeeds replaces what stands between the table markers of
that page; prose and figures outside the markers stay as they are.

The flags that all experiments share (--out, --seeds, --data, --preset, --frequencies) are
passed on as given, and those of adaptation (--init, --meta_pinn, --steps, --points) to
the experiments that have them.

Each experiment keeps its measurements, so that this script, started again after a stop,
goes on. One that fails does not stop the others, but the exit code is then 1. The
summary, <out>/summary.md, links the tables and states exit codes and seconds; of an
experiment run several times, the seconds of all runs together.

In all some five hours on one core. --only=layered,baselines runs a part.
"""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from experiments import common, study
from meta_lrpinn.runtime import scripts

FLAGS = flags.FLAGS
flags.DEFINE_list("only", None, "Experiments to run; default: all.")
flags.DEFINE_string("docs", None, "Folder of pages whose tables are written again.")

# The dense network that is shipped, meta-trained as the low-rank one.
_META_PINN = ("--meta_pinn=meta_pinn",)
# Each with the settings of its page in docs/results, which flags given here override.
EXPERIMENTS = {
    "baselines": (),
    "layered": ("--frequencies=3,5,8", "--points=576", "--seeds=3", *_META_PINN),
    "figure5": ("--points=576", "--steps=1000", "--seeds=3", *_META_PINN),
    "overthrust": (
        "--frequencies=5",
        "--points=576",
        "--steps=300",
        "--seeds=1",
        *_META_PINN,
    ),
    "marmousi": (
        "--frequencies=5",
        "--points=576",
        "--steps=300",
        "--seeds=1",
        *_META_PINN,
    ),
    "held_tasks": ("--points=1024", "--seeds=1", *_META_PINN),
    "maml": ("--maml_seconds=150", "--maml_steps=10,50", "--seeds=1"),
    "metric": ("--seeds=1",),
    "ablate_meta": ("--points=576", "--seeds=2"),
    "rank_sweep": ("--frequencies=3,6", "--points=576", "--steps=200", "--seeds=1"),
    "out_of_distribution": (
        "--frequencies=5,8,12,16",
        "--points=576",
        "--steps=200",
        "--seeds=1",
    ),
    "dynamic_rank": ("--points=576", "--steps=180", "--seeds=1"),
    "sharp_models": ("--points=576", "--steps=100", "--seeds=1"),
    "accelerator": (
        "--accelerator_repeats=3",
        "--accelerator_velocities=5",
        "--accelerator_sources=4",
        "--torch",
    ),
    "scaling_3d": (),
    "accuracy": (),
    "absorbing_layer": ("--frequencies=5",),
    "comparison": (
        "--frequencies=4,5,8,10",
        "--fractions=1,1.4",
        "--most_waves=1000",
        "--published",
    ),
    "speed": ("--cube",),
    "inversion": (
        "--models=layered,marmousi",
        "--frequencies=3,4,6,8",
        "--iterations=12",
    ),
    "trust": (),
    "calibration": (),
    "cost_curve": ("--curve_cases=layered,half-spaces",),
}
_OPTIONAL = ("seeds", "preset", "frequencies")
_OF_STUDY = tuple(flag.name for flag in FLAGS.flags_by_module_dict()[study.__name__])
WITHOUT_STUDY = (
    "absorbing_layer",
    "accelerator",
    "accuracy",
    "calibration",
    "cost_curve",
    "inversion",
    "maml",
    "speed",
    "trust",
)
MARKERS = ("<!-- table:begin -->", "<!-- table:end -->")


def command(name: str) -> list[str]:
    """The command line of an experiment."""
    shared = {"out": FLAGS.out, "data": FLAGS.data}
    for flag in (*_OPTIONAL, *(() if name in WITHOUT_STUDY else _OF_STUDY)):
        if FLAGS[flag].present:
            value = FLAGS[flag].value
            shared[flag] = ",".join(value) if isinstance(value, list) else value
    options = [f"--{flag}={value}" for flag, value in shared.items()]
    return [sys.executable, "-m", f"experiments.{name}", *EXPERIMENTS[name], *options]


def chosen() -> list[str]:
    """Those of --only, in the order of `EXPERIMENTS`."""
    if FLAGS.only is None:
        return list(EXPERIMENTS)
    unknown = [name for name in FLAGS.only if name not in EXPERIMENTS]
    if unknown:
        raise ValueError(
            f"--only takes some of {', '.join(EXPERIMENTS)}, got {unknown[0]!r}"
        )
    return [name for name in EXPERIMENTS if name in FLAGS.only]


def run_one(name: str) -> dict[str, float]:
    """Run an experiment; its exit code and seconds."""
    print(f"=== {name}", flush=True)
    began = time.perf_counter()
    code = subprocess.run(command(name), check=False).returncode
    seconds = time.perf_counter() - began
    print(f"=== {name}: exit code {code}, {seconds:.0f} s", flush=True)
    return {"exit_code": code, "seconds": seconds}


def write_page(page: Path, report: str) -> None:
    """Replace what stands between the markers of a page.

    Raises:
        ValueError: if the page does not have each marker once, in order.
    """
    begin, end = MARKERS
    text = page.read_text()
    if text.count(begin) != 1 or text.count(end) != 1:
        raise ValueError(f"{page} must have {begin} and {end} once each")
    head, _, rest = text.partition(begin)
    _, found, tail = rest.partition(end)
    if not found:
        raise ValueError(f"{page} has {end} before {begin}")
    partial = page.with_suffix(".partial")
    partial.write_text(f"{head}{begin}\n{report.strip()}\n{end}{tail}")
    os.replace(partial, page)


def summary(rows: Sequence[dict]) -> str:
    """Markdown: a line per experiment, whenever it ran, and where its table is.

    Args:
        rows: Name, exit code and seconds of each run, in order.
    """
    lines = []
    for name in EXPERIMENTS:
        own = [row for row in rows if row["name"] == name]
        file = Path(FLAGS.out) / name / "table.md"
        link = f"[table]({name}/table.md)" if file.exists() else ""
        if not own:
            lines.append([name, "not run", "", link])
            continue
        code = own[-1]["exit_code"]
        state = "done" if code == 0 else f"failed, exit code {code}"
        lines.append([name, state, f"{sum(row['seconds'] for row in own):.0f}", link])
    columns = ("experiment", "last run", "seconds of all runs", "table")
    return common.table(columns, lines)


def main() -> None:
    """Runs the experiments, and writes the summary after each.

    Raises:
        SystemExit: with code 1 when one failed.
    """
    names = chosen()
    out = Path(FLAGS.out)
    out.mkdir(parents=True, exist_ok=True)
    records = common.Records(out / "runs.csv", ("name", "run"))
    codes = []
    for name in names:
        before = sum(row["name"] == name for row in records.rows)
        (row,) = records.ensure(
            {"name": name, "run": before}, lambda name=name: [run_one(name)]
        )
        codes.append(row["exit_code"])
        if FLAGS.docs is not None and row["exit_code"] == 0:
            report = (out / name / "table.md").read_text()
            write_page(Path(FLAGS.docs) / f"{name}.md", report)
        partial = out / "summary.partial"
        partial.write_text(summary(records.rows) + "\n")
        os.replace(partial, out / "summary.md")
    print(summary(records.rows), flush=True)
    if any(codes):
        raise SystemExit(1)


if __name__ == "__main__":
    scripts.run(main)
