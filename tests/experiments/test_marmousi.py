"""Windows of Marmousi, adapted for two steps on a tiny network."""

import numpy as np
from absl.testing import flagsaver

from experiments import marmousi, reports, study
from meta_lrpinn import generators


def test_windows_are_where_they_are_said_to_be(
    experiment, tiny_init, tmp_path, monkeypatch
):
    model = generators.thrust_belt(0, shape=(101, 391))
    np.savez(
        tmp_path / "velocity_models.npz",
        marmousi=model.velocity,
        marmousi_spacing=model.spacing,
    )
    monkeypatch.setattr(marmousi, "WINDOWS", {"faults": (5.0, 0.0)})
    meta = {
        name: study.Contender(study.saved(tiny_init))
        for name in ("Meta-LRPINN", "Meta-LRPINN, hypernetwork kept")
    }
    monkeypatch.setattr(study, "contenders", lambda: meta)
    monkeypatch.setattr(
        reports, "direct_lines", lambda _: {"plane waves": (0.01, 0.5, 9, 2.0)}
    )
    out = experiment(
        "marmousi", init=tiny_init, data=str(tmp_path), frequencies=["2"], points=40,
        steps=2, seeds=1,
    )  # fmt: skip
    table = (out / "table.md").read_text()
    assert "| Marmousi faults, 2 Hz | Meta-LRPINN |" in table
    with flagsaver.flagsaver(data=str(tmp_path)):
        window = marmousi.make_case("faults", 2.0).model
    np.testing.assert_allclose(window.velocity, model.velocity[:91, 200:291], rtol=1e-6)
