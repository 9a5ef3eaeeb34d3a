"""Overthrust: adaptation to a model unlike those of meta-training.

The paper's claim: what was meta-learned on layered models carries over to a part of
Overthrust, smoothed, at frequencies up to the highest of training. Measured are error
and loss along the adaptation, by step and by second, on a window of 2.25 x 2.25 km
through its faulted anticline, smoothed and as it is, beside solves that need no
adaptation; and at one frequency the wavefields themselves.

By default 4 frequencies, 2 models, 5 contenders (whether the hypernetwork is kept is
left to `layered`; two more by --meta_pinn and by each of --beside), 3 seeds and 500
steps of points by the wavelength, errors of the networks' own output: about an hour and
a half on one core. The model comes from the data folder.
"""

import functools

from absl import flags

from experiments import common, panels, reports, study
from meta_lrpinn.runtime import scripts

FLAGS = flags.FLAGS
flags.DEFINE_float("overthrust_left", 6.5, "Where the window begins, km.")
flags.DEFINE_float(
    "overthrust_smoothing", 0.1, "Of the smoothed model, km.", lower_bound=0.0
)
flags.DEFINE_float("shown_frequency", None, "Of the panels; default: the middle one.")

NAME = "overthrust"
FREQUENCIES = (3, 5, 8, 12)
STEPS = 500


def make_case(smoothing: float, frequency: float) -> study.Case:
    """The window, smoothed or not."""
    model = study.square_window("overthrust", FLAGS.overthrust_left, 0.0, smoothing)
    return study.known_case(model, frequency)


def make_cases(frequencies: list[float]) -> dict[str, functools.partial]:
    """A case per model and frequency, made when it is needed."""
    cached = functools.cache(make_case)
    models = {"smoothed": FLAGS.overthrust_smoothing, "as it is": 0.0}
    return {
        f"Overthrust {model}, {f:g} Hz": functools.partial(cached, smoothing, f)
        for model, smoothing in models.items()
        for f in frequencies
    }


def main() -> None:
    """Measures what is missing, then writes tables and figures."""
    frequencies = common.frequencies(FREQUENCIES)
    cases = make_cases(frequencies)
    steps = FLAGS.steps or STEPS
    chosen = study.contenders()
    chosen.pop("Meta-LRPINN, hypernetwork kept", None)
    seeds = dict(zip(cases, 2 * [study.seeds_at(f) for f in frequencies], strict=True))
    curves = study.run(NAME, cases, chosen, steps, seeds=seeds)
    window = (
        f"Window from x = {FLAGS.overthrust_left:g} km; smoothed: slowness by a "
        f"Gaussian of {1000 * FLAGS.overthrust_smoothing:g} m."
    )
    reports.publish(NAME, cases, curves, window)
    shown = FLAGS.shown_frequency or sorted(frequencies)[len(frequencies) // 2]
    panels.save_wavefields(NAME, make_cases([shown]), chosen, steps)


if __name__ == "__main__":
    scripts.run(main)
