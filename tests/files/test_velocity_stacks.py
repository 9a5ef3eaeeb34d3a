"""Stacks of velocities: the same from memory and from every kind of file."""

import pickle

import numpy as np
import pytest

from meta_lrpinn.files.velocity_stacks import open_velocities
from meta_lrpinn.physics.velocity import VelocityModel

VALUES = 1.5 + np.arange(5 * 4 * 3).reshape(5, 4, 3) / 40
SPACING = (0.1, 0.2)


def read(velocities):
    return np.stack([model.velocity for model in velocities])


@pytest.fixture(params=["npy", "npz", "zarr", "zarr with coordinates"])
def path(request, tmp_path):
    kind = request.param
    path = tmp_path / f"models.{kind.split()[0]}"
    if kind == "npy":
        np.save(path, VALUES)
    elif kind == "npz":
        np.savez(path, velocity=VALUES, spacing=SPACING, other=np.ones(3))
    else:
        zarr = pytest.importorskip("zarr")
        group = zarr.open_group(path, mode="w")
        names = ("model", "z", "x")
        array = group.create_array("velocity", data=VALUES, dimension_names=names)
        if kind == "zarr":
            array.attrs["spacing"] = SPACING
        else:
            group.create_array("z", data=0.1 * np.arange(4), dimension_names=("z",))
            group.create_array("x", data=0.2 * np.arange(3), dimension_names=("x",))
    return path


def test_a_file_is_what_memory_holds(path):
    spacing = SPACING if path.suffix == ".npy" else None
    velocities = open_velocities(path, spacing)
    assert len(velocities) == 5
    assert velocities.grid.spacing == pytest.approx(SPACING)
    np.testing.assert_array_equal(read(velocities), VALUES)
    part = pickle.loads(pickle.dumps(velocities.part(1, 4).part(1, 3)))
    np.testing.assert_array_equal(read(part), VALUES[2:4])
    memory = open_velocities([VelocityModel(values, SPACING) for values in VALUES])
    np.testing.assert_array_equal(read(memory.part(1, 4).part(1, 3)), VALUES[2:4])


def test_what_is_sent_to_a_worker_is_small(tmp_path):
    path = tmp_path / "models.npy"
    np.save(path, np.full((100, 50, 50), 2.0))
    assert len(pickle.dumps(open_velocities(path, 0.1).part(0, 50))) < 1000
    models = [VelocityModel(values, SPACING) for values in VALUES]
    whole, part = open_velocities(models), open_velocities(models).part(0, 1)
    difference = len(pickle.dumps(whole)) - len(pickle.dumps(part))
    assert difference == pytest.approx(VALUES[1:].nbytes, abs=50)


def test_a_single_section_and_metres(tmp_path):
    path = tmp_path / "one.npy"
    np.save(path, 1000 * VALUES[0])
    (model,) = open_velocities(path, 0.1, "m/s")
    np.testing.assert_allclose(model.velocity, VALUES[0])


def test_volumes_are_told_from_stacks_by_spacing(tmp_path):
    path = tmp_path / "cube.npy"
    np.save(path, VALUES)
    assert len(open_velocities(path, (0.1, 0.1, 0.1))) == 1
    assert open_velocities(path, (0.1, 0.1, 0.1)).grid.ndim == 3
    assert len(open_velocities(path, 0.1)) == 5


def test_what_is_no_velocity_is_refused_in_one_line(tmp_path):
    path = tmp_path / "models.npy"
    np.save(path, VALUES)
    with pytest.raises(ValueError, match="holds no grid spacing"):
        open_velocities(path)
    with pytest.raises(FileNotFoundError, match="there is no velocity file"):
        open_velocities(tmp_path / "none.npy")
    wrong = VALUES.copy()
    wrong[3, 0, 0] = -1
    np.save(path, wrong)
    with pytest.raises(ValueError, match="velocity 3 of the survey: .*velocity"):
        read(open_velocities(path, 0.1))
    np.savez(tmp_path / "two.npz", a=VALUES, b=VALUES)
    with pytest.raises(ValueError, match="holds several models; name one of a, b"):
        open_velocities(tmp_path / "two.npz", 0.1)
    with pytest.raises(ValueError, match="at least one model"):
        open_velocities([])
    with pytest.raises(ValueError, match="share one grid"):
        open_velocities([VelocityModel(VALUES[0], s) for s in (0.1, 0.2)])
