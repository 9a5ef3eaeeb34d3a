"""Ground truth: finite differences, and the exact solutions that test them."""

from meta_lrpinn.reference.analytic import (
    circular_inclusion,
    point_source,
    shifted_background,
    spherical_inclusion,
)
from meta_lrpinn.reference.finite_difference import (
    FiniteDifferenceSolver,
    background_on_grid,
    factorise,
    reference_wavefield,
)

__all__ = [
    "FiniteDifferenceSolver",
    "background_on_grid",
    "circular_inclusion",
    "factorise",
    "point_source",
    "reference_wavefield",
    "shifted_background",
    "spherical_inclusion",
]
