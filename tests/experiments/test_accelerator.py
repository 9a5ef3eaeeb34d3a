"""The script for an accelerator runs on a CPU, small."""

import json

import pytest

from experiments import accelerator
from meta_lrpinn.learning import configs
from meta_lrpinn.runtime.precision import matrix_precision

SMALL = {
    "accelerator_repeats": 1, "accelerator_matrix": 64, "accelerator_velocities": 2,
    "accelerator_sources": 2, "accelerator_points": 16,
}  # fmt: skip


def test_products_are_those_of_the_layers():
    """By hand: one layer of rank 2, 3 units, a point, in 2D."""
    network = configs.NetworkConfig(width=3, depth=1, rank=2)
    forward = 5 * 2 * (3 * 2 + 2 * 3 + 3 * 3 + 3 * 2)
    assert accelerator.products(network, 1) == pytest.approx(4e-9 * forward)


@pytest.mark.slow
def test_table_and_json(experiment):
    out = experiment("accelerator", **SMALL)
    (file,) = out.glob("*.json")
    rows = json.loads(file.read_text())["rows"]
    assert len(rows) == 10
    assert all(row["seconds"] > 0 for row in rows)
    table = (out / "table.md").read_text()
    for row in rows:
        assert f"| {row['what']} |" in table
    assert (out / "figure.png").stat().st_size > 10_000


def test_matrix_precision_is_one_of_jax(monkeypatch):
    assert matrix_precision() == "highest"
    monkeypatch.setenv("META_LRPINN_PRECISION", "tensorfloat32")
    assert matrix_precision() == "tensorfloat32"
    monkeypatch.setenv("META_LRPINN_PRECISION", "half")
    with pytest.raises(ValueError, match="META_LRPINN_PRECISION must be highest"):
        matrix_precision()
