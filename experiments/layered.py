"""The layered model: adaptation from the meta-initialisation and from others.

The paper's claim: on a layered model of 2.25 x 2.25 km, which meta-training has not
seen, Meta-LRPINN converges within hundreds of steps at every frequency, faster than
Meta-PINN, while LRPINN and PINN from random starts hardly move; pruning the
hypernetwork costs nothing. Measured are error and loss along the adaptation, by step
and by second, beside solves that need no adaptation at all: plane waves, the
meta-learned features as they are, and finite differences.

By default 5 frequencies, 4 contenders, 3 seeds and 40 steps of 1,600 points, the
output layer eliminated: about a quarter of an hour on one core. Random starts need
more: --steps=300. --figure5 adds the paper's own method, AdamW on everything, at 6 Hz
(from the solved output layer, without which it needs many thousands of steps): with
its 2,000 steps, hours.
"""

import functools

from absl import flags

from experiments import common, study
from meta_lrpinn import generators, scripts

FLAGS = flags.FLAGS
flags.DEFINE_bool("figure5", False, "Adapt by the paper's gradient method at 6 Hz.")
flags.DEFINE_integer("figure5_steps", 2000, "Steps of it.", lower_bound=1)

NAME = "layered"
FREQUENCIES = (3, 5, 6, 8, 12)
STEPS = 40
GRADIENT_FREQUENCY = 6.0  # of the paper's Figure 5


def make_case(frequency: float) -> study.Case:
    """The built-in layered model, as large as the paper's."""
    model = generators.builtin("layered").window(x=(0, 2.25), z=(0, 2.25))
    return study.known_case(model, frequency)


def make_cases(frequencies: list[float]) -> dict[str, functools.partial]:
    """A case per frequency, made when it is needed."""
    cached = functools.cache(make_case)
    return {f"layered {f:g} Hz": functools.partial(cached, f) for f in frequencies}


def gradient() -> None:
    """The paper's Figure 5: the gradient method for thousands of steps."""
    cases = make_cases([GRADIENT_FREQUENCY])
    chosen = study.contenders(FLAGS.meta_pinn)
    curves = study.run(NAME, cases, chosen, FLAGS.figure5_steps, "gradient")
    report = "\n\n".join([study.errors(curves), study.sizes("gradient")])
    print(report, flush=True)
    (common.folder(NAME) / "figure5.md").write_text(report + "\n")
    figure = study.draw(curves, study.direct(NAME, cases))
    figure.savefig(common.folder(NAME) / "figure5.png", dpi=150)


def main() -> None:
    """Measures what is missing, then writes tables and figures."""
    if FLAGS.figure5:
        gradient()
        return
    cases = make_cases(common.frequencies(FREQUENCIES))
    chosen = study.contenders(FLAGS.meta_pinn)
    curves = study.run(NAME, cases, chosen, FLAGS.steps or STEPS)
    study.publish(NAME, cases, curves)


if __name__ == "__main__":
    scripts.run(main)
