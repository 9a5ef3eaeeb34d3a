"""Every experiment in turn, each in its own process, with a summary of all.

Each has the settings of its page, docs/results/<name>.md. With --docs=docs/results an
experiment that succeeds writes three parts of its page, each between markers of its own:
its report, its figures (copied to docs/figures), and version, commit and day of the code
that made them. All else on the page stays as it is; its verdict is to be read again.

--list runs nothing. It shows for each page the code that its figures were made by, and how
many commits have changed the package or the experiment since.

The flags that all experiments share (--out, --seeds, --data, --frequencies) are passed on
as given, and those of adaptation (--init, --meta_pinn, --beside, --steps, --points) to
the experiments that have them.

Each experiment keeps its measurements, so that this script, started again after a stop,
goes on. One that fails does not stop the others, but the exit code is then 1. The
summary, <out>/summary.md, links the tables and states exit codes and seconds; of an
experiment run several times, the seconds of all runs together.

In all some five hours on one core. --only=layered,baselines runs a part.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from absl import flags

from experiments import common, study
from meta_lrpinn.runtime import scripts

FLAGS = flags.FLAGS
flags.DEFINE_list("only", None, "Experiments to run; default: all.")
flags.DEFINE_string("docs", None, "Folder of pages whose figures are written again.")
flags.DEFINE_bool("list", False, "Only show which code made the figures of each page.")

# Beside the default, which MAML has trained: the same network and the dense one, both
# trained by Reptile, on 3,000 and 2,500 tasks.
_REPTILE = ("--beside=meta_lrpinn_reptile", "--meta_pinn=meta_pinn")
# Each with the settings of its page in docs/results, which flags given here override.
EXPERIMENTS = {
    "baselines": (),
    "layered": ("--steps=250", "--one_seed_from=12", *_REPTILE),
    "figure5": ("--points=576", "--steps=1000", "--seeds=3", *_REPTILE),
    "overthrust": ("--steps=200", "--one_seed_from=12", *_REPTILE),
    "marmousi": (
        "--frequencies=5",
        "--points=576",
        "--steps=300",
        "--seeds=1",
        *_REPTILE,
    ),
    "held_tasks": ("--seeds=1", *_REPTILE),
    "maml": ("--maml_seconds=160", "--maml_algorithms=0,1,3,5,6", "--maml_steps=10,50"),
    "metric": ("--seeds=1",),
    "ablate_meta": ("--seeds=2",),
    "rank_sweep": ("--ranks=10,full", "--steps=200", "--seeds=2"),
    "out_of_distribution": ("--steps=300", "--seeds=2"),
    "dynamic_rank": ("--seeds=1",),
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
    "inversion": ("--models=layered,marmousi", "--frequencies=3,4,6,8", "--iterations=12"),
    "trust": (),
    "calibration": (),
    "cost_curve": ("--curve_cases=layered,half-spaces",),
}
_OPTIONAL = ("seeds", "frequencies")
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
PARTS = ("figure", "table", "made")  # of a page, between markers
# What a page shows of what its experiment draws: file and caption.
FIGURES = {
    "baselines": {"figure": "Error at held tasks in meta-training"},
    "layered": {
        "wavefields": "Velocity, reference, adapted wavefields and their differences",
        "figure": "Error against steps of adaptation",
    },
    "figure5": {"figure": "Error against steps of adaptation"},
    "overthrust": {
        "wavefields": "Velocity, reference, adapted wavefields and their differences",
        "figure": "Error against steps of adaptation",
    },
    "marmousi": {"figure": "Error against steps of adaptation"},
    "held_tasks": {"figure": "Error against steps of adaptation"},
    "maml": {"figure": "Error after adaptation, by meta-training"},
    "metric": {"figure": "Error after adaptation, by what is learned"},
    "ablate_meta": {"figure": "Error against steps, by start and loss"},
    "rank_sweep": {"figure": "Error against rank, by frequency"},
    "out_of_distribution": {"figure": "Error against steps of adaptation"},
    "dynamic_rank": {"figure": "Error against steps of adaptation"},
    "sharp_models": {"figure": "Error against steps of adaptation"},
    "accelerator": {"figure": "Seconds of each task"},
    "scaling_3d": {"figure": "Error against unknowns, and cost of a meta-step"},
    "accuracy": {"figure": "Error against the number of waves; estimate against error"},
    "absorbing_layer": {"figure": "Error against unknowns, by thickness of the layer"},
    "comparison": {"figure": "Error against unknowns and against seconds"},
    "speed": {"figure": "Seconds of each setting and solver"},
    "inversion": {"layered": "Models, profile, misfit and error of the layered inversion"},
    "trust": {"figure": "Error and its estimate, case by case"},
    "calibration": {"figure": "Estimate over error, kind by kind"},
    "cost_curve": {"figure": "Error against seconds"},
}


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


def write_page(page: Path, parts: Mapping[str, str]) -> None:
    """Replace what stands between markers of a page.

    Args:
        page: The file.
        parts: One or more of `PARTS` to its new text.

    Raises:
        ValueError: if the page does not have each marker once, in order.
    """
    text = page.read_text()
    for part, new in parts.items():
        begin, _, end = _find(page, text, part)
        text = f"{text[:begin]}\n{new.strip()}\n{text[end:]}"
    partial = page.with_suffix(".partial")
    partial.write_text(text)
    os.replace(partial, page)


def _find(page: Path, text: str, part: str) -> tuple[int, str, int]:
    """Where the text between the markers of a part begins, the text, where it ends."""
    first, last = f"<!-- {part}:begin -->", f"<!-- {part}:end -->"
    if text.count(first) != 1 or text.count(last) != 1:
        raise ValueError(f"{page} must have {first} and {last} once each")
    begin, end = text.index(first) + len(first), text.index(last)
    if end < begin:
        raise ValueError(f"{page} has {last} before {first}")
    return begin, text[begin:end].strip(), end


def publish(name: str, out: Path, docs: Path) -> None:
    """Write the report, the figures and the code that made them into a page.

    Args:
        name: The experiment.
        out: Its output folder.
        docs: Folder of the pages; figures go to `figures` beside it.
    """
    figures = docs.parent / "figures"
    figures.mkdir(exist_ok=True)
    shown = []
    for stem, caption in FIGURES[name].items():
        target = figures / f"{name if stem == 'figure' else f'{name}_{stem}'}.png"
        if (out / f"{stem}.png").exists():
            shutil.copyfile(out / f"{stem}.png", target)
        if target.exists():
            shown.append(f"![{caption}](../figures/{target.name})")
    made = " to ".join(common.stamps(out))
    parts = {
        "figure": "\n\n".join(shown),
        "table": (out / "table.md").read_text(),
        "made": f"<small>Figures made by meta_lrpinn {made}.</small>",
    }
    write_page(docs / f"{name}.md", parts)


def listing(docs: Path) -> str:
    """Markdown: for each page the code that made its figures, and the commits since."""
    lines = []
    for name in EXPERIMENTS:
        page = docs / f"{name}.md"
        _, made, _ = _find(page, page.read_text(), "made")
        # Of a range the older end says how stale the oldest figure can be.
        commit = re.search(r"commit (([0-9a-f]+)(?:-dirty)?)", made)
        days = re.findall(r"\d{4}-\d\d-\d\d", made)
        lines.append(
            [
                name,
                commit[1] if commit else "not recorded",
                " to ".join(days),
                commits_since(commit[2], name) if commit else "",
            ]
        )
    return common.table(("page", "commit", "day", "commits since"), lines)


def commits_since(commit: str, name: str) -> int | str:
    """Number of commits that changed the package or an experiment after a commit."""
    paths = ("meta_lrpinn", "experiments/common.py", "experiments/study.py")
    answer = subprocess.run(
        [
            "git", "rev-list", "--count", f"{commit}..HEAD", "--", *paths,
            f"experiments/{name}.py",
        ],
        cwd=common.ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return int(answer.stdout) if answer.returncode == 0 else "commit not found"


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
    if FLAGS.list:
        print(listing(Path(FLAGS.docs or common.ROOT / "docs" / "results")))
        return
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
            publish(name, out / name, Path(FLAGS.docs))
        partial = out / "summary.partial"
        partial.write_text(summary(records.rows) + "\n")
        os.replace(partial, out / "summary.md")
    print(summary(records.rows), flush=True)
    if any(codes):
        raise SystemExit(1)


if __name__ == "__main__":
    scripts.run(main)
