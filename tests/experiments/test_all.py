"""All experiments run in turn, whatever becomes of one of them."""

import re
import sys
from pathlib import Path

import pytest
from absl.testing import flagsaver

from experiments import all as everything
from experiments import common

PAGES = Path(__file__).parents[2] / "docs" / "results"
NOT_EXPERIMENTS = {"published_models"}  # made by the command line
TABLE = """
import pathlib, sys
p = pathlib.Path(sys.argv[1])
p.mkdir(exist_ok=True)
(p / "table.md").write_text("|")
(p / "figure.png").write_bytes(b"drawn")
(p / "made.txt").write_text("1.0, commit abc1234, 2026-01-02\\n")
"""
PAGE = "head\n" + "".join(
    f"<!-- {part}:begin -->\n{{{part}}}\n<!-- {part}:end -->\n" for part in everything.PARTS
)
OLD = {"figure": "", "table": "| old |", "made": "<small>old</small>"}


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
        options = everything.command("figure5")
        assert options[1:3] == ["-m", "experiments.figure5"]
        assert {"--out=there", "--seeds=4"} <= set(options)
        assert options.count("--points=576") == 1
    with flagsaver.as_parsed(frequencies=["3,4"], points="99"):
        options = everything.command("figure5")  # the last one counts
        assert "--frequencies=3,4" in options
        assert options.index("--points=99") > options.index("--points=576")
    with flagsaver.as_parsed(init="folder", steps="7"):
        assert {"--init=folder", "--steps=7"} <= set(everything.command("figure5"))
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
    _, _, listed = (PAGES / "index.md").read_text().partition("## All pages")
    index = re.findall(r"\]\((\w+)\.md\)", listed)
    assert sorted(index) == sorted(pages | NOT_EXPERIMENTS)
    for name in pages:
        page = tmp_path / f"{name}.md"
        page.write_text((PAGES / page.name).read_text())
        everything.write_page(page, {part: f"new {part}" for part in everything.PARTS})
        for part in everything.PARTS:
            assert f"new {part}" in page.read_text()
    assert set(everything.FIGURES) == pages


def test_images_of_the_pages_are_there():
    for page in PAGES.glob("*.md"):
        for image in re.findall(r"!\[[^]]*\]\(([^)]+)\)", page.read_text()):
            assert (PAGES / image).exists(), (page, image)


def test_pages_have_their_order():
    """Verdict, figure, small table, command, folded table, provenance, details."""
    for name in everything.EXPERIMENTS:
        text = (PAGES / f"{name}.md").read_text()
        verdict = text.split("\n\n")[1]
        assert len(re.findall(r"[.!?](?=\s|$)", verdict)) == 2, (name, verdict)
        marks = (
            "<!-- figure:begin -->", "<!-- figure:end -->", "\n| ", "\n**Claim.**",
            "\n```\n", '<details markdown="1">', "<!-- table:begin -->",
            "<!-- table:end -->", "</details>", "<!-- made:begin -->",
        )  # fmt: skip
        places = [text.index(mark) for mark in marks]
        assert places == sorted(places), name


def cells(text):
    return [
        [cell.strip() for cell in line[1:-1].split("|")]
        for line in text.split("\n")
        if line.startswith("|") and not re.fullmatch(r"[|\s:-]+", line)
    ]


def test_small_tables_say_what_the_full_ones_do():
    """A run that changes a figure leaves a small table that no longer agrees."""
    for name in everything.EXPERIMENTS:
        text = (PAGES / f"{name}.md").read_text()
        small, _, rest = text.partition("## How it was measured")
        full = rest.partition("<!-- table:begin -->")[2].partition("<!-- table:end -->")[0]
        known = {cell for row in cells(full) for cell in row}
        shown = {cell for row in cells(small)[1:] for cell in row[1:]}
        figures = {cell for cell in shown if re.match(r"[0-9.]", cell)}
        assert figures and figures <= known, (name, figures - known)


def test_only_what_is_between_the_markers_is_replaced(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(PAGE.format(**OLD) + "\nVerdict \\1.\n")
    for report in ("| new \\1 |\n", "| newer |\n| --- |\n"):
        everything.write_page(page, {"table": report})
        expected = PAGE.format(**{**OLD, "table": report.strip()}) + "\nVerdict \\1.\n"
        assert page.read_text() == expected
    assert [path.name for path in tmp_path.iterdir()] == ["page.md"]


@pytest.mark.parametrize("order", [(), (0,), (1,), (1, 0), (0, 1, 0, 1)])
def test_a_page_without_its_markers_is_left_alone(tmp_path, order):
    markers = ("<!-- table:begin -->", "<!-- table:end -->")
    text = "before\n" + "\n".join(markers[i] for i in order)
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(ValueError, match="page.md"):
        everything.write_page(page, {"table": "| new |"})
    assert page.read_text() == text


def test_pages_are_written_of_experiments_that_succeed(tmp_path, monkeypatch):
    docs = tmp_path / "docs" / "results"
    docs.mkdir(parents=True)
    for name in ("overthrust", "layered", "speed"):
        (docs / f"{name}.md").write_text(PAGE.format(**OLD))
    monkeypatch.setattr(everything, "command", stand_in("overthrust", tmp_path))
    only = ["overthrust", "layered"]
    with flagsaver.flagsaver(out=str(tmp_path), docs=str(docs), only=only):
        with pytest.raises(SystemExit):
            everything.main()
    caption = everything.FIGURES["layered"]["figure"]
    made = "meta_lrpinn 1.0, commit abc1234, 2026-01-02"
    new = {
        "figure": f"![{caption}](../figures/layered.png)",
        "table": "|",
        "made": f"<small>Figures made by {made}.</small>",
    }
    assert (docs / "layered.md").read_text() == PAGE.format(**new)
    assert (docs.parent / "figures" / "layered.png").read_bytes() == b"drawn"
    for name in ("overthrust", "speed"):  # one failed, the other did not run
        assert (docs / f"{name}.md").read_text() == PAGE.format(**OLD)


def test_the_code_that_writes_into_a_folder_is_recorded(tmp_path, monkeypatch):
    with flagsaver.flagsaver(out=str(tmp_path)):
        out = common.folder("layered")
        assert common.stamps(out) == [common.stamp()]
        common.folder("layered")  # the same code again
        assert (out / "made.txt").read_text() == common.stamp() + "\n"
        for commit in ("1111111", "2222222"):
            monkeypatch.setattr(common, "stamp", lambda commit=commit: commit)
            common.folder("layered")
    assert common.stamps(out)[1:] == ["2222222"]
    assert common.stamps(tmp_path) == ["commit not recorded"]


def test_a_stamp_is_version_commit_and_day():
    pattern = r"\d+\.\d+\S*, commit (unknown|[0-9a-f]{7,}(-dirty)?), \d{4}-\d\d-\d\d"
    assert re.fullmatch(pattern, common.stamp())


def test_list_shows_what_is_stale(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(everything, "EXPERIMENTS", {"layered": (), "speed": ()})
    monkeypatch.setattr(everything, "commits_since", lambda commit, name: 7)
    ranged = "1.0, commit abc1234-dirty, 2026-01-02 to 1.0, commit def5678, 2026-01-03"
    for name, made in (("layered", ranged), ("speed", "commit not recorded")):
        (tmp_path / f"{name}.md").write_text(PAGE.format(**{**OLD, "made": made}))
    monkeypatch.setattr(everything, "run_one", None)  # nothing runs
    with flagsaver.flagsaver(list=True, docs=str(tmp_path)):
        everything.main()
    rows = cells(capsys.readouterr().out)[1:]
    assert rows == [
        ["layered", "abc1234-dirty", "2026-01-02 to 2026-01-03", "7"],
        ["speed", "not recorded", "", ""],
    ]


def test_every_page_has_a_commit_of_this_repository():
    if everything.commits_since("HEAD", "layered") != 0:
        pytest.skip("this is not a clone of the repository")
    for row in cells(everything.listing(PAGES))[1:]:
        assert re.fullmatch(r"[0-9a-f]{7,}(-dirty)?", row[1]), row
        assert re.fullmatch(r"\d+|commit not found", row[3]), row
    assert everything.commits_since("not_a_commit", "layered") == "commit not found"


def test_others_compare_with_the_shipped_dense_network():
    assert "--meta_pinn=meta_pinn" in everything.command("layered")
    assert not [o for o in everything.command("speed") if "--meta_pinn" in o]
    with flagsaver.as_parsed(meta_pinn="mine"):
        assert everything.command("layered")[-1] == "--meta_pinn=mine"  # the last counts


def test_real_process_and_its_exit_code(tmp_path):
    with flagsaver.flagsaver(out=str(tmp_path), data=str(tmp_path / "none")):
        assert everything.run_one("marmousi")["exit_code"] == 2


def test_unknown_experiment():
    with flagsaver.flagsaver(only=["layerd"]):
        with pytest.raises(ValueError, match="got 'layerd'"):
            everything.main()


def test_every_experiment_is_in_the_list():
    folder = Path(everything.__file__).parent
    scripts = {path.stem for path in folder.glob("*.py")}
    helpers = {
        *("__init__", "all", "common", "costs", "histories", "panels", "reports", "study"),
        *("enriched", "random_waves", "rank_growth"),
    }
    assert scripts - helpers <= set(everything.EXPERIMENTS)
    for name in scripts - helpers:
        source = (folder / f"{name}.py").read_text()
        takes_study = re.search(r"^from experiments import .*\bstudy\b", source, re.M)
        assert bool(takes_study) == (name not in everything.WITHOUT_STUDY), name
