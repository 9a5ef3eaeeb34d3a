"""A set of velocity–frequency tasks as one file with a manifest.

The paper's 560 tasks are 40 random velocity models at each of 14 frequencies from 2 to
15 Hz, 2.25 × 2.25 km, a source anywhere along the top of each.

    python -m data_gen.make_tasks --preset=paper --out=tasks.npz
    meta-lrpinn meta-train --preset=paper --tasks=tasks.npz --out=runs/paper

Other presets have other grids, and several velocities a task; --models and --frequencies
choose others. With --random=N, N tasks are drawn as training draws them. The objectives
"projection" and "galerkin" need their wavefields, of which a source costs far less than
a velocity, so that several tasks may share theirs:

    python -m data_gen.make_tasks --preset=small --random=1000 --sources=4 --wavefields

The same command goes on where it was stopped. This is `meta-lrpinn make-tasks`, under the
name that it has among the scripts of this folder.
"""

import sys

from meta_lrpinn import cli

if __name__ == "__main__":
    sys.exit(cli.main(["make-tasks", *sys.argv[1:]]))
