"""The paper's Figure 5: adaptation by its own method on the layered model at 6 Hz.

The paper's claim: by AdamW on all parameters Meta-LRPINN converges within hundreds of
steps, the hypernetwork pruned or kept, sooner than Meta-PINN, while random starts
hardly move in 2,000. Errors are of the networks' own output; the loss is the scaled
one (`objectives.own_output_objective`). What an exact solve of the output layer at the
end would bring stands beside ("polish").

By default 2,000 steps of 1,600 points, 4 contenders (Meta-PINN makes a fifth, by
--meta_pinn) and 3 seeds: an hour and a half on one core.
"""

from collections.abc import Callable

from absl import flags

from experiments import common, layered, study
from meta_lrpinn import scripts

FLAGS = flags.FLAGS

NAME = "figure5"
POLISHED_STEPS = (10, 50, 200)
FREQUENCIES = (6,)
STEPS = 2000


def main() -> None:
    """Measures what is missing, then writes tables and figures."""
    cases = layered.make_cases(common.frequencies(FREQUENCIES))
    chosen = study.contenders()
    curves = study.run(NAME, cases, chosen, FLAGS.steps or STEPS)
    study.publish(NAME, cases, curves, polished(cases))


def polished(cases: dict[str, Callable[[], study.Case]]) -> str:
    """Markdown: errors with the output layer solved after the last step, and without."""
    keys = ("case", "steps", "points", "init", "polish", "seed")
    records = common.Records(common.folder(NAME) / "polish.csv", keys)
    lines = []
    for name, case in cases.items():
        for steps in POLISHED_STEPS:
            cells = []
            for polish in (False, True):
                contender = study.Contender(study.meta_start, polish=polish)
                errors = []
                for seed in range(FLAGS.seeds):

                    def measure(case=case, contender=contender, steps=steps, seed=seed):
                        return [
                            study.final_error(case(), contender, study.METHOD, steps, seed)
                        ]

                    values = (
                        name, steps, FLAGS.points, study.initialisation(), polish, seed
                    )  # fmt: skip
                    setting = dict(zip(keys, values, strict=True))
                    errors += records.ensure(setting, measure)
                cells.append(
                    common.spread([100 * row["relative_l2"] for row in errors], " %")
                )
            lines.append([name, steps, *cells])
    columns = ("case", "steps", "own output", "output layer solved at the end")
    return "Meta-LRPINN, every number of steps a run of its own:\n\n" + common.table(
        columns, lines
    )


if __name__ == "__main__":
    scripts.run(main)
