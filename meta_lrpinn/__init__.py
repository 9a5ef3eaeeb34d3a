"""Acoustic wavefields in the frequency domain by low-rank physics-informed networks.

Units are km, km/s and Hz; depth is positive down; time goes as e^{+iωt}.

    import meta_lrpinn as ml

    model = ml.load_velocity("model.npz")
    field = ml.solve(model, frequency=5.0, source=(1.0, 0.025))
    truth = ml.solve(model, 5.0, (1.0, 0.025), ml.FiniteDifferences())
    field.scattered, field.background, field.total, field.at(points)

Names are imported when they are first used, so that `import meta_lrpinn` is quick and
changes nothing about JAX.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from meta_lrpinn.cases import load_case, load_velocity, save_velocity
    from meta_lrpinn.metrics import relative_l2
    from meta_lrpinn.networks import Network, load_network
    from meta_lrpinn.problem import make_problem
    from meta_lrpinn.results.report import write_report
    from meta_lrpinn.results.storage import load_wavefield
    from meta_lrpinn.solvers.acquisition import Acquisition, make_acquisition, receiver_data
    from meta_lrpinn.solvers.settings import (
        SOAP,
        AdamW,
        FiniteDifferences,
        GaussNewton,
        GradientTraining,
        NetworkFeatures,
        PlaneWaves,
        RandomWaves,
    )
    from meta_lrpinn.solvers.solve import reference_wavefield, solve
    from meta_lrpinn.solvers.survey import Survey, solve_survey
    from meta_lrpinn.surveys.run import SurveyRun, run_survey
    from meta_lrpinn.surveys.velocities import open_velocities
    from meta_lrpinn.traces.record import Traces, time_traces
    from meta_lrpinn.velocity import VelocityModel
    from meta_lrpinn.wavefield import Wavefield

__version__ = "0.2.0.dev0"

__all__ = [
    "SOAP",
    "Acquisition",
    "AdamW",
    "FiniteDifferences",
    "GaussNewton",
    "GradientTraining",
    "Network",
    "NetworkFeatures",
    "PlaneWaves",
    "RandomWaves",
    "Survey",
    "SurveyRun",
    "Traces",
    "VelocityModel",
    "Wavefield",
    "load_case",
    "load_network",
    "load_velocity",
    "load_wavefield",
    "make_acquisition",
    "make_problem",
    "open_velocities",
    "receiver_data",
    "reference_wavefield",
    "relative_l2",
    "run_survey",
    "save_velocity",
    "solve",
    "solve_survey",
    "time_traces",
    "write_report",
]

_MODULES = {
    "Acquisition": "solvers.acquisition",
    "AdamW": "solvers.settings",
    "FiniteDifferences": "solvers.settings",
    "GaussNewton": "solvers.settings",
    "GradientTraining": "solvers.settings",
    "Network": "networks",
    "NetworkFeatures": "solvers.settings",
    "PlaneWaves": "solvers.settings",
    "RandomWaves": "solvers.settings",
    "SOAP": "solvers.settings",
    "Survey": "solvers.survey",
    "SurveyRun": "surveys.run",
    "Traces": "traces.record",
    "VelocityModel": "velocity",
    "Wavefield": "wavefield",
    "load_case": "cases",
    "load_network": "networks",
    "load_velocity": "cases",
    "load_wavefield": "results.storage",
    "make_acquisition": "solvers.acquisition",
    "make_problem": "problem",
    "open_velocities": "surveys.velocities",
    "receiver_data": "solvers.acquisition",
    "reference_wavefield": "solvers.solve",
    "relative_l2": "metrics",
    "run_survey": "surveys.run",
    "save_velocity": "cases",
    "solve": "solvers.solve",
    "solve_survey": "solvers.survey",
    "time_traces": "traces.record",
    "write_report": "results.report",
}


def __getattr__(name: str):
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
