"""Random tasks that meta-training never drew: how many steps the meta-start saves.

The paper's claim is about the distribution of tasks: from the meta-initialisation a new
task of it converges in hundreds of steps or fewer, from a random start in thousands. Here
one random velocity of meta-training's kind, 2.25 x 2.25 km at 25 m, stands at each of six
frequencies, its source at a random place of the top. Measured are error and loss along
the adaptation, of the networks' own output, beside solves that need no adaptation.

By default 6 tasks, 6 contenders (two more by --meta_pinn and by each of --beside),
3 seeds and 300 steps of points by the wavelength: an hour on one core.
"""

import functools

from absl import flags

from experiments import common, reports, study
from meta_lrpinn import generators
from meta_lrpinn.runtime import scripts

FLAGS = flags.FLAGS
NAME = "held_tasks"
FREQUENCIES = (3, 4, 5, 6, 7, 8)
STEPS = 300
# Of velocities and sources; training draws its seeds from another range.
_SEED = 2**31
_SHAPE, _SPACING = (91, 91), 0.025


def make_case(index: int, frequency: float) -> study.Case:
    """A random velocity at a frequency [Hz]."""
    model = generators.random_velocity(_SEED + index, _SHAPE, _SPACING)
    return study.known_case(model, frequency, study.top_source(model, _SEED + index))


def main() -> None:
    """Measures what is missing, then writes tables and figures."""
    cases = {
        f"random velocity {index + 1}, {frequency:g} Hz": functools.partial(
            make_case, index, frequency
        )
        for index, frequency in enumerate(common.frequencies(FREQUENCIES))
    }
    curves = study.run(NAME, cases, study.contenders(), FLAGS.steps or STEPS)
    reports.publish(NAME, cases, curves)


if __name__ == "__main__":
    scripts.run(main)
