"""Any options of solve: a result, or one line; never a traceback or half of a result."""

import contextlib
import io
import itertools

import hypothesis
import pytest
from hypothesis import strategies as st

import meta_lrpinn as ml
from meta_lrpinn import cli, generators

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
SOLVERS = ("plane_waves", "random_waves", "finite_differences", "network_features", "x")
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


def check(folder, options):
    out = folder / f"out{next(COUNT)}"
    arguments = ["solve", f"--velocity={folder / 'model.npz'}", "--frequency=4"]
    arguments += [f"--{name}={value}" for name, value in options.items()]
    stdout, stderr = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        code = cli.main([*arguments, f"--out={out}"])
    lines = stderr.getvalue().splitlines()
    assert all(line.startswith("meta-lrpinn: ") for line in lines), lines
    errors = [line for line in lines if not line.startswith("meta-lrpinn: warning: ")]
    assert code in (0, 1, 2) and len(errors) == (code > 0), (code, lines)
    assert all(len(line) < 700 for line in lines), lines
    assert "Traceback" not in stdout.getvalue()
    if code == 2:
        assert not out.exists() and len(lines) == 1, lines
    assert out.exists() or code > 0


@pytest.mark.slow
@hypothesis.settings(max_examples=60)
@hypothesis.given(OPTIONS)
def test_any_options_are_solved_or_refused_in_a_line(folder, options):
    check(folder, options)
