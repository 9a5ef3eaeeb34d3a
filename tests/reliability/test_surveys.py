"""A large survey on two workers that is killed twice has the bytes of one process."""

import sys
import time

import numpy as np
import pytest

from meta_lrpinn import generators

pytestmark = [
    pytest.mark.reliability,
    pytest.mark.skipif(sys.platform != "linux", reason="ends groups of processes"),
]
MODELS, SOURCES, FREQUENCIES = 200, 10, (2.0, 3.0, 4.0)
SHAPE, SPACING = (11, 16), 0.08

SURVEY = """
import sys
import numpy as np
import meta_lrpinn as ml

if __name__ == "__main__":
    ml.run_survey(
        ml.open_velocities("models.npy", {spacing}),
        {frequencies},
        np.stack([np.linspace(0.1, 1.1, {sources}), np.full({sources}, {spacing})], -1),
        sys.argv[1],
        ml.FiniteDifferences(tolerance=None),
        workers=int(sys.argv[2]) if len(sys.argv) > 2 else None,
    )
"""


def test_a_survey_on_two_workers_killed_twice(tmp_path, commands, contents):
    pytest.importorskip("zarr")
    pytest.importorskip("distributed")
    velocities = [
        generators.random_velocity(seed, SHAPE, SPACING).velocity for seed in range(MODELS)
    ]
    np.save(tmp_path / "models.npy", np.stack(velocities))
    script = SURVEY.format(spacing=SPACING, frequencies=FREQUENCIES, sources=SOURCES)
    (tmp_path / "survey.py").write_text(script)
    solved = tmp_path / "killed.zarr" / "solved" / "c"
    rng = np.random.default_rng(0)

    def chunks():
        return sum(path.is_file() for path in solved.rglob("*"))

    counts = []
    for _ in range(2):
        process = commands.start("survey.py", "killed.zarr", "2")
        enough = chunks() + rng.integers(2, 14)
        while chunks() < enough:
            assert process.poll() is None
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.5))
        commands.kill(process)
        counts.append(chunks())
    commands.finish(commands.start("survey.py", "killed.zarr", "2"))
    assert 0 < counts[0] < counts[1] < chunks()
    print(f"survey: killed after {counts} of {chunks()} chunks")
    commands.finish(commands.start("survey.py", "alone.zarr"))
    one, other = contents(tmp_path / "killed.zarr"), contents(tmp_path / "alone.zarr")
    assert one.keys() - {".lock"} == other.keys() - {".lock"}
    assert all(one[name] == other[name] for name in other)
    import zarr

    group = zarr.open_group(tmp_path / "killed.zarr", mode="r")
    assert group["scattered"].shape == (MODELS, len(FREQUENCIES), SOURCES, *SHAPE)
    assert np.all(group["solved"][:]) and np.all(np.isfinite(group["scattered"][:]))
