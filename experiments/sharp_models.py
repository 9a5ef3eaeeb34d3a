"""Sharp and strong contrasts: how much more adaptation do they need?

The paper adapts to smooth and layered models and leaves open what happens at salt and
at faults. Windows of 2.25 x 2.25 km through the salt of Hess and of the Red Sea and
through Marmousi, smoothed and as they are on a grid of 25 m, stand beside the layered
model. The error that the layered model reaches in --steps steps, times 1.1, is the
level; the others get as many steps, and --sharp_more times as many. Measured are the
errors after equal steps, with a random start beside the meta start, and the steps to
the level. Rates decay over a whole adaptation, so each number of steps is an
adaptation of its own.

By default 5 Hz, 7 models, 3 seeds, 200 and 600 steps of 1,600 points, errors of the
networks' own output: about two hours on one core. The models come from the data folder.
"""

import functools
from collections.abc import Callable

import numpy as np
from absl import flags

from experiments import common, histories, layered, reports, study
from meta_lrpinn.runtime import scripts

FLAGS = flags.FLAGS
flags.DEFINE_integer(
    "sharp_more", 3, "The longer adaptation has so many times the steps.", lower_bound=2
)
flags.DEFINE_float("sharp_smoothing", 0.1, "Of the smoothed models, km.", lower_bound=0.0)

NAME = "sharp_models"
FREQUENCIES = (5,)
STEPS = 200
# Name, left and top, km: salt or faults are inside, and the source above them.
WINDOWS = {
    "Hess salt": ("hess", 2.75, 0.5),
    "Red Sea": ("redsea", 2.5, 0.25),
    "Marmousi": ("marmousi", 5.0, 0.0),
}
SLACK = 1.1
META, RANDOM = "Meta-LRPINN", "LRPINN, random start"


def make_window(name: str, smoothing: float, frequency: float) -> study.Case:
    """A window of the data folder."""
    return study.known_case(study.square_window(*WINDOWS[name], smoothing), frequency)


def make_cases(frequency: float) -> dict[str, Callable[[], study.Case]]:
    """The layered model and all windows, made when they are needed."""
    cached = functools.cache(make_window)
    cases = layered.make_cases([frequency])
    for name in WINDOWS:
        for what, smoothing in (("smoothed", FLAGS.sharp_smoothing), ("sharp", 0.0)):
            make = functools.partial(cached, name, smoothing, frequency)
            cases[f"{name}, {what}, {frequency:g} Hz"] = make
    return cases


def level(curves: histories.Curves, layered_name: str) -> float:
    """The error to be reached: the layered model's mean at the end, and some slack."""
    ends = [rows[-1]["relative_l2"] for rows in curves[layered_name, META]]
    return SLACK * float(np.nanmean(ends))


def pace(
    cases: dict[str, Callable[[], study.Case]],
    short: histories.Curves,
    long: histories.Curves,
    steps: int,
) -> str:
    """Markdown table: errors at equal steps, and steps to the layered model's level."""
    more = steps * FLAGS.sharp_more
    names = list(cases)
    threshold = level(short, names[0])
    rows = []
    for name in names:
        rows.append(
            [
                name,
                histories.error_at(short[name, RANDOM], steps),
                histories.error_at(short[name, META], steps),
                histories.error_at(long[name, META], more),
                histories.steps_to(short[name, META], threshold),
                histories.steps_to(long[name, META], threshold),
            ]
        )
    columns = (
        "case",
        f"random start, {steps} steps",
        f"meta start, {steps} steps",
        f"meta start, {more} steps",
        f"steps to {threshold:.2%}, of {steps}",
        f"steps to {threshold:.2%}, of {more}",
    )
    return common.table(columns, rows)


def main() -> None:
    """Measures what is missing, then writes tables and figures."""
    steps = FLAGS.steps or STEPS
    cases, sections, short = {}, [], {}
    for frequency in common.frequencies(FREQUENCIES):
        own = make_cases(frequency)
        chosen = study.contenders()
        equal = study.run(NAME, own, {name: chosen[name] for name in (META, RANDOM)}, steps)
        longer = study.run(NAME, own, {META: chosen[META]}, steps * FLAGS.sharp_more)
        sections.append(pace(own, equal, longer, steps))
        cases, short = cases | own, short | equal
    smoothing = f"Smoothed: slowness by a Gaussian of {1000 * FLAGS.sharp_smoothing:g} m."
    reports.publish(NAME, cases, short, *sections, smoothing)


if __name__ == "__main__":
    scripts.run(main)
