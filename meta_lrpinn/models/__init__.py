"""The networks.

All are Flax modules with `init` and `apply`. `MetaLRPINN` and `PINN` share one call,
`(points, source, frequency)`: points (n, ndim) in km with columns (x, z) or (x, y, z),
the source's horizontal position in km, (ndim − 1,) or (n, ndim − 1), and the frequency in
Hz, () or (n,), without effect on networks that do not depend on it. It gives the output
(n, 2), the real and imaginary part of the field; `method="features"` gives the last
hidden layer (n, features), and `method="jets"` the output with its derivatives. Results
have the type that points and parameters promote to; shapes that do not fit, or a missing
frequency, are a ValueError.
"""

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
