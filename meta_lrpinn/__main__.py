"""`python -m meta_lrpinn` is the command `meta-lrpinn`."""

from meta_lrpinn.cli import run

run()
