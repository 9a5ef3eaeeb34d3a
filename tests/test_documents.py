"""README and docs: snippets that run, modules that exist, links that lead somewhere."""

import pathlib
import re
import subprocess
import sys

import pytest

import meta_lrpinn as ml

ROOT = pathlib.Path(__file__).parents[1]
README = ROOT / "README.md"


def snippets(page):
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)


PAGES = list(filter(snippets, [README, *sorted((ROOT / "docs").rglob("*.md"))]))


def test_the_pages_that_teach_have_snippets():
    taught = {"README", "getting-started", "working-with-results", "scaling-out"}
    assert taught <= {page.stem for page in PAGES}


def test_every_module_has_its_line():
    text = (ROOT / "docs" / "architecture.md").read_text()
    package = pathlib.Path(ml.__file__).parent
    names = {
        path.stem
        for path in package.iterdir()
        if (path.suffix == ".py" or (path / "__init__.py").exists())
        and not path.stem.startswith("_")
    }
    assert {name for name in names if not re.search(rf"\b{name}\b", text)} == set()


def test_links_of_the_readme_lead_somewhere():
    # Those of the documents are checked where the site is built, with --strict.
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", README.read_text()):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target


def test_the_readme_is_short():
    assert len(README.read_text().split()) <= 1000


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_snippets_of_a_page_run_one_after_the_other(page, tmp_path):
    script = tmp_path / "snippets.py"
    script.write_text("\n".join(snippets(page)))
    subprocess.run(
        [sys.executable, script],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        check=True,
        timeout=600,
    )
