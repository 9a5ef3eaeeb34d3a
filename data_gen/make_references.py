"""Reference wavefields of velocity files, as case files that `solve` compares with.

python -m data_gen.make_references --velocity=models/random_0.npz --frequencies=4,6
"""

from pathlib import Path

from absl import flags

import meta_lrpinn as ml
from meta_lrpinn.files import cases
from meta_lrpinn.physics import background
from meta_lrpinn.runtime import scripts

FLAGS = flags.FLAGS
flags.DEFINE_list("velocity", None, "Velocity files.", required=True)
flags.DEFINE_list("frequencies", ["5"], "Frequencies, Hz.")
flags.DEFINE_float("source_x", None, "Source position, km; default: the middle.")
flags.DEFINE_float("source_depth", 0.025, "Source depth, km.")
flags.DEFINE_float("tolerance", 0.003, "Refine until the change is below this.")
flags.DEFINE_string("out", "cases", "Folder to write to.")


def main():
    folder = Path(FLAGS.out)
    folder.mkdir(parents=True, exist_ok=True)
    for name in FLAGS.velocity:
        model = ml.load_velocity(name)
        source = (model.lower + model.upper) / 2
        source[-1] = model.lower[-1] + FLAGS.source_depth
        if FLAGS.source_x is not None:
            source[0] = FLAGS.source_x
        for frequency in map(float, FLAGS.frequencies):
            field = ml.reference_wavefield(
                model, frequency, source, tolerance=FLAGS.tolerance
            )
            case = cases.Case(
                model=model,
                frequency=frequency,
                source=source,
                amplitude=background.default_amplitude(model.ndim),
                scattered=field.scattered,
            )
            path = folder / f"{Path(name).stem}_{frequency:g}hz.npz"
            cases.save_case(path, case)
            print(f"{path}: estimated error {field.error_estimate:.2g}")


if __name__ == "__main__":
    scripts.run(main)
