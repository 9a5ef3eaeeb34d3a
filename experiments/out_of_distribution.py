"""Where the meta-initialisation stops helping: beyond its frequencies and velocities.

The shipped initialisation was trained at 2.5 to 8 Hz on velocities of 1.5 to 5 km/s.
Cheng and Alkhalifah (2025) report that theirs generalises to frequencies and velocities
that it was not trained on. Put to the test on the built-in layered model (1.5 to 4 km/s):

- frequencies inside the range (3, 5, 8 Hz) and beyond (12, 16, 18 Hz);
- velocities times 0.7 (from 1.05 km/s) and 1.5 (to 6 km/s), at 5 Hz and, as a control,
  at the frequency that leaves all wavelengths as they were (3.5 and 7.5 Hz): what is lost
  there is lost to the velocities, the rest to shorter or longer waves.

Relative L2 error against finite differences of the own output of Meta-LRPINN after
--steps of adaptation and of a random start after the same steps; of an exact solve over
the features of the shipped initialisation for that; and of plane waves, which are not
trained at all. A seed is a place of the source along the top,
a draw of the collocation points and of the random start.

At the defaults (192 wide, 1,600 points, 500 steps, three seeds, ten cases) two hours on
one core.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from absl import flags
from matplotlib.figure import Figure

import meta_lrpinn as ml
from experiments import common, histories, study
from meta_lrpinn import generators
from meta_lrpinn.runtime import scripts

FLAGS = flags.FLAGS
NAME = "out_of_distribution"
flags.DEFINE_list("ood_velocity_scales", ["0.7", "1.5"], "Factors of the velocities.")
flags.DEFINE_float("ood_frequency", 5.0, "Of the scaled velocities, Hz.")

STEPS = 500
INSIDE, OUTSIDE = (3, 5, 8), (12, 16, 18)
LOWEST, HIGHEST = 2.5, 8.0  # Hz, of the shipped initialisation's training
SLOWEST, FASTEST = 1.5, 5.0  # km/s
PLANE_WAVES, FEATURES = "plane waves", "meta-learned features, 0 steps"
META, RANDOM = "Meta-LRPINN, adapted", "random start, adapted"

Errors = Mapping[tuple["Setting", str], Sequence[float]]  # per seed


@dataclasses.dataclass(frozen=True)
class Setting:
    """The layered model, its velocities times a factor, at a frequency in Hz."""

    group: str  # "frequency" or "velocity"
    scale: float
    frequency: float
    note: str = ""

    @property
    def trained(self) -> str:
        """What of it lies beyond training, or "inside"."""
        model = generators.builtin("layered")
        slowest, fastest = self.scale * model.minimum, self.scale * model.maximum
        beyond = []
        if not LOWEST <= self.frequency <= HIGHEST:
            beyond.append("frequency")
        if slowest < 0.99 * SLOWEST or fastest > 1.01 * FASTEST:
            beyond.append("velocity")
        return f"beyond in {' and '.join(beyond)}" if beyond else "inside"

    def case(self, seed: int) -> study.Case:
        """With the source of a seed and the known wavefield."""
        model = generators.builtin("layered")
        model = model.replace_velocity(self.scale * model.velocity)
        source = study.top_source(model, seed)
        return study.known_case(model, self.frequency, source)


def settings() -> list[Setting]:
    """All settings, those of frequency first."""
    found = [
        Setting("frequency", 1.0, float(f)) for f in common.frequencies(INSIDE + OUTSIDE)
    ]
    for scale in map(float, FLAGS.ood_velocity_scales):
        if not scale > 0:
            raise ValueError(f"velocity scales must be positive, got {scale}")
        own = FLAGS.ood_frequency
        note = f"wavelengths of {own:g} Hz unscaled"
        found.append(Setting("velocity", scale, own))
        found.append(Setting("velocity", scale, scale * own, note))
    return found


def contenders(steps: int) -> dict[str, tuple[study.Contender | None, int]]:
    """Name to contender, None for plane waves, and its steps."""
    meta = study.Contender(study.meta_start)
    random = study.Contender(study.random_start())
    return {
        FEATURES: (study.Contender(study.feature_start), 0),
        META: (meta, steps),
        RANDOM: (random, steps),
        PLANE_WAVES: (None, 0),
    }


def error_of(
    case: study.Case, contender: study.Contender | None, steps: int, seed: int
) -> histories.Row:
    """The error of a contender after some steps, or of plane waves."""
    if contender is not None:
        method = study.METHOD if steps else "galerkin"
        return study.final_error(case, contender, method, steps, seed)
    field = ml.solve(case.model, case.frequency, case.source)
    error = ml.relative_l2(field.scattered, case.scattered)
    return {"relative_l2": error, "seconds": field.elapsed}


def measure(steps: int) -> dict[tuple[Setting, str], list[float]]:
    """Errors of all settings and contenders; what is on file is not run again."""
    keys = (
        "scale", "frequency", "contender", "steps", "points", "init", "seed"
    )  # fmt: skip
    records = common.Records(common.folder(NAME) / "errors.csv", keys)
    chosen, errors = contenders(steps), {}
    for setting in settings():
        for seed in range(FLAGS.seeds):
            known: list[study.Case] = []  # made if it is needed
            for name, (contender, number) in chosen.items():

                def run(
                    contender=contender, number=number, setting=setting, seed=seed,
                    known=known,
                ):  # fmt: skip
                    if not known:
                        known.append(setting.case(seed))
                    return [error_of(known[0], contender, number, seed)]

                values = (
                    setting.scale, setting.frequency, name, number, FLAGS.points,
                    study.initialisation(), seed,
                )  # fmt: skip
                rows = records.at(values, run)
                errors.setdefault((setting, name), []).extend(
                    row["relative_l2"] for row in rows
                )
    return errors


def report(errors: Errors, steps: int) -> str:
    """Markdown: a row per setting, and where adaptation degrades."""
    names = list(dict.fromkeys(name for _, name in errors))
    lines = []
    for setting in dict.fromkeys(setting for setting, _ in errors):
        model = generators.builtin("layered")
        low, high = setting.scale * model.minimum, setting.scale * model.maximum
        gain = np.divide(errors[setting, RANDOM], errors[setting, META])
        lines.append(
            [
                f"{low:.2f}–{high:.2f}",
                f"{setting.frequency:g}" + (f" ({setting.note})" if setting.note else ""),
                setting.trained,
                *(
                    common.spread([100 * e for e in errors[setting, name]], " %")
                    for name in names
                ),
                common.spread(gain),
            ]
        )
    columns = ["km/s", "Hz", "of training", *names, "random over meta"]
    return (
        f"{common.table(columns, lines)}\n\nBuilt-in layered model, its velocities scaled; "
        f"{common.over_seeds()} (sources, points and random starts); {FLAGS.points} "
        f"points, {steps} steps where adapted, "
        f"initialisation {study.initialisation()}. Training, of the shipped one: "
        f"{LOWEST:g}–{HIGHEST:g} Hz, {SLOWEST:g}–{FASTEST:g} km/s. nan: diverged."
    )


def draw(errors: Errors) -> Figure:
    """Error against frequency, and for each scaled velocity."""
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    names = list(dict.fromkeys(name for _, name in errors))
    groups = {
        group: [s for s in dict.fromkeys(s for s, _ in errors) if s.group == group]
        for group in ("frequency", "velocity")
    }
    labels = [f"× {s.scale:g}\n{s.frequency:g} Hz" for s in groups["velocity"]]
    for index, name in enumerate(names):
        for axes, own in ((left, groups["frequency"]), (right, groups["velocity"])):
            if not own:
                continue
            values = np.array([errors[setting, name] for setting in own])
            along = [s.frequency for s in own] if axes is left else range(len(own))
            mean = values.mean(axis=1)
            spread = [mean - values.min(axis=1), values.max(axis=1) - mean]
            style = "o-" if axes is left else "o"
            axes.errorbar(
                along, mean, spread, fmt=style, color=histories.color(index), label=name,
                capsize=3,
            )  # fmt: skip
    left.axvspan(LOWEST, HIGHEST, color="0.93", zorder=0, label="trained on")
    left.set(yscale="log", xlabel="Hz", ylabel="relative L2 error", title="Frequency")
    right.set_xticks(range(len(labels)), labels)
    right.set(title="Velocities scaled")
    left.legend(frameon=False, fontsize=8)
    return figure


def main() -> None:
    """Measures what is missing, then writes table and figure."""
    steps = FLAGS.steps or STEPS
    errors = measure(steps)
    common.save_report(NAME, report(errors, steps))
    draw(errors).savefig(common.folder(NAME) / "figure.png", dpi=150)


if __name__ == "__main__":
    scripts.run(main)
