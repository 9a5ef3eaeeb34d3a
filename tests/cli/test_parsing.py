"""Options from the fields of dataclasses, on the configuration of meta-training."""

import dataclasses

import pytest

from meta_lrpinn import cli
from meta_lrpinn.cli import meta_train, parsing
from meta_lrpinn.cli.parsing import UsageError
from meta_lrpinn.learning import configs


def configured(text):
    options = cli.make_parser().parse(["meta-train", *text.split()])
    return meta_train.make_config(options)


def leaves(settings, path=()):
    """Dotted name → value of every plain field, however deep."""
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            yield from leaves(value, (*path, field.name))
        else:
            yield ".".join((*path, field.name)), value


@pytest.mark.parametrize("preset", configs.PRESETS)
def test_every_value_of_a_preset_has_an_option(preset):
    names = parsing.options_of(configs.MetaConfig)
    flags_of_names = {"network.kind": "network", "objective.name": "objective"}
    for path, _ in leaves(configs.PRESETS[preset]):
        parent, _, name = path.rpartition(".")
        prefix = "inner_" if parent.endswith(".inner") else ""
        assert flags_of_names.get(path, prefix + name) in names, path
    assert configured(f"--preset={preset}") == configs.PRESETS[preset]


def test_options_replace_values_at_every_depth():
    config = configured(
        "--preset=own_output --inner_steps=7 --inner_clip_norm=none --clip_norm=none "
        "--decay=0.5 --step=0.25 --width=16 --leading=3,5 --nolog_frequency --seed=9"
    )
    algorithm = config.training.algorithm
    preset = configs.PRESETS["own_output"].training.algorithm
    inner = dataclasses.replace(preset.inner, steps=7, clip_norm=None)
    assert algorithm == configs.Reptile(inner=inner, step=0.25)
    assert config.training.clip_norm is None and config.training.seed == 9
    assert config.training.schedule == configs.Staircase(decay=0.5, decay_every=2000)
    assert (config.network.width, config.objective.leading) == (16, (3, 5))
    assert not config.tasks.log_frequency


def test_one_option_sets_all_fields_of_its_name():
    config = configured("--preset=own_output --layer_fraction=0.7")
    assert config.network.layer_fraction == config.tasks.layer_fraction == 0.7


def test_another_algorithm_keeps_what_both_have():
    preset = configs.PRESETS["own_output"]
    config = configured("--preset=own_output --algorithm=maml --schedule=cosine")
    assert config.training == dataclasses.replace(
        preset.training,
        algorithm=configs.MAML(inner=preset.training.algorithm.inner),
        schedule=configs.Cosine(),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "--preset=small --inner_steps=3",
            "--inner_steps is no option of --algorithm=joint, "
            "but of maml, multi_step, reptile$",
        ),
        (
            "--preset=own_output --learning_rate=1",
            "--learning_rate is no option of --algorithm=reptile, but of maml, joint$",
        ),
        (
            "--preset=small --decay=0.5",
            "--decay is no option of --schedule=cosine, but of staircase$",
        ),
        ("--leading=3,x", "must be whole numbers with commas between, got '3,x'"),
        ("--clip_norm=some", "must be a number, got 'some'"),
    ],
)
def test_options_that_do_not_apply_are_refused(text, message):
    with pytest.raises(UsageError, match=message):
        configured(text)


def test_the_command_of_a_card_gives_the_same_configuration():
    text = (
        "--preset=own_output --clip_norm=none --leading=3,5 --nolog_frequency "
        "--objective=projection --algorithm=joint"
    )
    options = cli.make_parser().parse(["meta-train", *text.split()])
    command = parsing.command_line(options)
    again = cli.make_parser().parse(command.split()[1:])
    assert meta_train.make_config(again) == meta_train.make_config(options)
