"""Experiments run in this process, for a few steps, on tiny networks."""

import dataclasses
import importlib

import jax
import pytest
from absl import flags
from absl.testing import flagsaver

from meta_lrpinn import checkpoints, configs, models, networks

TINY = {"width": 8, "depth": 1, "rank": 3, "layer_fraction": 0.5}


@pytest.fixture(autouse=True)
def parsed():
    """Flags have their defaults, as after a command line without any."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS(["experiment"])


def _save(folder, kind):
    config = configs.NetworkConfig(kind=kind, **TINY)
    network = networks.make_network(config)
    params = models.initial_parameters(network, jax.random.key(0))
    checkpoints.save_initialisation(folder, params, dataclasses.asdict(config), {})
    return str(folder)


@pytest.fixture(scope="session")
def tiny_init(tmp_path_factory):
    """Folder of an initialisation of a tiny low-rank network."""
    return _save(tmp_path_factory.mktemp("tiny") / "lrpinn", "lrpinn")


@pytest.fixture(scope="session")
def tiny_pinn(tmp_path_factory):
    """Folder of an initialisation of a tiny dense network."""
    return _save(tmp_path_factory.mktemp("tiny") / "pinn", "pinn")


@pytest.fixture
def experiment(tmp_path, parsed):
    """Runs an experiment's `main` with flags; returns its output folder."""

    def run(name, **values):
        module = importlib.import_module(f"experiments.{name}")
        with flagsaver.flagsaver(out=str(tmp_path), **values):
            module.main()
        return tmp_path / name

    return run
