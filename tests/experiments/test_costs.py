"""What contenders cost is what they cost."""

import numpy as np
import pytest

from experiments import common, costs, study
from meta_lrpinn.generators import builtin
from meta_lrpinn.learning import networks
from meta_lrpinn.physics.velocity import VelocityModel


def test_points_go_with_the_square_of_the_wavelength():
    model = VelocityModel(np.full((91, 91), 1.5), 0.025)  # 2.25 km a side
    found = [common.points_by_wavelength(model, f) for f in (2, 5, 8, 8.1, 12)]
    assert found == [24**2, 24**2, 36**2, 48**2, 60**2]


@pytest.mark.skipif(not costs._CLEAR_PEAK.exists(), reason="memory is read on Linux only")
def test_memory_of_a_call_is_its_own():
    def fill(megabytes):
        return np.ones(int(megabytes * 1e6 / 8)).sum()

    costs.measured(lambda: fill(400))
    _, spent = costs.measured(lambda: fill(100))
    assert 90 < spent.memory < 200
    assert 0 < spent.processor and 0 < spent.elapsed


@pytest.mark.slow  # compiles two gradients
def test_memory_of_a_step_grows_with_its_points(parsed, tiny_init):
    model = builtin("layered").window(x=(0, 0.5), z=(0, 0.5))
    case = study.Case(model, 3.0, np.array([0.25, 0.025]))
    network = networks.load_network(tiny_init).prune(3.0)
    few, many = (costs.memory_of(case, network, n, "adamw") for n in (1000, 4000))
    assert few < many < 4 * few  # taken in parts, of bounded memory
    by_soap = costs.memory_of(case, network, 1000, "soap")
    # Two moments of each parameter by both; by SOAP its two sides and their bases as well.
    assert few < by_soap < few + 0.1
