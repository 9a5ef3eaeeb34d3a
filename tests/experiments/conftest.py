"""Experiments run in this process, for a few steps, on tiny networks."""

import dataclasses
import importlib

import jax
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

import meta_lrpinn as ml
from experiments import study
from meta_lrpinn import models
from meta_lrpinn.files import cases
from meta_lrpinn.learning import checkpoints, configs, networks

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
def quick_truth(monkeypatch):
    """Known wavefields on one grid, in a tenth of the time; test_layered refines."""

    def known_case(model, frequency, source=None):
        source = study.top_source(model) if source is None else source
        settings = ml.FiniteDifferences(tolerance=None)
        scattered = ml.solve(model, frequency, source, settings).scattered
        return cases.Case(model, float(frequency), np.asarray(source), scattered=scattered)

    monkeypatch.setattr(study, "known_case", known_case)


@pytest.fixture
def experiment(tmp_path, parsed):
    """Runs an experiment's `main` with flags; returns its output folder."""

    def run(name, **values):
        module = importlib.import_module(f"experiments.{name}")
        with flagsaver.flagsaver(out=str(tmp_path), **values):
            module.main()
        return tmp_path / name

    return run
