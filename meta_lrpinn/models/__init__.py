"""The networks.

All are Flax modules with `init` and `apply`. `MetaLRPINN`, `PINN` and `PlaneWaves`
share one call: `(points, source, frequency)` gives the output (n, 2), the real and
imaginary part of the field, and `method="features"` the last hidden layer (n, features).
Points are in km, `source` is the source's horizontal position in km, the frequency is
in Hz. Results have the type that points and parameters promote to.
"""

from meta_lrpinn.models.layers import Jets
from meta_lrpinn.models.lrpinn import (
    LRPINN,
    FrequencyEmbedding,
    MetaLRPINN,
    make_meta_lrpinn,
)
from meta_lrpinn.models.parameters import (
    are_bases,
    check_pruned,
    known_of_pruned,
    leading_features,
    orthogonal_factors,
    orthonormal_bases,
    output_kernel,
    prune_hypernetwork,
    singular_values,
    truncate,
    with_output,
    with_ranks,
)
from meta_lrpinn.models.pinn import PINN, initial_parameters

__all__ = [
    "LRPINN",
    "PINN",
    "FrequencyEmbedding",
    "Jets",
    "MetaLRPINN",
    "are_bases",
    "check_pruned",
    "initial_parameters",
    "known_of_pruned",
    "leading_features",
    "make_meta_lrpinn",
    "orthogonal_factors",
    "orthonormal_bases",
    "output_kernel",
    "prune_hypernetwork",
    "singular_values",
    "truncate",
    "with_output",
    "with_ranks",
]
