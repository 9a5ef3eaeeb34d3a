"""Damaged files: refused in one short line, and nothing else happens."""

import os

import numpy as np
import pytest
import scipy.io

from meta_lrpinn.files.cases import load_velocity

VALUES = np.random.default_rng(0).uniform(1.5, 4.5, (12, 14)).astype(np.float32)
SUFFIXES = ("npy", "npz", "mat", "h5", "nc", "sgy", "rsf", "bin")


def write(path, suffix):
    if suffix == "npy":
        np.save(path, VALUES)
    elif suffix == "npz":
        np.savez_compressed(path, velocity=VALUES, spacing=0.1, source=(0.1, 0.1))
    elif suffix == "mat":
        contents = {"velocity": VALUES, "a": {"b": VALUES}, "spacing": 0.1}
        scipy.io.savemat(path, contents)
    elif suffix == "h5":
        h5py = pytest.importorskip("h5py")
        with h5py.File(path, "w") as file:
            file["velocity"] = VALUES
    elif suffix == "nc":
        xarray = pytest.importorskip("xarray")
        dataset = xarray.Dataset({"velocity": (("z", "x"), VALUES)})
        dataset.to_netcdf(path, engine="h5netcdf")
    elif suffix == "sgy":
        segyio = pytest.importorskip("segyio")
        segyio.tools.from_array2D(str(path), VALUES.T.copy())
    elif suffix == "bin":
        VALUES.tofile(path)
    else:
        header = b'n1=12 n2=14 d1=0.1 d2=0.1 data_format="native_float" in="stdin"\n'
        path.write_bytes(header + b"\x0c\x0c\x04" + VALUES.T.tobytes())


def damaged(data, rng):
    """Some bytes replaced, mostly near the start, where the structure is; or cut."""
    data = bytearray(data)
    reach = rng.choice([64, 256, len(data)])
    for _ in range(rng.integers(1, 9)):
        data[rng.integers(min(reach, len(data)))] = rng.choice([0, 255, rng.integers(256)])
    return bytes(data[: rng.integers(len(data))] if rng.random() < 0.2 else data)


def check(tmp_path, suffix, count):
    path = tmp_path / f"a.{suffix}"
    write(path, suffix)
    good = path.read_bytes()
    options = {"shape": VALUES.shape} if suffix == "bin" else {}
    load_velocity(path, spacing=0.1, **options)
    refusals = 0
    rng = np.random.default_rng(1)
    for _ in range(count):
        path.write_bytes(damaged(good, rng))
        try:
            load_velocity(path, spacing=0.1, **options)
        except (ValueError, OSError) as error:
            refusals += 1
            assert len(str(error).splitlines()) == 1
            assert len(str(error)) <= 300
    assert os.listdir(tmp_path) == [path.name]
    print(f"{suffix}: {count - refusals} read, {refusals} refused")
    assert refusals > count / 20


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_damaged_files_are_refused_in_a_line(tmp_path, suffix):
    check(tmp_path, suffix, 50)


@pytest.mark.counts(slow=300, reliability=1700)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_many_damaged_files_are_refused_in_a_line(tmp_path, suffix, count):
    check(tmp_path, suffix, count)
