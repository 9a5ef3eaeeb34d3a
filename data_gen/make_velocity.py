"""Random velocity models as .npz files that `meta_lrpinn.load_velocity` reads.

python -m data_gen.make_velocity --kind=thrust_belt --number=5 --out=models
"""

from pathlib import Path

from absl import flags

import meta_lrpinn as ml
from meta_lrpinn import generators
from meta_lrpinn.runtime import scripts

FLAGS = flags.FLAGS
KINDS = {
    "random": generators.random_velocity,
    "layered": generators.layered,
    "thrust_belt": generators.thrust_belt,
    "salt_body": generators.salt_body,
}
flags.DEFINE_enum("kind", "random", tuple(KINDS), "Which generator.")
flags.DEFINE_integer("number", 1, "How many models.", lower_bound=1)
flags.DEFINE_list("shape", ["91", "91"], "Grid points, nz,nx or nz,ny,nx.")
flags.DEFINE_float("spacing", 0.025, "Grid spacing, km.", lower_bound=1e-6)
flags.DEFINE_integer("seed", 0, "Seed of the first model; the next ones follow.")
flags.DEFINE_string("out", "models", "Folder to write to.")


def main():
    folder = Path(FLAGS.out)
    folder.mkdir(parents=True, exist_ok=True)
    shape = tuple(int(count) for count in FLAGS.shape)
    for seed in range(FLAGS.seed, FLAGS.seed + FLAGS.number):
        model = KINDS[FLAGS.kind](seed, shape=shape, spacing=FLAGS.spacing)
        path = folder / f"{FLAGS.kind}_{seed}.npz"
        ml.save_velocity(path, model)
        print(f"{path}: {model!r}")


if __name__ == "__main__":
    scripts.run(main)
