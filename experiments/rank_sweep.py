"""How much rank a wavefield needs, from low frequencies to high ones.

Cheng and Alkhalifah (2025) cut 50 to 90 % of the singular values of the pruned network
at little cost in accuracy, and expect higher frequencies to need more of them. Put to
the test: the meta-initialisation, pruned at each frequency and truncated to each rank
and by 50, 70 and 90 %, then adapted for --steps by AdamW on everything; relative L2 error
of the own output on the built-in layered model against finite differences. The smallest
viable rank of a frequency is the smallest with a mean error within 1.2 times the full
rank's; there is none where full rank itself has more than 50 %. A seed is a place of the
source along the top and a draw of the collocation points.

At the defaults (ranks 6 to 64 of a network 192 wide, 3 to 12 Hz, points by the wavelength,
300 steps, three seeds) an hour on one core.
"""

import functools
from collections.abc import Mapping, Sequence

import numpy as np
from absl import flags
from matplotlib.figure import Figure

from experiments import common, histories, study
from meta_lrpinn import generators
from meta_lrpinn.learning.networks import Network
from meta_lrpinn.runtime import scripts

FLAGS = flags.FLAGS
NAME = "rank_sweep"
flags.DEFINE_list("ranks", ["10", "25", "50", "full"], "Ranks to truncate to.")
flags.DEFINE_list(
    "rank_fractions", ["0.5", "0.3", "0.1"], "Fractions of the rank to keep, as well."
)

STEPS = 300
FREQUENCIES = (3, 5, 6, 8, 10, 12)
_VIABLE, _USELESS = 1.2, 0.5
Errors = Mapping[tuple[float, int, int], Sequence[float]]  # (Hz, rank, steps) → per seed
Costs = Mapping[tuple[float, int], Sequence[histories.Row]]  # (Hz, rank) → per seed


def ranks(full: int) -> list[int]:
    """Those of --ranks and --rank_fractions, sorted; full rank is always among them."""
    chosen = {full}
    for text in FLAGS.ranks:
        rank = full if text == "full" else int(text)
        if rank < 1:
            raise ValueError(f"ranks must be positive, got {rank}")
        if rank <= full:  # the paper's list also serves smaller networks
            chosen.add(rank)
    return sorted(chosen | {_kept(full, float(text)) for text in FLAGS.rank_fractions})


def _kept(full: int, fraction: float) -> int:
    if not 0 < fraction <= 1:
        raise ValueError(f"rank fractions must be above 0, at most 1, got {fraction}")
    return max(1, round(fraction * full))  # as `models.truncate`


def truncated(frequency: float, rank: int) -> Network:
    """The initialisation pruned at a frequency and truncated to a rank."""
    return study.meta_start().prune(frequency).truncate(count=rank)


@functools.cache
def case_of(frequency: float, seed: int) -> study.Case:
    """The layered model with the source of a seed, and the known wavefield."""
    model = generators.builtin("layered")
    return study.known_case(model, frequency, study.top_source(model, seed))


def measure(frequency: float, rank: int, steps: int, seed: int) -> list[histories.Row]:
    """Error of one truncated network, as it is or adapted."""
    network = truncated(frequency, rank)
    contender = study.Contender(lambda _: network)
    case = case_of(frequency, seed)
    return [study.final_error(case, contender, study.METHOD, steps, seed)]


def smallest_viable(errors: Errors, frequency: float, steps: int) -> int | None:
    """Smallest rank about as good as full rank; None where full rank is useless."""
    own = {
        rank: np.mean(values)
        for (other, rank, number), values in errors.items()
        if (other, number) == (frequency, steps)
    }
    full = own[max(own)]
    if not full <= _USELESS:
        return None
    return min(rank for rank, error in own.items() if error <= _VIABLE * full)


def costs_of(costs: Costs) -> str:
    """Markdown: what every rank takes at every frequency."""
    names = ("drawn", "parameters", "seconds", "memory")
    lines = [
        [f"{frequency:g}", rank, *histories.costs([[row] for row in rows], *names)]
        for (frequency, rank), rows in costs.items()
    ]
    columns = ("Hz", "rank", "points", "parameters", "processor seconds", "memory, MB")
    return common.table(columns, lines)


def report(errors: Errors, costs: Costs, width: int) -> str:
    """Markdown: error by frequency and rank, what it costs, then what reduction costs."""
    frequencies, sizes, numbers = (
        list(dict.fromkeys(key[i] for key in errors)) for i in range(3)
    )
    full, parts = max(sizes), []
    for steps in numbers:
        lines = []
        for frequency in frequencies:
            smallest = smallest_viable(errors, frequency, steps)
            cells = [
                common.spread([100 * e for e in errors[frequency, rank, steps]], " %")
                for rank in sizes
            ]
            viable = "none: full rank fails" if smallest is None else smallest
            lines.append([f"{frequency:g}", *cells, viable])
        columns = ["Hz", *(f"rank {rank}" for rank in sizes), "smallest viable rank"]
        title = f"{steps} steps"
        parts.append(f"{title}:\n\n{common.table(columns, lines)}")
    parts.append(f"What a rank takes:\n\n{costs_of(costs)}")
    lines = []
    for fraction in map(float, FLAGS.rank_fractions):
        rank = _kept(full, fraction)
        for steps in numbers:
            ratio = [
                np.divide(errors[f, rank, steps], errors[f, full, steps])
                for f in frequencies
            ]
            cells = [common.spread(values) for values in ratio]
            lines.append([f"{1 - fraction:.0%}", rank, steps, *cells])
    columns = ["reduction", "rank", "steps", *(f"{f:g} Hz" for f in frequencies)]
    parts.append(f"Error over that of full rank:\n\n{common.table(columns, lines)}")
    parts.append(
        f"Built-in layered model; {common.over_seeds()} (sources and points); {width} "
        f"wide, points {study.points_asked()}. Viable: mean error "
        f"within {_VIABLE:g} times that of rank {full}, where that is at most "
        f"{_USELESS:.0%}; nan: diverged."
    )
    return "\n\n".join(parts)


def draw(errors: Errors) -> Figure:
    """Error against rank, a line per frequency, mean and range over seeds."""
    numbers = list(dict.fromkeys(steps for *_, steps in errors))
    figure = Figure(figsize=(5 * len(numbers), 4), layout="constrained")
    panels = figure.subplots(1, len(numbers), squeeze=False, sharey=True)[0]
    frequencies = list(dict.fromkeys(frequency for frequency, *_ in errors))
    for axes, steps in zip(panels, numbers, strict=True):
        for index, frequency in enumerate(frequencies):
            own = [
                (rank, values)
                for (other, rank, number), values in errors.items()
                if (other, number) == (frequency, steps)
            ]
            along, values = [rank for rank, _ in own], np.array([v for _, v in own])
            color = histories.color(index)
            label = f"{frequency:g} Hz"
            axes.semilogy(along, values.mean(axis=1), "o-", color=color, label=label)
            low, high = values.min(axis=1), values.max(axis=1)
            axes.fill_between(along, low, high, color=color, alpha=0.2, lw=0)
        title = f"{steps} steps"
        axes.set(xlabel="rank", title=title)
        axes.axhline(1, color="0.8", lw=0.8, zorder=0)
    panels[0].set_ylabel("relative L2 error")
    lines, labels = panels[0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside right upper", frameon=False)
    return figure


def main() -> None:
    """Measures what is missing, then writes tables and figure."""
    network = study.meta_start()
    full, init = min(network.ranks), common.fingerprint(network)
    steps = FLAGS.steps or STEPS
    keys = ("frequency", "rank", "steps", "points", "init", "seed")
    records = common.Records(common.folder(NAME) / "errors.csv", keys)
    errors: dict[tuple[float, int, int], list[float]] = {}
    costs: dict[tuple[float, int], list[histories.Row]] = {}
    for frequency in common.frequencies(FREQUENCIES):
        for rank in ranks(full):
            for seed in range(FLAGS.seeds):
                values = (frequency, rank, steps, study.points_asked(), init, seed)
                rows = records.at(values, lambda: measure(frequency, rank, steps, seed))
                errors.setdefault((frequency, rank, steps), []).extend(
                    row["relative_l2"] for row in rows
                )
                costs.setdefault((frequency, rank), []).extend(rows)
    common.save_report(NAME, report(errors, costs, network.module.network.width))
    draw(errors).savefig(common.folder(NAME) / "figure.png", dpi=150)


if __name__ == "__main__":
    scripts.run(main)
