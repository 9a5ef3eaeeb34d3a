"""A set of velocity–frequency tasks as one file with a manifest.

The paper's 560 tasks are 40 random velocity models at each of 14 frequencies from 2 to
15 Hz, 2.25 × 2.25 km, a source anywhere along the top of each.

    python -m data_gen.make_tasks --preset=paper --out=tasks.npz
    meta-lrpinn meta-train --preset=paper --tasks=tasks.npz --out=runs/paper

Other presets have other grids, and several velocities a task; --models and --frequencies
choose others. With --random=N, N tasks are drawn as training draws them. The objective
"projection" needs their wavefields, of which a source costs far less than a velocity, so
that several tasks may share theirs:

    python -m data_gen.make_tasks --preset=small --random=1000 --sources=4 --wavefields

The same command goes on where it was stopped. The command `meta-lrpinn make-tasks` makes
the same files.
"""

from pathlib import Path

from absl import flags

from meta_lrpinn.learning import configs, task_files
from meta_lrpinn.runtime import scripts

FLAGS = flags.FLAGS
flags.DEFINE_enum("preset", "small", tuple(configs.PRESETS), "Whose grid and layer.")
flags.DEFINE_string("out", "tasks.npz", "File to write; its manifest is beside it.")
flags.DEFINE_integer("models", 40, "Velocity models, or groups of them.")
flags.DEFINE_list("frequencies", None, "Of each, Hz; default: 14 over the preset's range.")
flags.DEFINE_integer("random", None, "So many tasks of the preset's distribution instead.")
flags.DEFINE_integer("sources", 1, "Tasks that share velocities; with --random.")
flags.DEFINE_bool("wavefields", False, "Add the solved wavefields.")
flags.DEFINE_integer("points", 3072, "Points of each wavefield.")
flags.DEFINE_integer("seed", 0, "Seed.")
flags.DEFINE_integer("workers", None, "Processes that solve the wavefields.")


def main():
    frequencies = FLAGS.frequencies
    number = task_files.make_task_set(
        Path(FLAGS.out),
        configs.PRESETS[FLAGS.preset].tasks,
        random=FLAGS.random,
        sources=FLAGS.sources,
        models=FLAGS.models,
        frequencies=None if frequencies is None else list(map(float, frequencies)),
        wavefields=FLAGS.wavefields,
        points=FLAGS.points,
        seed=FLAGS.seed,
        workers=FLAGS.workers,
    )
    print(f"{FLAGS.out}: {number} tasks")


if __name__ == "__main__":
    scripts.run(main)
