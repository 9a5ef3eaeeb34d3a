"""Ground truth: finite differences, and the exact solutions that test them."""

from meta_lrpinn.reference.analytic import circular_inclusion as circular_inclusion
from meta_lrpinn.reference.analytic import point_source as point_source
from meta_lrpinn.reference.analytic import shifted_background as shifted_background
from meta_lrpinn.reference.analytic import spherical_inclusion as spherical_inclusion
from meta_lrpinn.reference.factorised import (
    FiniteDifferenceSolver as FiniteDifferenceSolver,
)
from meta_lrpinn.reference.factorised import factorise as factorise
from meta_lrpinn.reference.finite_difference import RefinedField as RefinedField
from meta_lrpinn.reference.finite_difference import refined_field as refined_field
from meta_lrpinn.reference.layered_media import depth_profile as depth_profile
from meta_lrpinn.reference.layered_media import layered_medium as layered_medium
from meta_lrpinn.reference.layered_media import linear_velocity as linear_velocity
from meta_lrpinn.reference.layered_media import two_half_spaces as two_half_spaces
