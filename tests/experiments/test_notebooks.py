"""The notebooks run top to bottom, with small settings."""

import json
import os
from pathlib import Path

import matplotlib
import pytest

FOLDER = Path(__file__).parents[2] / "experiments" / "colab"
SMALL = {
    "quickstart": "SIZE = 41\nFREQUENCY = 4.0",
    "own_model": (
        "VELOCITY, SPACING, FREQUENCY, SIDE = None, 0.025, 3.0, 1.0\nSTEPS, POINTS = 4, 144"
    ),
    "meta_training": (
        "ITERATIONS = 2\nTASKS_PER_BATCH = 1\nPOINTS = 256\n"
        "WIDTH, DEPTH, RANK = 24, 2, 8\nFOLDER = 'run'"
    ),
}


@pytest.mark.parametrize(
    "name",
    # test_cli meta-trains and adapts as the others do.
    [
        "quickstart",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in SMALL
            if name != "quickstart"
        ),
    ],
)
def test_notebook_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    matplotlib.use("agg")
    notebook = json.loads((FOLDER / f"{name}.ipynb").read_text())
    namespace = {}
    tags = []
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        tag = (cell["metadata"].get("tags") or [""])[0]
        tags.append(tag)
        source = SMALL[name] if tag == "parameters" else "".join(cell["source"])
        if tag != "install":
            exec(compile(source, f"{name}.ipynb", "exec"), namespace)
    assert tags[:2] == ["install", "parameters"]
    if name == "quickstart":
        assert namespace["error"] < 0.03
        assert namespace["several"].scattered.shape == (5, 41, 41)
    elif name == "own_model":
        assert len(namespace["field"].history) == len(namespace["scratch"].history) > 1
        assert max(namespace["half"].ranks) == max(namespace["network"].ranks) // 2
    else:
        assert os.path.isdir(namespace["initialisation"])
