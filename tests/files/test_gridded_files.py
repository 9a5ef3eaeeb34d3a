"""netCDF and zarr velocity files, as xarray writes them."""

import importlib.util

import numpy as np
import pytest

from meta_lrpinn.files.cases import load_velocity

xarray = pytest.importorskip("xarray")
pytest.importorskip("h5netcdf")
pytest.importorskip("zarr")

RNG = np.random.default_rng(0)
FLAT = RNG.uniform(1.5, 4.5, (7, 9)).astype(np.float32)  # (nz, nx)
CUBE = RNG.uniform(1.5, 4.5, (5, 3, 4)).astype(np.float32)  # (nz, ny, nx)
Z, X = 0.3 + 0.02 * np.arange(7), 1.0 + 0.03 * np.arange(9)


def write(dataset, path):
    if path.suffix == ".zarr":
        dataset.to_zarr(path, consolidated=False)
    else:
        dataset.to_netcdf(path, engine="h5netcdf")
    return path


def flat(dims=("z", "x"), units="km", scale=1.0, name="velocity"):
    values = FLAT if dims[0] in ("z", "depth") else FLAT.T
    axes = dict(zip(dims, (Z, X) if values is FLAT else (X, Z), strict=True))
    coordinates = {
        dim: (dim, scale * values, {"units": units}) for dim, values in axes.items()
    }
    return xarray.Dataset({name: (dims, values)}, coordinates)


@pytest.mark.parametrize("ending", [".nc", ".zarr"])
def test_grid_and_origin_are_those_of_the_coordinates(tmp_path, ending):
    model = load_velocity(write(flat(), tmp_path / f"a{ending}"))
    np.testing.assert_array_equal(model.velocity, FLAT)
    np.testing.assert_allclose(model.spacing, (0.02, 0.03))
    np.testing.assert_allclose(model.origin, (1.0, 0.3))


def test_classic_netcdf_is_read(tmp_path):
    flat().to_netcdf(tmp_path / "a.nc", engine="scipy")
    np.testing.assert_array_equal(load_velocity(tmp_path / "a.nc").velocity, FLAT)


def test_a_zarr_at_a_url_is_read(tmp_path):
    pytest.importorskip("fsspec")
    path = write(flat(name="vp"), tmp_path / "a.zarr")
    model = load_velocity(f"file://{path}:vp")
    np.testing.assert_array_equal(model.velocity, FLAT)
    np.testing.assert_allclose(model.origin, (1.0, 0.3))


def test_netcdf_needs_no_xarray_and_the_classic_kind_no_library(tmp_path, monkeypatch):
    flat().to_netcdf(tmp_path / "classic.nc", engine="scipy")
    write(flat(), tmp_path / "new.nc")
    find = importlib.util.find_spec
    missing = ["xarray"]
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in missing else find(name)
    )
    np.testing.assert_array_equal(load_velocity(tmp_path / "new.nc").velocity, FLAT)
    missing.append("h5py")
    np.testing.assert_array_equal(load_velocity(tmp_path / "classic.nc").velocity, FLAT)
    with pytest.raises(ValueError, match=r"reading netCDF needs h5py: .*\[hdf5\]"):
        load_velocity(tmp_path / "new.nc")


@pytest.mark.parametrize("dims", [("x", "z"), ("depth", "distance"), ("X", "Depth")])
def test_named_axes_need_no_transpose(tmp_path, dims):
    model = load_velocity(write(flat(dims), tmp_path / "a.nc"))
    np.testing.assert_array_equal(model.velocity, FLAT)
    np.testing.assert_allclose(model.spacing, (0.02, 0.03))


def test_metres_of_the_coordinates_are_followed(tmp_path):
    model = load_velocity(write(flat(units="m", scale=1000), tmp_path / "a.nc"))
    np.testing.assert_allclose(model.spacing, (0.02, 0.03))
    np.testing.assert_allclose(model.origin, (1.0, 0.3))


def test_volumes_and_stacks_are_told_apart_by_their_coordinates(tmp_path):
    axes = {"z": 0.1 * np.arange(5), "y": 0.2 * np.arange(3), "x": 0.3 * np.arange(4)}
    volume = xarray.Dataset({"vp": (("y", "x", "z"), np.moveaxis(CUBE, 0, -1))}, axes)
    model = load_velocity(write(volume, tmp_path / "a.nc"))
    np.testing.assert_array_equal(model.velocity, CUBE)
    np.testing.assert_allclose(model.spacing, (0.1, 0.2, 0.3))
    axes = {"z": 0.1 * np.arange(3), "x": 0.3 * np.arange(4)}
    stack = xarray.Dataset({"vp": (("model", "z", "x"), CUBE)}, axes)
    path = write(stack, tmp_path / "b.zarr")
    model = load_velocity(f"{path}:vp[2]")
    np.testing.assert_array_equal(model.velocity, CUBE[2])
    np.testing.assert_allclose(model.spacing, (0.1, 0.3))


def test_one_array_of_several_is_named(tmp_path):
    both = flat(name="vp").assign(vs=(("z", "x"), FLAT / 2))
    path = write(both, tmp_path / "a.nc")
    np.testing.assert_array_equal(load_velocity(f"{path}:vs").velocity, FLAT / 2)
    with pytest.raises(ValueError, match="holds several models; name one of vp, vs"):
        load_velocity(path)


@pytest.mark.parametrize("kind", ["f4", "f8"])
def test_spacing_is_that_of_the_coordinates_before_their_rounding(tmp_path, kind):
    coordinates = {
        name: (np.arange(size) * 0.05).astype(kind) for name, size in (("z", 13), ("x", 17))
    }
    dataset = xarray.Dataset(
        {"velocity": (("z", "x"), np.full((13, 17), 2.0))}, coordinates
    )
    dataset.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    assert load_velocity(tmp_path / "a.nc").spacing == (0.05, 0.05)


def test_uneven_coordinates_are_no_spacing(tmp_path):
    uneven = flat().assign_coords(x=X**2)
    path = write(uneven, tmp_path / "a.nc")
    with pytest.raises(ValueError, match="holds no grid spacing for velocity"):
        load_velocity(path)
    assert load_velocity(path, spacing=(0.02, 0.1)).spacing == (0.02, 0.1)
    with pytest.raises(ValueError, match="coordinates say .0.02, uneven. km: leave out"):
        load_velocity(path, spacing=0.1)


@pytest.mark.parametrize("ending", [".nc", ".zarr"])
def test_what_is_no_such_file_is_refused_in_one_line(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    if ending == ".zarr":
        path.mkdir()
    else:
        path.write_bytes(b"CDF? no")
    with pytest.raises(ValueError, match=f"cannot read .*a{ending}: ") as error:
        load_velocity(path)
    assert "\n" not in str(error.value)
