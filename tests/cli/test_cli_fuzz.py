"""Any options of any command: a result, or one line; never a traceback or half a result."""

import contextlib
import io
import itertools

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

import meta_lrpinn as ml
from meta_lrpinn import cli, generators
from meta_lrpinn.cli import parsing

WORDS = st.sampled_from(["", "nan", "inf", "-inf", "none", "auto", "a,b", "0x1", "é", "1j"])
# Numbers of all sizes, and what is none.
NUMBERS = st.one_of(
    st.floats(-10, 10).map(repr),
    st.floats().map(repr),
    st.integers(-(2**70), 2**70).map(str),
    st.sampled_from(["0", "-0.0", "1e309", "5e-324", "1e-8", "0.003", "3", "500"]),
    WORDS,
)
LISTS = st.one_of(NUMBERS, st.lists(NUMBERS, min_size=1, max_size=4).map(",".join))
PLACES = st.one_of(LISTS, st.lists(LISTS, min_size=1, max_size=3).map(";".join))
SOLVERS = ("plane_waves", "finite_differences", "network_features", "x")
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "frequency": st.one_of(st.just("4"), NUMBERS),
        "source": st.one_of(st.just("0.2,0.1"), PLACES),
        "spacing": LISTS,
        "spacing_unit": st.sampled_from(["km", "m", "ft"]),
        "unit": st.sampled_from(["km/s", "m/s", "ft/s"]),
        "window": LISTS,
        "smooth": NUMBERS,
        "background_velocity": NUMBERS,
        "amplitude": LISTS,
        "thickness": NUMBERS,
        "reflection": NUMBERS,
        "quality": NUMBERS,
        "seed": NUMBERS,
        "tolerance": NUMBERS,
        "unknowns": NUMBERS,
        "precision": st.sampled_from(["single", "double", "half"]),
        "solver": st.sampled_from(SOLVERS),
        "compare": st.sampled_from(["none", "auto", "reference", "all"]),
        "fill": st.sampled_from(["nearest", "zero"]),
        "transpose": st.sampled_from(["true", "false", "maybe"]),
        "name": WORDS,
    },
)
COUNT = itertools.count()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("fuzz")
    model = generators.random_velocity(0, (9, 11), 0.05)
    ml.save_velocity(path / "model.npz", model)
    return path


def run(arguments):
    """Exit code and lines on standard error, of which one is an error if there is one."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        code = cli.main(arguments)
    lines = stderr.getvalue().splitlines()
    assert all(line.startswith("meta-lrpinn: ") for line in lines), lines
    errors = [line for line in lines if not line.startswith("meta-lrpinn: warning: ")]
    assert code in (0, 1, 2) and len(errors) == (code > 0), (code, lines)
    assert all(len(line) < 700 for line in lines), lines
    assert "Traceback" not in stdout.getvalue()
    return code, lines


def check(folder, options):
    out = folder / f"out{next(COUNT)}"
    arguments = ["solve", f"--velocity={folder / 'model.npz'}", "--frequency=4"]
    arguments += [f"--{name}={value}" for name, value in options.items()]
    code, lines = run([*arguments, f"--out={out}"])
    if code == 2:
        assert not out.exists() and len(lines) == 1, lines
    assert out.exists() or code > 0


@pytest.mark.slow
@hypothesis.settings(max_examples=60)
@hypothesis.given(OPTIONS)
def test_any_options_are_solved_or_refused_in_a_line(folder, options):
    check(folder, options)


# What each command needs at least.
COMMANDS = {
    "solve": ("--velocity=model.npz", "--frequency=4"),
    "evaluate": ("--velocity=model.npz", "--frequency=4"),
    "meta-train": ("--out=run",),
    "learn-metric": ("--out=learned",),
    "make-tasks": (),
    "survey": ("--velocity=models.npy", "--spacing=0.05", "--sources=0.2,0.1",
               "--frequencies=3"),
    "traces": ("--velocity=model.npz", "--source=0.2,0.1", "--receivers=0.3,0.1",
               "--record=0.5", "--peak_frequency=3"),
    "models": (),
    "info": (),
}  # fmt: skip
# Those with options of their own come up more often.
OFTEN = 4 * list(COMMANDS)[:-2] + list(COMMANDS)[-2:]
# Where commands begin to compute or to write, and these end.
BEGINNINGS = (
    "meta_lrpinn.learning.pipeline.networks.make_network",
    "meta_lrpinn.learning.task_files.collect",
    "meta_lrpinn.runtime.executors.mapper",
    "meta_lrpinn.solvers.solve._wavefield",
    "meta_lrpinn.solvers.seismograms.solve",
)
# These would look for other processes.
NOT_FUZZED = ("help", "distributed", "coordinator")
NAMES = (
    "model.npz", "models.npy", "model.npz:velocity", "none.npz", "layered", "taken",
    "taken/x.nc", "model.npz/x", "out.zarr", "a.sgy", "a.gif", ".", "..", "small", "*",
)  # fmt: skip
SENSIBLE = (
    "1", "2", "3", "5", "30", "0.3", "0.05", "0.2,0.1", "0,0.4,0,0.3", "true", "2:4:1",
    "1:1e6:10", "0.1:0.4:7,0.1", "0.1:0.4:1000000,0.1", "0.1:0.4:1000,0.05:0.3:1000",
)  # fmt: skip
ANYTHING = st.one_of(st.sampled_from(SENSIBLE), LISTS, PLACES, st.sampled_from(NAMES))
# What options of a type are mostly given.
KINDS = {
    parsing._whole: st.one_of(
        st.integers(0, 70).map(lambda power: str(2**power)), st.integers(-2, 50).map(str)
    ),
    parsing._number: st.one_of(
        st.floats(0, 10).map(repr), st.integers(-20, 20).map(lambda power: f"1e{power}")
    ),
    parsing._boolean: st.sampled_from(["true", "false"]),
}


def options_of(command):
    """Names of a command's options, each with the values that it is given."""
    parser = parsing.Parser()
    parser.add_groups(cli.command_module(command).option_groups())
    return {
        action.dest: values_of(action)
        for action in parser._actions
        if action.dest not in NOT_FUZZED
    }


def values_of(action):
    """Of an option mostly what it may have, so that most lines are not refused at once."""
    if action.choices:
        likely = st.sampled_from(list(action.choices))
    else:
        likely = KINDS.get(action.type, ANYTHING)
    return st.integers(0, 7).flatmap(lambda chance: likely if chance else ANYTHING)


def arguments_of(command):
    options = options_of(command)
    some = [st.tuples(st.just(name), values) for name, values in options.items()]
    names = st.text(max_size=5).filter(lambda name: "\0" not in name)
    unknown = st.tuples(names, st.sampled_from(SENSIBLE))
    chosen = st.integers(0, 15).flatmap(
        lambda chance: st.one_of(some) if some and chance else unknown
    )
    return st.tuples(st.just(command), st.lists(chosen, max_size=5))


@pytest.mark.counts(slow=400, reliability=10_000)
def test_any_options_of_any_command_are_taken_or_refused_in_a_line(
    folder, count, monkeypatch
):
    """Up to where it would compute, and with no file or folder left by then."""

    def enough(*_, **__):
        raise ValueError("enough")

    (folder / "taken").mkdir(exist_ok=True)
    (folder / "taken" / "mine").write_text("mine")
    np.save(folder / "models.npy", np.full((3, 9, 11), 2.0))
    monkeypatch.chdir(folder)
    for name in BEGINNINGS:
        monkeypatch.setattr(name, enough)
    before = sorted(folder.rglob("*"))
    taken = itertools.count()

    @hypothesis.settings(max_examples=count)
    @hypothesis.given(st.sampled_from(OFTEN).flatmap(arguments_of))
    def search(chosen):
        command, options = chosen
        given = [f"--{name}={value}" for name, value in options]
        code, lines = run([command, *COMMANDS[command], *given])
        assert code in (0, 2)
        if code == 0 or lines[-1].endswith("enough"):
            next(taken)
        assert sorted(folder.rglob("*")) == before

    search()
    number = next(taken)
    print(f"{count} command lines: {number} taken, {count - number} refused")
