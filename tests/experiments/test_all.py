"""All experiments run in turn, whatever becomes of one of them."""

import re
import sys
from pathlib import Path

import pytest
from absl.testing import flagsaver

from experiments import all as everything
from experiments import baselines
from meta_lrpinn.meta import pipeline

TABLE = "import pathlib, sys; p = pathlib.Path(sys.argv[1]); p.mkdir(exist_ok=True); "
TABLE += "(p / 'table.md').write_text('|')"


def stand_in(failing, out):
    """Commands that leave a table, or fail."""

    def command(name):
        script = "raise SystemExit(3)" if name == failing else TABLE
        return [sys.executable, "-c", script, str(out / name)]

    return command


def test_one_failing_does_not_stop_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr(everything, "command", stand_in("overthrust", tmp_path))
    with flagsaver.flagsaver(out=str(tmp_path)):
        with pytest.raises(SystemExit) as stop:
            everything.main()
        assert stop.value.code == 1
        lines = (tmp_path / "summary.md").read_text().splitlines()[2:]
        assert [line.split(" | ")[0].strip("| ") for line in lines] == list(
            everything.EXPERIMENTS
        )
        for name, line in zip(everything.EXPERIMENTS, lines, strict=True):
            if name == "overthrust":
                assert "failed, exit code 3" in line and "table.md" not in line
            else:
                assert "done" in line and f"({name}/table.md)" in line
    # Once it succeeds, all is well, and the others keep their lines.
    monkeypatch.setattr(everything, "command", stand_in(None, tmp_path))
    with flagsaver.flagsaver(out=str(tmp_path), only=["overthrust"]):
        everything.main()
    assert "failed" not in (tmp_path / "summary.md").read_text()
    assert "not run" not in (tmp_path / "summary.md").read_text()


def test_flags_are_passed_on():
    with flagsaver.flagsaver(out="there", seeds=2):
        options = everything.command("layered")
        assert options[1:3] == ["-m", "experiments.layered"]
        assert {"--out=there", "--seeds=2"} <= set(options)
        assert options.count("--frequencies=3,6,12") == 1
    with flagsaver.as_parsed(frequencies=["3,4"]):
        options = everything.command("layered")  # the last one counts
        assert options.index("--frequencies=3,4") > options.index("--steps=20")
    with flagsaver.as_parsed(init="folder", steps="7"):
        assert {"--init=folder", "--steps=7"} <= set(everything.command("layered"))
        assert "--init=folder" not in everything.command("accuracy")


def test_settings_are_those_of_the_results():
    """Every table's command in docs/RESULTS.md, but for where data and networks are."""
    results = Path(__file__).parents[2] / "docs" / "RESULTS.md"
    shown = {
        name: options.split()
        for name, options in re.findall(
            r"^`python -m experiments\.(\w+)([^`]*)`", results.read_text(), re.M
        )
    }
    assert set(shown) == set(everything.EXPERIMENTS)
    for name, options in shown.items():
        local = [o for o in options if o.startswith(("--data=", "--meta_pinn="))]
        own = [option for option in options if option not in local]
        assert own == list(everything.EXPERIMENTS[name]), name


def test_others_compare_with_the_first_meta_pinn(tmp_path):
    with flagsaver.flagsaver(out=str(tmp_path)):
        assert not [o for o in everything.command("layered") if "--meta_pinn" in o]
        trained = baselines.run_folder("Meta-PINN", 0) / pipeline.INITIALISATION
        trained.mkdir(parents=True)
        assert f"--meta_pinn={trained}" in everything.command("layered")
        assert not [o for o in everything.command("speed") if "--meta_pinn" in o]
        with flagsaver.as_parsed(meta_pinn="mine"):
            assert "--meta_pinn=mine" in everything.command("layered")


def test_real_process_and_its_exit_code(tmp_path):
    with flagsaver.flagsaver(out=str(tmp_path), data=str(tmp_path / "none")):
        assert everything.run_one("adaptation")["exit_code"] == 2


def test_unknown_experiment():
    with flagsaver.flagsaver(only=["layerd"]):
        with pytest.raises(ValueError, match="got 'layerd'"):
            everything.main()


def test_every_experiment_is_in_the_list():
    folder = Path(everything.__file__).parent
    scripts = {path.stem for path in folder.glob("*.py")}
    helpers = {"__init__", "all", "common", "histories", "study"}
    assert scripts - helpers <= set(everything.EXPERIMENTS)
    for name in scripts - helpers:
        source = (folder / f"{name}.py").read_text()
        takes_study = re.search(r"^from experiments import .*\bstudy\b", source, re.M)
        assert bool(takes_study) == (name not in everything.WITHOUT_STUDY), name
