"""The networks.

All are Flax modules with `init` and `apply`. `MetaLRPINN`, `PINN` and `PlaneWaves`
share one call: `(points, source, frequency)` gives the output (n, 2), the real and
imaginary part of the field, and `method="features"` the last hidden layer (n, features).
Points are in km, `source` is the source's horizontal position in km, the frequency is
in Hz. Results have the type that points and parameters promote to.
"""

from meta_lrpinn.models.enriched import Enriched
from meta_lrpinn.models.frequency_embedding import (
    FreeSingularValues,
    FrequencyEmbedding,
    normalise_frequency,
)
from meta_lrpinn.models.jets import Jets, stacked
from meta_lrpinn.models.low_rank import LowRankDense, layer_ranks
from meta_lrpinn.models.lrpinn import (
    LRPINN,
    MetaLRPINN,
    make_meta_lrpinn,
    orthogonal_factors,
    orthonormal_bases,
)
from meta_lrpinn.models.pinn import PINN, initial_parameters
from meta_lrpinn.models.plane_waves import PlaneWaves, plane_wave_parameters
from meta_lrpinn.models.rank import (
    grow,
    is_pruned,
    leading_features,
    prune_hypernetwork,
    truncate,
)

__all__ = [
    "LRPINN",
    "PINN",
    "Enriched",
    "FreeSingularValues",
    "FrequencyEmbedding",
    "Jets",
    "LowRankDense",
    "MetaLRPINN",
    "PlaneWaves",
    "grow",
    "initial_parameters",
    "is_pruned",
    "layer_ranks",
    "leading_features",
    "make_meta_lrpinn",
    "normalise_frequency",
    "orthogonal_factors",
    "orthonormal_bases",
    "plane_wave_parameters",
    "prune_hypernetwork",
    "stacked",
    "truncate",
]
