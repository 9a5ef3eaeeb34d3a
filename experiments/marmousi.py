"""Windows of Marmousi: does what was meta-learned on random layers carry over to it?

The paper proposes the test without making it. Measured are error and loss along the
adaptation, by step and by second, on windows of 2.25 x 2.25 km of Marmousi on a grid of
25 m, beside solves that need no adaptation.

By default 2 windows, 6 frequencies, 5 contenders (two more by --meta_pinn and by each of
--beside), 3 seeds and 500 steps of 1,600 points, errors of the networks' own output:
about three hours on one core. The model comes from
the data folder.
"""

import functools

from absl import flags

from experiments import common, reports, study
from meta_lrpinn.runtime import scripts

FLAGS = flags.FLAGS
NAME = "marmousi"
FREQUENCIES = (3, 4, 5, 6, 8, 10)
STEPS = 500
# Left and top, km: the faults and thin layers of the middle, and the calm left.
WINDOWS = {"faults": (5.0, 0.0), "left": (1.5, 0.0)}


def make_case(window: str, frequency: float) -> study.Case:
    """A window at a frequency."""
    model = study.square_window("marmousi", *WINDOWS[window])
    return study.known_case(model, frequency)


def make_cases(frequencies: list[float]) -> dict[str, functools.partial]:
    """A case per window and frequency, made when it is needed."""
    cached = functools.cache(make_case)
    return {
        f"Marmousi {window}, {f:g} Hz": functools.partial(cached, window, f)
        for window in WINDOWS
        for f in frequencies
    }


def main() -> None:
    """Measures what is missing, then writes tables and figures."""
    cases = make_cases(common.frequencies(FREQUENCIES))
    chosen = study.contenders()
    chosen.pop("Meta-LRPINN, hypernetwork kept")
    curves = study.run(NAME, cases, chosen, FLAGS.steps or STEPS)
    reports.publish(NAME, cases, curves)


if __name__ == "__main__":
    scripts.run(main)
