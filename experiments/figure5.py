"""The paper's Figure 5: adaptation by its own method on the layered model at 6 Hz.

The paper's claim: by AdamW on all parameters Meta-LRPINN converges within hundreds of
steps, the hypernetwork pruned or kept, sooner than Meta-PINN, while random starts
hardly move in 2,000. Here each starts from the solved output layer of its features,
without which it needs many thousands of steps; errors are of the networks' own output.

By default 2,000 steps of 1,600 points, 4 contenders (Meta-PINN makes a fifth, by
--meta_pinn) and 3 seeds: hours on one core; with --points=400 three quarters of one.
"""

from absl import flags

from experiments import common, layered, study
from meta_lrpinn import scripts

FLAGS = flags.FLAGS

NAME = "figure5"
FREQUENCIES = (6,)
METHOD = "gradient"
STEPS = 2000


def main() -> None:
    """Measures what is missing, then writes tables and figures."""
    cases = layered.make_cases(common.frequencies(FREQUENCIES))
    chosen = study.contenders(FLAGS.meta_pinn)
    curves = study.run(NAME, cases, chosen, FLAGS.steps or STEPS, METHOD)
    study.publish(NAME, cases, curves, method=METHOD)


if __name__ == "__main__":
    scripts.run(main)
