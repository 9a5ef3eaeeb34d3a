"""The paper's Figure 5: adaptation by its own method on the layered model at 6 Hz.

The paper's claim: by AdamW on all parameters Meta-LRPINN converges within hundreds of
steps, the hypernetwork pruned or kept, sooner than Meta-PINN, while random starts
hardly move in 2,000. Errors are of the networks' own output; the loss is the scaled
one (`objectives.own_output_objective`). What an exact solve of the output layer at the
end would bring stands beside ("polish").

By default 2,000 steps of 1,600 points, 6 contenders (two more by --meta_pinn and by each
of --beside) and 3 seeds: an hour and a half on one core.
"""

from collections.abc import Callable

from absl import flags

from experiments import common, layered, reports, study
from meta_lrpinn.runtime import scripts

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
    reports.publish(NAME, cases, curves, polished(cases))


def polished(cases: dict[str, Callable[[], study.Case]]) -> str:
    """Markdown: errors with the output layer solved after the last step, and without."""
    keys = ("case", "steps", "points", "init", "polish", "seed")
    records = common.Records(common.folder(NAME) / "polish.csv", keys)

    def errors(name: str, steps: int, polish: bool) -> str:
        contender = study.Contender(study.meta_start, polish=polish)
        found = []
        for seed in range(FLAGS.seeds):

            def measure(seed=seed):
                case = cases[name]()
                return [study.final_error(case, contender, study.METHOD, steps, seed)]

            init = common.fingerprint(study.meta_start())
            values = (name, steps, study.points_asked(), init, polish, seed)
            found += records.at(values, measure)
        return common.spread([100 * row["relative_l2"] for row in found], " %")

    lines = [
        [name, steps, errors(name, steps, False), errors(name, steps, True)]
        for name in cases
        for steps in POLISHED_STEPS
    ]
    columns = ("case", "steps", "own output", "output layer solved at the end")
    table = common.table(columns, lines)
    return f"Meta-LRPINN, every number of steps a run of its own:\n\n{table}"


if __name__ == "__main__":
    scripts.run(main)
