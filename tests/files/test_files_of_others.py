"""Files as other people have them: read as what they mean, or refused with the remedy."""

import numpy as np
import pytest

import meta_lrpinn as ml
from meta_lrpinn import cli
from meta_lrpinn.cli import Report, problem
from meta_lrpinn.files.cases import load_case, load_quality, load_velocity
from meta_lrpinn.files.velocity_stacks import open_velocities

VALUES = np.random.default_rng(0).uniform(1.5, 4.5, (3, 7, 9))  # (model, z, x) [km/s]
Z, X = 0.02 * np.arange(7), 1.0 + 0.03 * np.arange(9)  # km
FOOT = 0.3048e-3  # km


def dataset(values=VALUES[0], dims=("z", "x"), attributes=(), **coordinates):
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf")
    pytest.importorskip("zarr")
    coordinates = {"z": ("z", Z), "x": ("x", X)} | coordinates
    return xarray.Dataset({"velocity": (dims, values, dict(attributes))}, coordinates)


def assert_same(model, velocity=VALUES[0], origin=(1.0, 0.0)):
    np.testing.assert_allclose(model.velocity, velocity, rtol=1e-6)
    np.testing.assert_allclose(model.spacing, (0.02, 0.03), rtol=1e-6)
    np.testing.assert_allclose(model.origin, origin, atol=1e-9)


def refused(message, *arguments, reader=load_velocity, **options):
    with pytest.raises(ValueError, match=message) as error:
        reader(*arguments, **options)
    assert "\n" not in str(error.value) and len(str(error.value)) <= 300


# Stacks follow the rules of single models


@pytest.mark.parametrize("dims", [("model", "x", "z"), ("x", "z", "model")])
@pytest.mark.parametrize("units", ["km", "m"])
@pytest.mark.parametrize("ending", ["zarr", "nc", "h5"])
def test_stacks_go_by_the_names_of_dimensions(tmp_path, dims, units, ending):
    path = tmp_path / f"stack.{ending}"
    axes = tuple(("model", "z", "x").index(name) for name in dims)
    scale = 1000 if units == "m" else 1
    data = dataset(
        np.transpose(VALUES, axes),
        dims,
        z=("z", Z * scale, {"units": units}),
        x=("x", X * scale, {"units": units}),
    )
    if ending == "zarr":
        data.to_zarr(path, consolidated=False)
    else:
        data.to_netcdf(path, engine="h5netcdf")
    velocities = open_velocities(path)
    for model, expected in zip(velocities, VALUES, strict=True):
        assert_same(model, expected)
    assert_same(load_velocity(f"{path}:velocity[2]"), VALUES[2])
    assert_same(next(iter(velocities.part(1, 2))), VALUES[1])
    assert "transposed from (x, z)" in velocities.notes
    assert ("lengths from m" in velocities.notes) == (units == "m")


def test_a_zarr_with_one_section_and_one_without_a_group(tmp_path):
    zarr = pytest.importorskip("zarr")
    dataset().to_zarr(tmp_path / "one.zarr", consolidated=False)
    (model,) = open_velocities(tmp_path / "one.zarr")
    assert_same(model)
    zarr.save_array(tmp_path / "bare.zarr", VALUES)
    assert len(open_velocities(tmp_path / "bare.zarr", (0.02, 0.03))) == 3
    found = load_velocity(f"{tmp_path / 'bare.zarr'}:velocity[1]", spacing=(0.02, 0.03))
    assert_same(found, VALUES[1], (0.0, 0.0))


def test_stacks_in_metres(tmp_path):
    path = tmp_path / "stack.npz"
    np.savez(path, velocity=1000 * VALUES, spacing=(20, 30), origin=(1000, 0))
    for model, expected in zip(open_velocities(path, unit="m/s"), VALUES, strict=True):
        assert_same(model, expected)
    assert_same(load_velocity(f"{path}:velocity[1]", unit="m/s"), VALUES[1])
    np.savez(path, velocity=VALUES, spacing=(20, 30))
    refused("is the spacing 30 in m, ft or km", f"{path}:velocity[1]")
    refused(
        "is the spacing 30 in m, ft or km", path, reader=lambda p: list(open_velocities(p))
    )


# Directions


def test_heights_become_depths(tmp_path):
    up = dataset(VALUES[0, ::-1], z=("z", -Z[::-1], {"positive": "up"}))
    up.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    case = load_case(tmp_path / "a.nc")
    assert_same(case.model)
    assert case.notes == ("z flipped (it holds heights)",)
    down = dataset(z=("z", -Z, {"positive": "up"}))  # from the surface down
    down.to_netcdf(tmp_path / "b.nc", engine="h5netcdf")
    assert_same(load_velocity(tmp_path / "b.nc"))
    unsaid = dataset(VALUES[0, ::-1], z=("z", -Z[::-1]))
    unsaid.to_netcdf(tmp_path / "c.nc", engine="h5netcdf")
    refused("z runs from -0.12 to .*positive='up'", tmp_path / "c.nc")
    up.assign(source=("c", [1.1, -0.02])).to_netcdf(tmp_path / "d.nc", engine="h5netcdf")
    refused("is the source's a height or a depth", tmp_path / "d.nc")


def test_decreasing_coordinates_are_turned(tmp_path):
    path = tmp_path / "a.nc"
    turned = dataset(VALUES[0, ::-1, ::-1], z=("z", Z[::-1]), x=("x", X[::-1]))
    fields = np.arange(63.0).reshape(7, 9) * (1 + 2j)
    turned["quality"] = ("x", "z"), VALUES[1, ::-1, ::-1].T + 50
    turned["scattered_real"] = ("z", "x"), fields.real[::-1, ::-1]
    turned["scattered_imag"] = ("z", "x"), fields.imag[::-1, ::-1]
    turned.to_netcdf(path, engine="h5netcdf")
    case = load_case(path)
    assert_same(case.model)
    np.testing.assert_allclose(case.model.quality, VALUES[1] + 50)
    np.testing.assert_array_equal(case.scattered, fields)
    np.testing.assert_allclose(load_quality(path), VALUES[1] + 50)
    assert len(case.notes) == 2 and "z flipped (its coordinates decrease)" in case.notes
    with pytest.raises(ValueError, match="which says their order: leave out"):
        load_velocity(path, transpose=True)


# Attributes that change what numbers mean


@pytest.mark.parametrize("ending", ["nc", "h5", "zarr", "npz", "mat"])
def test_packed_numbers_are_unpacked(tmp_path, ending):
    scipy_io = pytest.importorskip("scipy.io")
    path = tmp_path / f"a.{ending}"
    packed = np.round((VALUES[0] - 1) / 2e-4).astype(np.int16)
    expected = packed * 2e-4 + 1
    packed[2, 3] = -9
    attributes = {"scale_factor": 2e-4, "add_offset": 1.0, "missing_value": np.int16(-9)}
    if ending in ("nc", "h5"):
        dataset(packed, attributes=attributes).to_netcdf(path, engine="h5netcdf")
    elif ending == "zarr":
        attributes["missing_value"] = -9
        dataset(packed, attributes=attributes).to_zarr(path, consolidated=False)
    else:
        arrays = {f"velocity_{key}": value for key, value in attributes.items()}
        arrays |= {"velocity": packed, "spacing": (0.02, 0.03), "origin": (1.0, 0.0)}
        np.savez(path, **arrays) if ending == "npz" else scipy_io.savemat(path, arrays)
    refused("1 NaN or infinite", path)
    model = load_velocity(path, fill="nearest")
    expected[2, 3] = model.velocity[2, 3]
    assert_same(model, expected)
    (stacked,) = open_velocities(path, fill="nearest")
    assert_same(stacked, expected)


@pytest.mark.parametrize("unit", ["ft/s", "feet per second", "ft s-1"])
def test_feet_of_attributes(tmp_path, unit):
    feet = dataset(
        VALUES[0] / FOOT,
        attributes={"units": unit},
        z=("z", Z / FOOT, {"units": "ft"}),
        x=("x", X / FOOT, {"units": "feet"}),
    )
    feet.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    case = load_case(tmp_path / "a.nc")
    assert_same(case.model)
    assert case.notes == ("lengths from ft", "velocity from ft/s")
    refused(
        "unit is m/s, but the file says .* ft/s: leave out", tmp_path / "a.nc", unit="m/s"
    )
    refused("spacing_unit is m, but .* ft", tmp_path / "a.nc", spacing_unit="m")


def test_feet_of_headers_contradict_metres(tmp_path):
    (tmp_path / "a.rsf@").write_bytes((VALUES[0] / FOOT).T.astype("<f4").tobytes())
    header = (
        f"n1=7 n2=9 d1={0.02 / FOOT} d2={0.03 / FOOT} o2={1 / FOOT} unit1=ft unit2=ft "
        'data_format="native_float" in="a.rsf@"'
    )
    path = tmp_path / "a.rsf"
    path.write_text(header)
    refused("looks like m/s or ft/s", path)
    refused("unit is m/s, but .* lengths are in ft: give unit='ft/s'", path, unit="m/s")
    assert_same(load_velocity(path, unit="ft/s"))
    mixed = load_case(path, unit="m/s", spacing_unit="ft")
    assert mixed.model.spacing == pytest.approx((0.02, 0.03))
    assert any("is the file in ft/s?" in note for note in mixed.notes)
    path.write_text(f'{header} unit="ft/s"')
    assert_same(load_velocity(path))


@pytest.mark.parametrize("unit, power", [("s/km", -1), ("s2/km2", -2), ("s²/km²", -2)])
def test_slowness_is_converted_or_refused(tmp_path, unit, power):
    path = tmp_path / "a.npz"
    np.savez(path, velocity=VALUES[0] ** power, spacing=(0.02, 0.03), origin=(1.0, 0.0))
    refused("is it slowness .unit='s/km'.", path)
    refused("is it slowness", path, reader=lambda p: list(open_velocities(p)))
    assert_same(load_velocity(path, unit=unit))
    np.savez(path, slowness=VALUES[0] ** power, spacing=(0.02, 0.03), origin=(1.0, 0.0))
    refused("slowness is called slowness: say unit='s/km'", path)
    refused("slowness is called slowness", path, unit="km/s")
    assert_same(load_velocity(path, unit=unit))
    dataset(VALUES[0] ** power, attributes={"units": unit}).to_netcdf(
        tmp_path / "a.nc", engine="h5netcdf"
    )
    assert_same(load_velocity(tmp_path / "a.nc"))


def test_unknown_units_are_refused(tmp_path):
    path = tmp_path / "a.nc"
    dataset(attributes={"units": "knots"}).to_netcdf(path, engine="h5netcdf")
    refused("its unit of velocity, unless unit is given, must be one of km/s", path)
    assert_same(load_velocity(path, unit="km/s"))
    seconds = dataset(z=("z", Z, {"units": "s"}))
    seconds.to_netcdf(path, engine="h5netcdf")
    refused("the unit of z must be one of km, m", path)


# SEG-Y


def write_segy(path, x, y=0.0, endian="big", delay=0, weight=0, system=1):
    segyio = pytest.importorskip("segyio")
    spec = segyio.spec()
    spec.format, spec.samples, spec.tracecount = 5, np.arange(7.0), len(x)
    spec.endian = endian
    with segyio.create(str(path), spec) as file:
        for index, place in enumerate(x):
            file.trace[index] = VALUES[0, :, index].astype(np.float32)
            file.header[index] = {
                segyio.TraceField.CDP_X: round(place * 1e4),
                segyio.TraceField.CDP_Y: round(y * 1e4),
                segyio.TraceField.SourceGroupScalar: -10,
                segyio.TraceField.DelayRecordingTime: delay,
                segyio.TraceField.TraceWeightingFactor: weight,
            }
        fields = segyio.BinField
        file.bin.update({fields.Interval: 20_000, fields.MeasurementSystem: system})


@pytest.mark.parametrize("endian", ["big", "little"])
def test_segy_of_either_byte_order_has_its_origin(tmp_path, endian):
    write_segy(tmp_path / "a.sgy", X, y=3.0, endian=endian, delay=300)
    assert_same(load_velocity(tmp_path / "a.sgy"), origin=(1.0, 0.3))


def test_segy_of_traces_from_east_to_west(tmp_path):
    write_segy(tmp_path / "a.sgy", X[::-1])
    case = load_case(tmp_path / "a.sgy")
    assert_same(case.model, VALUES[0, :, ::-1])
    assert case.notes[0] == "x flipped (its coordinates decrease)"


def test_segy_samples_may_be_weighted(tmp_path):
    write_segy(tmp_path / "a.sgy", X, weight=1)
    assert_same(load_velocity(tmp_path / "a.sgy"), VALUES[0] / 2)


# NumPy


def test_pickled_members_are_left_alone(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, velocity=VALUES[0], spacing=0.02, notes=np.array([{}], object))
    assert load_velocity(path).shape == (7, 9)
    assert len(open_velocities(path)) == 1
    np.savez(path, velocity=np.array([{}], object), spacing=0.02)
    refused("holds no velocity model", path)


# The command line


def test_the_summary_says_what_was_done(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    turned = dataset(VALUES[0, ::-1].T, ("x", "z"), z=("z", Z[::-1]))
    turned.to_netcdf("a.nc", engine="h5netcdf")
    command = ("solve", "--velocity=a.nc", "--frequency=5", "--compare=none")
    assert cli.main((*command, "--solver=finite_differences", "--out=o")) == 0
    text = "transposed from (x, z); z flipped (its coordinates decrease)"
    assert text in capsys.readouterr().out


def test_a_home_is_meant_by_all_paths(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    ml.save_velocity(tmp_path / "a.npz", ml.VelocityModel(VALUES[0], 0.02))
    np.savetxt(tmp_path / "source.txt", [[0.06, 0.02]])
    assert cli.main((
        "solve", "--velocity=~/a.npz", "--source=~/source.txt", "--frequency=5",
        "--solver=finite_differences", "--out=~/o", "--compare=none",
    )) == 0  # fmt: skip
    assert (tmp_path / "o" / "wavefield.npz").exists()
    assert not list((tmp_path / "work").iterdir())


def test_a_folder_with_the_name_of_a_built_in_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "layered").mkdir()
    posed = problem.pose(cli.make_parser().parse(["solve"]), Report(quiet=True))
    assert posed.is_builtin and posed.name == "layered"
