"""Random tasks that training never drew, adapted for two steps on a tiny network."""

import numpy as np

from experiments import held_tasks, reports, study
from meta_lrpinn.physics.velocity import VelocityModel


def test_every_task_is_another_random_velocity(experiment, tiny_init, monkeypatch):
    seeds = []

    def random_velocity(seed, shape, spacing):
        seeds.append(seed)
        velocity = np.linspace(1.5, 2.5 + len(seeds), shape[0])[:, None]
        return VelocityModel(np.array(np.broadcast_to(velocity, shape)), 2 * spacing)

    monkeypatch.setattr(held_tasks.generators, "random_velocity", random_velocity)
    monkeypatch.setattr(held_tasks, "_SHAPE", (21, 21))
    meta = {"Meta-LRPINN": study.Contender(study.saved(tiny_init))}
    monkeypatch.setattr(study, "contenders", lambda: meta)
    monkeypatch.setattr(
        reports, "direct_lines", lambda _: {"plane waves": (0.01, 0.5, 9, 2.0)}
    )
    out = experiment(
        "held_tasks", init=tiny_init, frequencies=["2", "3"], points=40, steps=2, seeds=1
    )
    table = (out / "table.md").read_text()
    assert "| random velocity 1, 2 Hz | Meta-LRPINN |" in table
    assert "| random velocity 2, 3 Hz | Meta-LRPINN |" in table
    # Meta-training draws its seeds below.
    assert len(set(seeds)) == 2 and min(seeds) >= 2**31
