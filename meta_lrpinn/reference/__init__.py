"""Ground truth: finite differences, and the exact solutions that test them."""

from meta_lrpinn.reference.analytic import (
    circular_inclusion,
    point_source,
    shifted_background,
    spherical_inclusion,
)
from meta_lrpinn.reference.factorised import FiniteDifferenceSolver, factorise
from meta_lrpinn.reference.finite_difference import RefinedField, refined_field
from meta_lrpinn.reference.layered_media import (
    depth_profile,
    layered_medium,
    linear_velocity,
    two_half_spaces,
)

__all__ = [
    "FiniteDifferenceSolver",
    "RefinedField",
    "circular_inclusion",
    "depth_profile",
    "factorise",
    "layered_medium",
    "linear_velocity",
    "point_source",
    "refined_field",
    "shifted_background",
    "spherical_inclusion",
    "two_half_spaces",
]
