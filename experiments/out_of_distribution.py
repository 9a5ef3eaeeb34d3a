"""Where the meta-initialisation stops helping: beyond its frequencies and velocities.

The shipped initialisation was trained at 2.5 to 8 Hz on velocities of 1.5 to 5 km/s.
Cheng and Alkhalifah (2025) adapt theirs at 18 Hz, 1.2 times the largest frequency of its
training, and see the wavefield improve, then degrade. Put to the test on the built-in
layered model (1.5 to 4 km/s):

- frequencies inside the range (5 and 8 Hz), at 1.1 and 1.25 times the largest (8.8 and
  10 Hz), and beyond (12 Hz);
- velocities times 0.7 (from 1.05 km/s) and 1.5 (to 6 km/s), at 5 Hz and, as a control,
  at the frequency that leaves all wavelengths as they were (3.5 and 7.5 Hz): what is lost
  there is lost to the velocities, the rest to shorter or longer waves.

Meta-LRPINN and the same network from random parameters adapt side by side, by AdamW; the
smallest error on the way stands beside that at the end, so that a field that degrades is
seen. Exact solves that are not adapted stand below: of them the features, too, were
trained, the plane waves not.

At the defaults (192 wide, points by the wavelength, 500 steps, three seeds, nine cases)
an hour and a half on one core.
"""

import dataclasses
import functools

import numpy as np
from absl import flags

from experiments import common, histories, reports, study
from meta_lrpinn import generators
from meta_lrpinn.runtime import scripts

FLAGS = flags.FLAGS
NAME = "out_of_distribution"
flags.DEFINE_list("ood_velocity_scales", ["0.7", "1.5"], "Factors of the velocities.")
flags.DEFINE_float("ood_frequency", 5.0, "Of the scaled velocities, Hz.")

STEPS = 500
FREQUENCIES = (5, 8, 8.8, 10, 12)
LOWEST, HIGHEST = 2.5, 8.0  # Hz, of the shipped initialisation's training
SLOWEST, FASTEST = 1.5, 5.0  # km/s
META, RANDOM = "Meta-LRPINN", "LRPINN, random start"


@dataclasses.dataclass(frozen=True)
class Setting:
    """The layered model, its velocities times a factor, at a frequency in Hz."""

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

    @property
    def name(self) -> str:
        """Of the case."""
        return f"velocity × {self.scale:g}, {self.frequency:g} Hz"

    def case(self) -> study.Case:
        """With the known wavefield."""
        model = generators.builtin("layered")
        model = model.replace_velocity(self.scale * model.velocity)
        return study.known_case(model, self.frequency)


def settings() -> list[Setting]:
    """All settings, those of frequency first."""
    found = [Setting(1.0, float(f)) for f in common.frequencies(FREQUENCIES)]
    for scale in map(float, FLAGS.ood_velocity_scales):
        if not scale > 0:
            raise ValueError(f"velocity scales must be positive, got {scale}")
        own = FLAGS.ood_frequency
        note = f"wavelengths of {own:g} Hz unscaled"
        found.append(Setting(scale, own))
        found.append(Setting(scale, scale * own, note))
    return found


def report(curves: histories.Curves) -> str:
    """Markdown: a row per setting, the smallest error of each start and that at the end."""
    lines = []
    for setting in settings():
        cells, ends = [], []
        for name in (META, RANDOM):
            runs = curves[setting.name, name]
            best = [min(rows, key=lambda row: row["relative_l2"]) for rows in runs]
            last = [rows[-1] for rows in runs]
            cells += [
                common.spread([100 * row["relative_l2"] for row in best], " %"),
                common.spread([row["step"] for row in best]),
                common.spread([100 * row["relative_l2"] for row in last], " %"),
            ]
            ends.append(np.mean([row["relative_l2"] for row in last]))
        model = generators.builtin("layered")
        speeds = f"{setting.scale * model.minimum:.2f}–{setting.scale * model.maximum:.2f}"
        note = f" ({setting.note})" if setting.note else ""
        lines.append(
            [speeds, f"{setting.frequency:g}{note}", setting.trained, *cells,
             float(ends[1] / ends[0])]
        )  # fmt: skip
    columns = [
        f"{name}: {what}"
        for name in (META, RANDOM)
        for what in ("smallest error", "at step", "at the end")
    ]
    columns = ["km/s", "Hz", "of training", *columns, "random over meta, at the end"]
    return (
        f"{common.table(columns, lines)}\n\nBuilt-in layered model, its velocities "
        f"scaled. Training, of the shipped initialisation: {LOWEST:g}–{HIGHEST:g} Hz, "
        f"{SLOWEST:g}–{FASTEST:g} km/s."
    )


def main() -> None:
    """Measures what is missing, then writes tables and figures."""
    cases = {setting.name: functools.cache(setting.case) for setting in settings()}
    every = study.contenders()
    chosen = {name: every[name] for name in (META, RANDOM)}
    curves = study.run(NAME, cases, chosen, FLAGS.steps or STEPS)
    reports.publish(NAME, cases, curves, lead=report(curves))


if __name__ == "__main__":
    scripts.run(main)
