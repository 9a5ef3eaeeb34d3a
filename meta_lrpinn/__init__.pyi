"""The public names and where they live; imported when they are first used."""

from .files.cases import load_case as load_case
from .files.cases import load_velocity as load_velocity
from .files.cases import save_velocity as save_velocity
from .files.velocity_stacks import open_velocities as open_velocities
from .learning.networks import Network as Network
from .learning.networks import load_network as load_network
from .metrics import relative_l2 as relative_l2
from .physics.problem import make_problem as make_problem
from .physics.velocity import VelocityModel as VelocityModel
from .results.report import write_report as write_report
from .results.storage import load_wavefield as load_wavefield
from .solvers.acquisition import Acquisition as Acquisition
from .solvers.acquisition import make_acquisition as make_acquisition
from .solvers.acquisition import receiver_data as receiver_data
from .solvers.seismograms import Traces as Traces
from .solvers.seismograms import time_traces as time_traces
from .solvers.settings import SOAP as SOAP
from .solvers.settings import AdamW as AdamW
from .solvers.settings import FiniteDifferences as FiniteDifferences
from .solvers.settings import GradientTraining as GradientTraining
from .solvers.settings import NetworkFeatures as NetworkFeatures
from .solvers.settings import PlaneWaves as PlaneWaves
from .solvers.solve import reference_wavefield as reference_wavefield
from .solvers.solve import solve as solve
from .solvers.survey import Survey as Survey
from .solvers.survey import solve_survey as solve_survey
from .solvers.survey_run import SurveyRun as SurveyRun
from .solvers.survey_run import run_survey as run_survey

__version__: str

from .wavefield import Wavefield as Wavefield
