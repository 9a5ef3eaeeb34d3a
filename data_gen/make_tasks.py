"""A set of velocity–frequency tasks as one file with a manifest.

By default the paper's 560 tasks: 40 random velocity models at each of 14 frequencies
from 2 to 15 Hz, 2.25 × 2.25 km, a source anywhere along the top of each.

    python -m data_gen.make_tasks --out=tasks.npz
    meta-lrpinn meta-train --preset=paper --tasks=tasks.npz --out=runs/paper

With --random=N, N tasks drawn as training draws them, of several velocities each. The
objectives "projection" and "galerkin" need their wavefields, of which a source costs far
less than a velocity, so that several tasks may share theirs:

    python -m data_gen.make_tasks --preset=small --random=1000 --sources=4 --wavefields

The same command goes on where it was stopped. `meta-lrpinn make-tasks` is the same with
the installed package alone.
"""

from pathlib import Path

import numpy as np
from absl import flags

from meta_lrpinn import configs, scripts
from meta_lrpinn.meta import drawing

FLAGS = flags.FLAGS
flags.DEFINE_string("out", "tasks.npz", "File to write; its manifest is beside it.")
flags.DEFINE_enum(
    "preset", "paper", tuple(configs.PRESETS), "Whose grid and layer the tasks have."
)
flags.DEFINE_integer(
    "random", None, "So many tasks from the preset's distribution instead.", lower_bound=1
)
flags.DEFINE_integer(
    "sources", 1, "Tasks that share velocities and frequency (--random).", lower_bound=1
)
flags.DEFINE_integer("points", 3072, "Points of each wavefield.", lower_bound=1)
flags.DEFINE_integer("models", 40, "Velocity models.", lower_bound=1)
flags.DEFINE_float("minimum_frequency", 2.0, "Lowest frequency, Hz.")
flags.DEFINE_float("maximum_frequency", 15.0, "Highest frequency, Hz.")
flags.DEFINE_integer("frequencies", 14, "How many, evenly spaced.", lower_bound=1)
flags.DEFINE_bool("wavefields", False, "Add the solved wavefields (needs a layer).")
flags.DEFINE_integer("seed", 0, "Seed.")


def main():
    path = Path(FLAGS.out)
    number = drawing.make_task_set(
        path,
        configs.PRESETS[FLAGS.preset].tasks,
        random=FLAGS.random,
        sources=FLAGS.sources,
        models=FLAGS.models,
        frequencies=np.linspace(
            FLAGS.minimum_frequency, FLAGS.maximum_frequency, FLAGS.frequencies
        ),
        wavefields=FLAGS.wavefields,
        points=FLAGS.points,
        seed=FLAGS.seed,
    )
    print(f"{number} tasks in {path}")


if __name__ == "__main__":
    scripts.run(main)
