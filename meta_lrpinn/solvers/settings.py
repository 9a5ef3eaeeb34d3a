"""Settings of the solvers: which solver, and how it is to work.

Each solver has one frozen dataclass whose fields are all the options that it has. Nothing
here needs JAX, so that the command line can offer these fields as options before anything
heavy is imported: the help text and the choices of an option stand in the metadata of its
field. A new solver is a subclass of `Solver`, and an entry of `SOLVERS`.
"""

import dataclasses
import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from meta_lrpinn.runtime.options import (
    check_choices,
    check_not_negative,
    check_positive,
    check_whole,
    option,
    variant,
)

if TYPE_CHECKING:
    import numpy as np

    from meta_lrpinn.learning.networks import Network
    from meta_lrpinn.physics.velocity import VelocityModel
    from meta_lrpinn.solvers.protocol import Bounds, Conditions, Prepared, Setup

# Below, rounding and quadrature decide; from one up, zero is as good a wavefield.
_LEAST_TOLERANCE, _MOST_TOLERANCE = 1e-6, 1.0

# Metadata of a field for a network, which the command line prepares by options that all
# such fields share.
NETWORK = {"network": True}
# A network, "default" or another name of a shipped initialisation, the folder of an
# initialisation or of a training run, or None for random parameters.
NetworkLike: TypeAlias = "Network | str | Path | None"


def _check_tolerance(settings: Any) -> None:
    """Refuses a relative error that no solver reaches, or that says nothing."""
    check_positive(settings, "tolerance")
    tolerance = settings.tolerance
    if tolerance is not None and not _LEAST_TOLERANCE <= tolerance < _MOST_TOLERANCE:
        raise ValueError(
            f"tolerance is a relative error, from {_LEAST_TOLERANCE:g} to below "
            f"{_MOST_TOLERANCE:g}, got {tolerance:g}"
        )


class Solver:
    """Base of the settings of all solvers: frozen dataclasses with a `name`."""

    name: ClassVar[str]
    tolerance: float | None = None  # of the relative error, where it has one

    def prepare(
        self,
        bounds: "VelocityModel | Bounds",
        frequency: float,
        sources: "np.ndarray",
        receivers: "np.ndarray | None" = None,
        conditions: "Conditions | None" = None,
    ) -> "Prepared":
        """A solver for all velocities within bounds, at one frequency.

        Args:
            bounds: Of the velocities; one model is its own bounds.
            frequency: Frequency [Hz].
            sources: Source position (ndim,), or several, (n_sources, ndim) [km].
            receivers: Where δu is asked for, likewise; default: on the models' grid.
            conditions: Amplitude, layer, free surface, seed; by default `Conditions()`.

        Raises:
            ValueError: if an argument is out of its range, or the problem too large.
        """
        from meta_lrpinn.solvers import protocol

        setup = protocol.make_setup(bounds, frequency, sources, receivers, conditions)
        if setup.conditions.free_surface:
            prepared = protocol.below_surface(self, setup)
        else:
            prepared = self.prepare_setup(setup)
        return protocol.with_weighted_data(prepared)

    def prepare_setup(self, setup: "Setup") -> "Prepared":
        """As `prepare`, of checked arguments, without a free surface.

        By default what `prepare(settings, setup)` gives of the module beside this one that
        has the solver's name.
        """
        module = importlib.import_module(f"meta_lrpinn.solvers.{self.name}")
        return module.prepare(self, setup)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlaneWaves(Solver):
    """Plane waves on a lattice, their weights solved exactly in the weak form (default).

    See `linear.lattice`. Without `tolerance` and `unknowns` the number of waves is set by
    area, frequency and roughness, for an error of 0.05 to 0.5 % in 2D.
    """

    name: ClassVar[str] = "plane_waves"

    tolerance: float | None = option(
        None, "Relative error to reach; waves, layer, quadrature and iterations follow."
    )
    unknowns: int | None = option(None, "Number of plane waves, instead of a tolerance.")

    def __post_init__(self):
        _check_tolerance(self)
        check_positive(self, "unknowns")
        check_whole(self, "unknowns")
        if self.unknowns is not None and self.tolerance is not None:
            raise ValueError("give unknowns or tolerance, not both")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FiniteDifferences(Solver):
    """Compact fourth-order finite differences with a sparse direct solve: the reference.

    See `reference.finite_difference`.
    """

    name: ClassVar[str] = "finite_differences"

    tolerance: float | None = option(
        0.003, "Refine until the field's own relative change is below this."
    )
    refinement: int | None = option(
        None,
        "Cells of the grid per cell of the model; with a tolerance, of the first grid.",
    )
    maximum_refinement: int = option(
        8, "Largest refinement, whether the tolerance is reached or not."
    )
    scheme_order: int = option(4, "Order of the scheme, 2 or 4.")

    def __post_init__(self):
        _check_tolerance(self)
        check_positive(self, "refinement", "maximum_refinement")
        check_whole(self, "refinement", "maximum_refinement")
        if self.scheme_order not in (2, 4):
            raise ValueError(f"scheme_order must be 2 or 4, got {self.scheme_order}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdamW:
    """Adaptation of a network's parameters by AdamW.

    What is None follows from the loss: meta-testing as published with the published loss,
    and otherwise what was measured to be best.
    """

    name: ClassVar[str] = "adamw"

    steps: int = option(300, "Adaptation steps.")
    learning_rate: float | None = option(
        None, "Learning rate; by default by optimiser and loss."
    )
    points: int | None = option(
        None, "Collocation points a step; by default by wavelength, at most 20,000."
    )
    weight_decay: float | None = option(
        None, "Decoupled weight decay; by default 4e-5 with loss published, else 0."
    )
    schedule: str | None = option(
        None,
        "cosine: the rate falls to zero at the last step; halved: after 2,000, 4,000 and "
        "8,000 steps. By default halved with loss published, else cosine.",
        ("cosine", "halved"),
    )
    fixed_points: bool | None = option(
        None,
        "The same points at every step; by default with loss published, else new ones.",
    )
    patience: int | None = option(
        None,
        "Stop after so many records in which the held-out loss is not smaller.",
    )
    report_every: int | None = option(None, "Steps between records of the history.")

    def __post_init__(self):
        check_whole(self, "steps", "points", "patience", "report_every")
        check_positive(self, "learning_rate", "points", "patience", "report_every")
        check_choices(self)
        check_not_negative(self, "weight_decay")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SOAP(AdamW):
    """AdamW in the eigenbasis of Shampoo's preconditioner; goes wherever AdamW does.

    See `meta_lrpinn.learning.soap`.
    """

    name: ClassVar[str] = "soap"


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkFeatures(Solver):
    """The last hidden layer of a network as basis; its output layer solved exactly.

    The features are taken as they are: in training, steps on the residual from the shipped
    features lowered the residual and raised the error of the exact solve.
    """

    name: ClassVar[str] = "network_features"

    network: NetworkLike = dataclasses.field(
        default="default", kw_only=False, metadata=NETWORK
    )
    precision: str = option(
        "double", "Precision of the exact solves.", ("double", "single")
    )

    def __post_init__(self):
        check_choices(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GradientTraining(Solver):
    """The paper's meta-testing: AdamW on all parameters, the network's own output.

    The parameters of the record with the smallest loss at held-out points are returned.
    """

    name: ClassVar[str] = "gradient_training"

    network: NetworkLike = dataclasses.field(
        default="meta_lrpinn", kw_only=False, metadata=NETWORK
    )
    optimiser: AdamW = variant(
        AdamW(steps=200),
        "soap is adamw in the eigenbasis of Shampoo's preconditioner.",
        {"adamw": AdamW, "soap": SOAP},
    )
    loss: str = option(
        "relative",
        "relative: residual over right-hand side; published: meta-testing as published, "
        "by the paper's absolute losses, without a layer unless --thickness is given.",
        ("relative", "published"),
    )
    source_penalty: float | None = option(
        None, "Strength of L_reg; by default 1, the paper's. With loss published."
    )
    output_start: str = option(
        "network",
        "Output layer to start from: the network's own, or one solved in the weak form.",
        ("network", "solved"),
    )
    polish: bool = option(False, "Solve the output layer exactly after the last step.")

    def __post_init__(self):
        check_choices(self)
        if not isinstance(self.optimiser, AdamW):
            raise ValueError(f"optimiser must be AdamW or SOAP, got {self.optimiser!r}")
        check_not_negative(self, "source_penalty")
        if self.source_penalty is not None and self.loss != "published":
            raise ValueError("source_penalty has no effect without loss published")


# Every solver by its name, in the order of the help.
SOLVERS: dict[str, type[Solver]] = {
    kind.name: kind
    for kind in (PlaneWaves, FiniteDifferences, NetworkFeatures, GradientTraining)
}


def check_settings(settings: Any) -> Solver:
    """Settings of a solver; of None the default, `PlaneWaves()`.

    Raises:
        ValueError: if they are something else.
    """
    if settings is None:
        return PlaneWaves()
    if type(settings) not in SOLVERS.values():
        kinds = ", ".join(kind.__name__ for kind in SOLVERS.values())
        raise ValueError(f"settings must be one of {kinds}, got {settings!r}"[:300])
    return settings
