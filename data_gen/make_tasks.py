"""A set of velocity–frequency tasks as one file with a manifest.

By default the paper's 560 tasks: 40 random velocity models at each of 14 frequencies
from 2 to 15 Hz, 2.25 × 2.25 km, a source anywhere along the top of each.

    python -m data_gen.make_tasks --out=tasks.npz
    meta-lrpinn meta-train --preset=paper --tasks=tasks.npz --out=runs/paper

With --random=N, N tasks drawn as training draws them, of several velocities each. The
objectives "projection" and "galerkin" need their wavefields, of which a source costs far
less than a velocity, so that several tasks may share theirs:

    python -m data_gen.make_tasks --preset=small --random=1000 --sources=4 --wavefields
"""

import dataclasses
from pathlib import Path

import numpy as np
import tqdm
from absl import app, flags

from meta_lrpinn import configs, generators
from meta_lrpinn.meta import task_sets

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


def make_tasks(
    distribution: task_sets.TaskDistribution,
    models: int,
    frequencies: np.ndarray,
    seed: int,
) -> list:
    """All combinations of models and frequencies as tasks of one velocity each.

    Args:
        distribution: Grid, source depth, layer, and whether wavefields are known.
        models: Number of velocity models.
        frequencies: Frequencies, Hz.
        seed: Of models and source positions.

    Returns:
        models × frequencies tasks, a model's frequencies together.
    """
    rng = np.random.default_rng(seed)
    size, points = distribution.largest_size, distribution.known_points
    width = (size - 1) * distribution.spacing
    tasks = []
    for _ in tqdm.tqdm(range(models), unit="model"):
        model = generators.random_velocity(
            int(rng.integers(2**31)),
            (size, size),
            distribution.spacing,
            minimum=distribution.minimum_velocity,
            maximum=distribution.maximum_velocity,
        )
        for frequency in frequencies:
            source_x = rng.uniform(0, width)
            own = task_sets.make_tasks([model], frequency, [source_x], distribution)
            if points:
                own = task_sets.with_scattered(own, points, int(rng.integers(2**31)))
            tasks += own
    return tasks


def draw_tasks(
    distribution: task_sets.TaskDistribution, number: int, seed: int, sources: int = 1
) -> list:
    """Tasks drawn as meta-training draws them.

    Args:
        distribution: What to draw from.
        number: Number of tasks.
        seed: Of the drawing.
        sources: Tasks that share velocities, frequency and layer.

    Returns:
        The tasks.
    """
    rng = np.random.default_rng(seed)
    tasks = []
    with tqdm.tqdm(total=number, unit="task") as bar:
        while len(tasks) < number:
            shared = min(sources, number - len(tasks))
            tasks += task_sets.draw_tasks(distribution, rng, shared)
            bar.update(shared)
    return tasks


def main(arguments):
    if len(arguments) > 1:
        raise app.UsageError(f"options only, got {arguments[1]!r}")
    distribution = configs.PRESETS[FLAGS.preset].tasks
    if FLAGS.wavefields and not distribution.absorbing:
        raise app.UsageError("--wavefields needs a preset with an absorbing layer")
    distribution = dataclasses.replace(
        distribution, known_points=FLAGS.points if FLAGS.wavefields else 0
    )
    if FLAGS.random is not None:
        tasks = draw_tasks(distribution, FLAGS.random, FLAGS.seed, FLAGS.sources)
    else:
        low, high = FLAGS.minimum_frequency, FLAGS.maximum_frequency
        distribution = dataclasses.replace(
            distribution,
            minimum_frequency=low,
            maximum_frequency=high,
            velocities_per_task=1,
        )
        frequencies = np.linspace(low, high, FLAGS.frequencies)
        tasks = make_tasks(distribution, FLAGS.models, frequencies, FLAGS.seed)
    task_sets.save_task_set(Path(FLAGS.out), tasks, distribution, FLAGS.seed)
    print(f"{len(tasks)} tasks in {FLAGS.out}")


if __name__ == "__main__":
    app.run(main)
