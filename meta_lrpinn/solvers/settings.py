"""Settings of the solvers: which solver, and how it is to work.

Each solver has one frozen dataclass whose fields are all the options that it has; the type
of the settings given to `solve` chooses the solver. Nothing here needs JAX, so that the
command line can offer these fields as options before anything heavy is imported: the help
text and the choices of an option stand in the metadata of its field.
"""

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

if TYPE_CHECKING:
    from meta_lrpinn.learning.networks import Network

PRECISIONS = ("double", "single")
OUTPUT_LAYERS = ("galerkin", "least_squares")
OUTPUT_STARTS = ("network", "solved")
LOSSES = ("relative", "published")
# Below, rounding and quadrature decide; from one up, zero is as good a wavefield.
_LEAST_TOLERANCE, _MOST_TOLERANCE = 1e-6, 1.0
_LARGEST_WHOLE = 2**31 - 1

# A network, "default" or another name of a shipped initialisation, the folder of an
# initialisation or of a training run, or None for random parameters.
NetworkLike: TypeAlias = "Network | str | Path | None"


def option(default: Any, text: str, choices: tuple[str, ...] | None = None) -> Any:
    """A field of settings, described for documentation and command line alike."""
    return dataclasses.field(default=default, metadata={"help": text, "choices": choices})


def _check_positive(settings: Any, *names: str) -> None:
    for name in names:
        value = getattr(settings, name)
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"{name} must be positive, got {value}")


def _check_whole(settings: Any, *names: str) -> None:
    for name in names:
        value = getattr(settings, name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ValueError(f"{name} must be a whole number from 0 up, got {value!r}")
        if value > _LARGEST_WHOLE:
            raise ValueError(f"{name} must be at most {_LARGEST_WHOLE}")


def _check_tolerance(settings: Any) -> None:
    """Refuses a relative error that no solver reaches, or that says nothing."""
    _check_positive(settings, "tolerance")
    tolerance = settings.tolerance
    if tolerance is not None and not _LEAST_TOLERANCE <= tolerance < _MOST_TOLERANCE:
        raise ValueError(
            f"tolerance is a relative error, from {_LEAST_TOLERANCE:g} to below "
            f"{_MOST_TOLERANCE:g}, got {tolerance:g}"
        )


def _check_choices(settings: Any) -> None:
    """Refuses values that are none of a field's choices."""
    for field in dataclasses.fields(settings):
        choices, value = field.metadata.get("choices"), getattr(settings, field.name)
        if choices and value not in choices:
            raise ValueError(
                f"{field.name} must be one of {', '.join(choices)}, got {value!r}"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlaneWaves:
    """Plane waves on a lattice, their weights solved exactly in the weak form (default).

    See `linear.lattice`. Without `tolerance` and `unknowns` the number of waves is set by
    area, frequency and roughness, for an error of 0.05 to 0.5 % in 2D.
    """

    tolerance: float | None = option(
        None, "Relative error to reach; waves, layer, quadrature and iterations follow."
    )
    unknowns: int | None = option(None, "Number of plane waves, instead of a tolerance.")
    precision: str = option("double", "Precision of the solve.", PRECISIONS)

    def __post_init__(self):
        _check_choices(self)
        _check_tolerance(self)
        _check_positive(self, "unknowns")
        _check_whole(self, "unknowns")
        if self.unknowns is not None and self.tolerance is not None:
            raise ValueError("give unknowns or tolerance, not both")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RandomWaves:
    """Plane waves with random wave vectors, all in one matrix (weak form)."""

    unknowns: int | None = option(
        None, "Number of waves; by default by area and frequency."
    )
    precision: str = option("double", "Precision of the solve.", PRECISIONS)

    def __post_init__(self):
        _check_choices(self)
        _check_positive(self, "unknowns")
        _check_whole(self, "unknowns")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FiniteDifferences:
    """Compact fourth-order finite differences with a sparse direct solve: the reference.

    See `reference.finite_difference`.
    """

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
        _check_positive(self, "refinement", "maximum_refinement")
        _check_whole(self, "refinement", "maximum_refinement")
        if self.scheme_order not in (2, 4):
            raise ValueError(f"scheme_order must be 2 or 4, got {self.scheme_order}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdamW:
    """Adaptation of a network's parameters by AdamW on new points at every step."""

    optimiser: ClassVar[str] = "adamw"

    steps: int = option(300, "Adaptation steps.")
    learning_rate: float | None = option(
        None, "Learning rate; by default by optimiser, solver, loss and network."
    )
    points: int | None = option(
        None, "Collocation points a step; by default by wavelength, at most 20,000."
    )
    patience: int | None = option(
        None,
        "Stop after so many records in which what decides (the error estimate, or the "
        "held-out loss) is not smaller.",
    )
    report_every: int | None = option(None, "Steps between records of the history.")

    def __post_init__(self):
        _check_whole(self, "steps", "points", "patience", "report_every")
        _check_positive(self, "learning_rate", "points", "patience", "report_every")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SOAP(AdamW):
    """AdamW in the eigenbasis of Shampoo's preconditioner; goes wherever AdamW does.

    See `meta_lrpinn.learning.soap`.
    """

    optimiser: ClassVar[str] = "soap"


@dataclasses.dataclass(frozen=True, kw_only=True)
class GaussNewton:
    """Adaptation of the singular values alone, by few and costly damped steps.

    See `adapt.gauss_newton`; the network must be a pruned LRPINN.
    """

    steps: int = option(8, "Steps to try.")
    points: int | None = option(None, "Collocation points a step; default: by wavelength.")
    patience: int = option(5, "Stop after so many refused steps.")

    def __post_init__(self):
        _check_whole(self, "steps", "points", "patience")
        _check_positive(self, "points", "patience")


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkFeatures:
    """The last hidden layer of a network as basis; its output layer solved exactly.

    Without adaptation the features are taken as they are. With it they are trained on the
    strong residual, the output layer eliminated (variable projection); of the records of
    the history that with the smallest estimate of the error is returned.
    """

    # The command line prepares networks with options of their own.
    network: NetworkLike = dataclasses.field(
        default="default", kw_only=False, metadata={"help": None}
    )
    output_layer: str = option(
        "galerkin",
        "How the output layer is solved: galerkin (weak form) or least_squares (strong).",
        OUTPUT_LAYERS,
    )
    adaptation: AdamW | GaussNewton | None = dataclasses.field(
        default=None, metadata={"help": None}
    )
    rank_tolerance: float | None = option(
        None,
        "Keep the fewest singular values that raise the residual by no more than this "
        "fraction (pruned LRPINN).",
    )
    precision: str = option("double", "Precision of the exact solves.", PRECISIONS)

    def __post_init__(self):
        _check_choices(self)
        _check_positive(self, "rank_tolerance")
        if not isinstance(self.adaptation, AdamW | GaussNewton | None):
            raise ValueError(
                f"adaptation must be AdamW, GaussNewton or None, got {self.adaptation!r}"
            )

    @property
    def is_shareable(self) -> bool:
        """Whether the features are the same for all velocities of a survey."""
        unadapted = self.adaptation is None and self.rank_tolerance is None
        return unadapted and self.output_layer == "galerkin"


@dataclasses.dataclass(frozen=True, kw_only=True)
class GradientTraining:
    """The paper's meta-testing: AdamW on all parameters, the network's own output.

    The parameters of the record with the smallest loss at held-out points are returned.
    """

    network: NetworkLike = dataclasses.field(
        default="meta_lrpinn", kw_only=False, metadata={"help": None}
    )
    adamw: AdamW = dataclasses.field(default=AdamW(steps=200), metadata={"help": None})
    loss: str = option(
        "relative",
        "relative: residual over right-hand side; published: the paper's absolute losses.",
        LOSSES,
    )
    source_penalty: float = option(
        0.0, "Strength of the published L_reg; 1 is the paper's. With loss published."
    )
    output_start: str = option(
        "network",
        "Output layer to start from: the network's own, or one solved in the weak form.",
        OUTPUT_STARTS,
    )
    polish: bool = option(False, "Solve the output layer exactly after the last step.")

    def __post_init__(self):
        _check_choices(self)
        if not isinstance(self.adamw, AdamW):
            raise ValueError(f"adamw must be an AdamW, got {self.adamw!r}")
        if not (self.source_penalty >= 0 and math.isfinite(self.source_penalty)):
            raise ValueError(
                f"source_penalty must not be negative, got {self.source_penalty}"
            )
        if self.source_penalty and self.loss != "published":
            raise ValueError("source_penalty has no effect without loss published")


Settings: TypeAlias = (
    PlaneWaves | RandomWaves | FiniteDifferences | NetworkFeatures | GradientTraining
)

SOLVERS: dict[str, type] = {
    "plane_waves": PlaneWaves,
    "random_waves": RandomWaves,
    "finite_differences": FiniteDifferences,
    "network_features": NetworkFeatures,
    "gradient_training": GradientTraining,
}
_NAMES = {kind: name for name, kind in SOLVERS.items()}


def name_of(settings: Settings) -> str:
    """The name of the solver that settings choose.

    Raises:
        ValueError: if they are not the settings of a solver.
    """
    try:
        return _NAMES[type(settings)]
    except KeyError:
        kinds = ", ".join(kind.__name__ for kind in SOLVERS.values())
        raise ValueError(
            f"settings must be one of {kinds}, got {settings!r}"[:300]
        ) from None
