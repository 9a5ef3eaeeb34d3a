"""Wavefields as datasets and files: what is written is what is read, in every format."""

import importlib.util

import numpy as np
import pytest

import meta_lrpinn as ml
from meta_lrpinn.results import storage

xarray = pytest.importorskip("xarray")
pytest.importorskip("h5netcdf")
pytest.importorskip("zarr")

VELOCITY = np.full((13, 17), 1.5)
VELOCITY[6:] = 2.2
MODEL = ml.VelocityModel(VELOCITY, (0.05, 0.04), origin=(1.0, 0.2))
SOURCES = {"one": (1.2, 0.25), "two": [(1.2, 0.25), (1.48, 0.25)]}
SETTINGS = ml.FiniteDifferences(tolerance=0.1)  # nothing to compile
NAMES = [f"field{suffix}" for suffix in storage.SUFFIXES]


def solve(source, **options):
    return ml.solve(MODEL, 4.0, source, SETTINGS, **options)


@pytest.fixture(scope="module", params=SOURCES)
def field(request):
    return solve(SOURCES[request.param], seed=3, thickness=0.4)


def test_the_dataset_has_coordinates_and_units(field):
    dataset = field.to_xarray()
    several = np.ndim(field.source) == 2
    assert dataset.scattered.dims == ("source", "z", "x")[0 if several else 1 :]
    np.testing.assert_array_equal(dataset.scattered, field.scattered)
    np.testing.assert_allclose(dataset.x, 1.0 + 0.04 * np.arange(17))
    np.testing.assert_allclose(dataset.z, 0.2 + 0.05 * np.arange(13))
    assert {dataset[axis].attrs["units"] for axis in "xz"} == {"km"}
    assert dataset.velocity.attrs["units"] == "km/s"
    assert (float(dataset.frequency), dataset.frequency.attrs["units"]) == (4.0, "Hz")
    places = np.stack([dataset.source_x, dataset.source_z], axis=-1)
    np.testing.assert_array_equal(places, field.source)
    np.testing.assert_array_equal(dataset.error_estimate, field.error_estimates)


def test_the_total_is_a_gap_at_the_source(field):
    dataset = field.to_xarray()
    gaps = np.isnan(dataset.total)
    np.testing.assert_array_equal(gaps, field.total.mask)
    assert gaps.sum() == len(np.atleast_2d(field.source))
    both = dataset.scattered + dataset.background
    np.testing.assert_allclose(dataset.total.where(~gaps, 0), both.where(~gaps, 0))
    assert "exp(+i omega t)" in dataset.attrs["conventions"]


def test_the_dataset_says_how_it_came_about(field):
    told = field.to_xarray().attrs
    assert (told["version"], told["seed"], told["thickness"]) == (ml.__version__, 3, 0.4)
    assert told["solver"] == "finite_differences"
    assert told["settings"] == repr(SETTINGS)
    assert told["unknowns"] == field.stats.unknowns
    assert np.datetime64(told["created"].removesuffix("+00:00")) > np.datetime64("2024")
    assert "initialisation" not in told and "reflection" not in told


@pytest.mark.parametrize("name", NAMES)
def test_what_is_saved_is_what_is_loaded(field, name, tmp_path):
    field.save(tmp_path / name)
    xarray.testing.assert_identical(ml.load_wavefield(tmp_path / name), field.to_xarray())
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_saved_is_a_case(field, name, tmp_path):
    field.save(tmp_path / name)
    case = ml.load_case(tmp_path / name)
    np.testing.assert_array_equal(case.model.velocity, MODEL.velocity)
    np.testing.assert_allclose(case.model.spacing, MODEL.spacing)
    np.testing.assert_allclose(case.model.origin, MODEL.origin)
    np.testing.assert_array_equal(case.source, field.source)
    np.testing.assert_array_equal(case.scattered, field.scattered)
    assert (case.frequency, case.amplitude) == (field.frequency, field.amplitude)
    assert case.background_velocity == pytest.approx(1.5)


def test_velocities_at_several_sources_are_the_default_of_a_case(tmp_path):
    sources = np.array([(1.2, 0.25), (1.2, 0.75)])
    field = solve(sources)
    assert np.ptp(field.background_velocity) > 0.5
    field.save(tmp_path / "a.npz")
    assert ml.load_case(tmp_path / "a.npz").background_velocity is None
    with np.load(tmp_path / "a.npz") as file:
        arrays = dict(file)
    np.savez(tmp_path / "b.npz", **{**arrays, "v0": np.array([1.5, 1.6])})
    with pytest.raises(ValueError, match="v0 must be one number, or the velocities at"):
        ml.load_case(tmp_path / "b.npz")


def test_netcdf_is_one_that_other_programs_read(field, tmp_path):
    field.save(tmp_path / "a.nc")
    plain = xarray.load_dataset(tmp_path / "a.nc", engine="h5netcdf")
    assert all(array.dtype.kind in "fiu" for array in plain.variables.values())
    np.testing.assert_array_equal(plain.scattered_imag, field.scattered.imag)


def test_three_dimensions(tmp_path):
    model = ml.VelocityModel(np.full((5, 6, 7), 2.0), 0.05)
    zeros = np.zeros(model.shape, np.complex64)
    field = ml.Wavefield(
        model=model,
        frequency=3.0,
        source=np.array([0.1, 0.15, 0.05]),
        amplitude=1.0,
        background_velocity=np.array(2.0),
        scattered=zeros,
        solver="by hand",
        settings=None,
        elapsed=0.0,
    )
    field.save(tmp_path / "a.zarr")
    dataset = ml.load_wavefield(tmp_path / "a.zarr")
    assert dataset.total.dims == ("z", "y", "x")
    assert float(dataset.source_y) == 0.15
    assert ml.load_case(tmp_path / "a.zarr").model.shape == (5, 6, 7)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_replaced_whole_or_not_at_all(field, name, tmp_path, monkeypatch):
    path = tmp_path / name
    field.save(path)
    before = ml.load_wavefield(path)

    def fail(self, *arguments, **options):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        for writer in ("to_netcdf", "to_zarr"):
            patch.setattr(xarray.Dataset, writer, fail)
        patch.setattr(np, "savez_compressed", fail)
        with pytest.raises(OSError, match="disk full"):
            field.save(path)
    xarray.testing.assert_identical(ml.load_wavefield(path), before)
    field.save(path)
    assert [one.name for one in tmp_path.iterdir()] == [name]


def test_only_what_saving_made_is_replaced(field, tmp_path):
    folder = tmp_path / "a.zarr"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="a.zarr is a folder with something else in it"):
        field.save(folder)
    (tmp_path / "b.zarr").write_text("a file")
    with pytest.raises(ValueError, match="b.zarr is a file, not a folder of zarr"):
        field.save(tmp_path / "b.zarr")
    (tmp_path / "c.nc").mkdir()
    with pytest.raises(ValueError, match="c.nc is a folder"):
        field.save(tmp_path / "c.nc")


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("a.txt", ValueError, "wavefields are written as .nc, .zarr, .h5, .npz, got"),
        ("nowhere/a.nc", FileNotFoundError, "there is no folder .*nowhere to write to"),
    ],
)
def test_saving_refuses(field, name, error, message, tmp_path):
    with pytest.raises(error, match=message):
        field.save(tmp_path / name)


def test_loading_refuses(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no wavefield"):
        ml.load_wavefield(tmp_path / "a.nc")
    np.savez(tmp_path / "a.npz", velocity=VELOCITY)
    with pytest.raises(ValueError, match="it was not written by Wavefield.save"):
        ml.load_wavefield(tmp_path / "a.npz")
    other = xarray.Dataset({"velocity": (("z", "x"), VELOCITY)})
    other.to_netcdf(tmp_path / "b.nc", engine="h5netcdf")
    with pytest.raises(ValueError, match="b.nc holds no wavefield"):
        ml.load_wavefield(tmp_path / "b.nc")


def test_a_missing_library_is_named_with_its_extra(field, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    message = r"needs xarray: pip install 'meta_lrpinn\[xarray\]'"
    with pytest.raises(ValueError, match=f"to_xarray {message}"):
        field.to_xarray()
    with pytest.raises(ValueError, match=f"writing .nc {message}"):
        field.save(tmp_path / "a.nc")
    field.save(tmp_path / "a.npz")


def test_errors_of_comparisons_are_kept(field):
    errors = np.full(np.shape(field.source)[:-1], 0.01)
    variables = storage.contents(field, {"reference": errors}).variables
    dimensions, values, _ = variables["relative_l2_reference"]
    assert dimensions == ("source",) * (np.ndim(field.source) - 1)
    np.testing.assert_array_equal(values, errors)
