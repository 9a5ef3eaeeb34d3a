"""What ships: the initialisation `small` keeps what its card says."""

import json

import pytest

import meta_lrpinn as ml
from meta_lrpinn import generators
from meta_lrpinn.learning import checkpoints, configs, networks
from meta_lrpinn.learning.networks import find_initialisation

DEFAULT_INITIALISATION = find_initialisation("default")


@pytest.fixture(scope="module")
def card():
    return json.loads((DEFAULT_INITIALISATION / checkpoints.CARD).read_text())


def test_card(card):
    assert card["model"] == vars(configs.PRESETS["small"].network)
    made = card["card"]
    while made is not None:  # and of what it started from
        assert made["command"].startswith("meta-lrpinn meta-train --preset=small")
        assert made["commit"] and "dirty" not in made["commit"]
        assert made["seconds"] > 0
        best = min(made["curve"], key=lambda row: row["error"])
        assert best["step"] == made["step"]
        made = made["started_from"]


@pytest.mark.parametrize("name", networks.shipped())
def test_cards_describe_their_training_as_configurations_do(name):
    """By the fields that a configuration of the same algorithm has."""

    def names(values):
        return {
            key: names(value) if isinstance(value, dict) else None
            for key, value in values.items()
        }

    text = (networks.ASSETS / name / checkpoints.CARD).read_text()
    card = json.loads(text)["card"]
    while card is not None:
        algorithm = configs.ALGORITHMS[
            card["configuration"]["training"]["algorithm"]["name"]
        ]
        schedule = configs.SCHEDULES[card["configuration"]["training"]["schedule"]["name"]]
        training = configs.TrainingConfig(algorithm=algorithm(), schedule=schedule())
        expected = configs.MetaConfig(training=training).as_dict()
        assert names(card["configuration"]) == names(expected)
        card = card["started_from"]


def test_small_and_of_no_machine(card):
    files = [path for path in DEFAULT_INITIALISATION.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 5 * 2**20
    text = json.dumps(card)
    assert not any(mark in text for mark in ('"/', "=/", ",/"))


def test_features_solve_without_a_step():
    """At 5 Hz, in a model like those of training, whose error they overestimate."""
    model, source = generators.builtin("layered"), (1.25, 0.025)
    truth = ml.reference_wavefield(model, 5.0, source, tolerance=0.003)
    field = ml.solve(model, 5.0, source, ml.NetworkFeatures())
    assert field.stats.unknowns == 512
    error = ml.relative_l2(field.scattered, truth.scattered)
    assert error < 0.05
    assert error < field.error_estimate < 6 * error
    random = ml.solve(model, 5.0, source, ml.NetworkFeatures(None))
    assert ml.relative_l2(random.scattered, truth.scattered) > 2 * error
