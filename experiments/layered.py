"""The layered model: adaptation from the meta-initialisation and from others.

The paper's claim: on a layered model of 2.25 x 2.25 km, which meta-training has not
seen, Meta-LRPINN converges within hundreds of steps at every frequency, faster than
Meta-PINN, while LRPINN and PINN from random starts hardly move; pruning the
hypernetwork costs nothing. Measured are error and loss along the adaptation, by step
and by second, beside solves that need no adaptation at all: plane waves, the
meta-learned features as they are, and finite differences. The adapted wavefields
themselves stand beside the reference, at every frequency.

Adaptation is the paper's: AdamW on everything, errors are of the networks' own output.
By default 4 frequencies, 6 contenders (two more by --meta_pinn and by each of --beside),
3 seeds and 500 steps of points by the wavelength: an hour and a half on one core.
"""

import functools

from absl import flags

from experiments import common, panels, reports, study
from meta_lrpinn import generators
from meta_lrpinn.runtime import scripts

FLAGS = flags.FLAGS
NAME = "layered"
FREQUENCIES = (3, 5, 8, 12)
STEPS = 500


def make_case(frequency: float) -> study.Case:
    """The built-in layered model, as large as the paper's."""
    model = generators.builtin("layered").window(x=(0, 2.25), z=(0, 2.25))
    return study.known_case(model, frequency)


def make_cases(frequencies: list[float]) -> dict[str, functools.partial]:
    """A case per frequency, made when it is needed."""
    cached = functools.cache(make_case)
    return {f"layered {f:g} Hz": functools.partial(cached, f) for f in frequencies}


def main() -> None:
    """Measures what is missing, then writes tables and figures."""
    frequencies = common.frequencies(FREQUENCIES)
    cases = make_cases(frequencies)
    chosen, steps = study.contenders(), FLAGS.steps or STEPS
    seeds = dict(zip(cases, map(study.seeds_at, frequencies), strict=True))
    curves = study.run(NAME, cases, chosen, steps, seeds=seeds)
    reports.publish(NAME, cases, curves)
    panels.save_wavefields(NAME, cases, chosen, steps)


if __name__ == "__main__":
    scripts.run(main)
