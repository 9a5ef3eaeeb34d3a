"""All experiments run in turn, whatever becomes of one of them."""

import re
import sys
from pathlib import Path

import pytest
from absl.testing import flagsaver

from experiments import all as everything

PAGES = Path(__file__).parents[2] / "docs" / "results"
NOT_EXPERIMENTS = {"published_models"}  # made by the command line
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
    with flagsaver.flagsaver(out="there"), flagsaver.as_parsed(seeds="4"):
        options = everything.command("layered")
        assert options[1:3] == ["-m", "experiments.layered"]
        assert {"--out=there", "--seeds=4"} <= set(options)
        assert options.count("--points=576") == 1
    with flagsaver.as_parsed(frequencies=["3,4"], points="99"):
        options = everything.command("layered")  # the last one counts
        assert "--frequencies=3,4" in options
        assert options.index("--points=99") > options.index("--points=576")
    with flagsaver.as_parsed(init="folder", steps="7"):
        assert {"--init=folder", "--steps=7"} <= set(everything.command("layered"))
        assert "--init=folder" not in everything.command("accuracy")


def test_settings_are_those_of_the_pages():
    """Every page's command, but for where data and networks are."""
    for name, settings in everything.EXPERIMENTS.items():
        text = (PAGES / f"{name}.md").read_text()
        commands = re.findall(r"^python -m experiments\.(\w+)(.*)$", text, re.M)
        assert [script for script, _ in commands] == [name]
        options = commands[0][1].split()
        local = [o for o in options if o.startswith("--data=")]
        assert [o for o in options if o not in local] == list(settings), name


def test_every_page_is_an_experiment_in_the_index_and_can_be_written(tmp_path):
    pages = {page.stem for page in PAGES.glob("*.md")} - {"index", *NOT_EXPERIMENTS}
    assert pages == set(everything.EXPERIMENTS)
    index = re.findall(r"\]\((\w+)\.md\)", (PAGES / "index.md").read_text())
    assert sorted(index) == sorted(pages | NOT_EXPERIMENTS)
    for name in pages:
        page = tmp_path / f"{name}.md"
        page.write_text((PAGES / page.name).read_text())
        everything.write_page(page, "| new |")
        assert "| new |" in page.read_text()


def test_images_of_the_pages_are_there():
    for page in PAGES.glob("*.md"):
        for image in re.findall(r"!\[[^]]*\]\(([^)]+)\)", page.read_text()):
            assert (PAGES / image).exists(), (page, image)


def test_only_what_is_between_the_markers_is_replaced(tmp_path):
    begin, end = everything.MARKERS
    page = tmp_path / "page.md"
    page.write_text(f"# Title\n\n{begin}\n| old |\n{end}\n\nVerdict \\1.\n")
    for report in ("| new \\1 |\n", "| newer |\n| --- |\n"):
        everything.write_page(page, report)
        expected = f"# Title\n\n{begin}\n{report}{end}\n\nVerdict \\1.\n"
        assert page.read_text() == expected
    assert [path.name for path in tmp_path.iterdir()] == ["page.md"]


@pytest.mark.parametrize("order", [(), (0,), (1,), (1, 0), (0, 1, 0, 1)])
def test_a_page_without_its_markers_is_left_alone(tmp_path, order):
    text = "before\n" + "\n".join(everything.MARKERS[i] for i in order)
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(ValueError, match="page.md"):
        everything.write_page(page, "| new |")
    assert page.read_text() == text


def test_pages_are_written_of_experiments_that_succeed(tmp_path, monkeypatch):
    text = "head\n{}\n| old |\n{}\ntail\n".format(*everything.MARKERS)
    docs = tmp_path / "docs"
    docs.mkdir()
    for name in ("overthrust", "layered", "speed"):
        (docs / f"{name}.md").write_text(text)
    monkeypatch.setattr(everything, "command", stand_in("overthrust", tmp_path))
    only = ["overthrust", "layered"]
    with flagsaver.flagsaver(out=str(tmp_path), docs=str(docs), only=only):
        with pytest.raises(SystemExit):
            everything.main()
    assert (docs / "layered.md").read_text() == text.replace("| old |", "|")
    for name in ("overthrust", "speed"):  # one failed, the other did not run
        assert (docs / f"{name}.md").read_text() == text


def test_others_compare_with_the_shipped_dense_network():
    assert "--meta_pinn=meta_pinn" in everything.command("layered")
    assert not [o for o in everything.command("speed") if "--meta_pinn" in o]
    with flagsaver.as_parsed(meta_pinn="mine"):
        assert everything.command("layered")[-1] == "--meta_pinn=mine"  # the last counts


def test_real_process_and_its_exit_code(tmp_path):
    with flagsaver.flagsaver(out=str(tmp_path), data=str(tmp_path / "none")):
        assert everything.run_one("layered")["exit_code"] == 2


def test_unknown_experiment():
    with flagsaver.flagsaver(only=["layerd"]):
        with pytest.raises(ValueError, match="got 'layerd'"):
            everything.main()


def test_every_experiment_is_in_the_list():
    folder = Path(everything.__file__).parent
    scripts = {path.stem for path in folder.glob("*.py")}
    helpers = {
        *("__init__", "all", "common", "histories", "study"),
        *("enriched", "rank_growth"),
    }
    assert scripts - helpers <= set(everything.EXPERIMENTS)
    for name in scripts - helpers:
        source = (folder / f"{name}.py").read_text()
        takes_study = re.search(r"^from experiments import .*\bstudy\b", source, re.M)
        assert bool(takes_study) == (name not in everything.WITHOUT_STUDY), name
