"""Every format is read as its own library writes it, and the options that go with it."""

import os
import pathlib
import signal
import zlib

import numpy as np
import pytest
import scipy.io

from meta_lrpinn.files.cases import SUFFIXES, load_case, load_velocity
from meta_lrpinn.files.readers import arrays, isolated

h5py = pytest.importorskip("h5py")
segyio = pytest.importorskip("segyio")

RNG = np.random.default_rng(0)
FLAT = RNG.uniform(1.5, 4.5, (7, 9)).astype(np.float32)
CUBE = RNG.uniform(1.5, 4.5, (5, 3, 4)).astype(np.float32)  # (nz, ny, nx)
OPTIONS = dict(spacing=(0.02, 0.03))


def refused(message, *arguments, **options):
    with pytest.raises(ValueError, match=message) as error:
        load_velocity(*arguments, **options)
    text = str(error.value)
    assert "\n" not in text and len(text) <= 300


# MATLAB


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("version", ["4", "5"])
def test_mat_files_are_read_as_scipy_reads_them(tmp_path, version, compress):
    path = tmp_path / "a.mat"
    kinds = "f8 f4 i4 i2 u2 u1" if version == "4" else "f8 f4 i1 i2 i4 i8 u1 u2 u4 u8"
    stored = {f"x{k}": RNG.uniform(0, 99, (3, 4)).astype(k) for k in kinds.split()}
    stored |= {"scalar": 2.5, "z": RNG.normal(size=(2, 5)) * (1 + 2j), "text": "words"}
    if version == "5":
        stored |= {"cube": CUBE, "flags": CUBE > 2, "small": np.uint8([[1, 2]])}
        stored |= {"cells": np.array([1, "a"], dtype=object), "empty": np.zeros((0, 3))}
    do_compression = compress and version == "5"
    scipy.io.savemat(path, stored, format=version, do_compression=do_compression)
    ours, theirs = arrays.read_matlab(path).arrays, scipy.io.loadmat(path)
    assert set(ours) == set(stored) - {"cells"}
    for key, value in ours.items():
        np.testing.assert_array_equal(value, theirs[key].squeeze().reshape(value.shape))


# Some of them repeat a name; some hold sparse matrices, which are not compared.
@pytest.mark.filterwarnings(
    "ignore::scipy.io.matlab.MatReadWarning",
    "ignore:The default value for `spmatrix`:DeprecationWarning",
)
def test_scipys_own_mat_files_are_read_as_scipy_reads_them():
    folder = pathlib.Path(scipy.io.matlab.__file__).parent / "tests" / "data"
    compared = 0
    for path in folder.glob("*.mat"):
        try:
            theirs = scipy.io.loadmat(path)
        except (ValueError, NotImplementedError, zlib.error):
            continue  # damaged on purpose, or HDF5
        ours = arrays.read_matlab(path).arrays
        for key, value in theirs.items():
            is_number = isinstance(value, np.ndarray) and value.dtype.kind in "fiuc"
            if is_number and not key.startswith("__"):
                squeezed = value.squeeze() if min(value.shape, default=0) == 1 else value
                np.testing.assert_array_equal(ours[key], squeezed, f"{path.name}: {key}")
                compared += 1
    if not compared:
        pytest.skip("this SciPy comes without the files of its tests")
    assert compared > 30


def test_fields_of_structs_have_names(tmp_path):
    path = tmp_path / "a.mat"
    inner = {"vp": FLAT, "spacing": [0.02, 0.03], "more": {"vs": FLAT / 2}}
    scipy.io.savemat(path, {"model": inner, "vp": CUBE})
    loaded = load_velocity(f"{path}:model.vp")
    np.testing.assert_array_equal(loaded.velocity, FLAT)
    assert loaded.spacing == (0.02, 0.03)
    np.testing.assert_array_equal(
        load_velocity(path, "model.more.vs", 0.1).velocity, FLAT / 2
    )


def test_matlab_7_3_has_its_axes_the_other_way(tmp_path):
    path = tmp_path / "a.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        file["velocity"] = FLAT.T
        file["velocity"].attrs["MATLAB_class"] = np.bytes_("single")
        file["spacing"] = np.array([[0.02], [0.03]])
        file["model/vp"] = CUBE.T
    with open(path, "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM")
    loaded = load_velocity(path)
    np.testing.assert_array_equal(loaded.velocity, FLAT)
    assert loaded.spacing == (0.02, 0.03)
    loaded = load_velocity(f"{path}:model/vp", spacing=(0.1, 0.2, 0.3))
    np.testing.assert_array_equal(loaded.velocity, CUBE)


# HDF5


def test_hdf5_numbers_stay_numbers_and_paths_may_start_at_the_root(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["velocity"], file["spacing"] = FLAT, 0.1
        file["source_x"], file["source_z"] = 0.2, 0.1
        file["deep/vp"] = FLAT
    np.testing.assert_array_equal(load_case(path).source, [0.2, 0.1])
    assert load_velocity(f"{path}:/deep/vp", spacing=0.1).shape == (7, 9)


def test_hdf5_datasets_and_attributes(tmp_path):
    path = tmp_path / "a.h5"
    gaps = FLAT.copy()
    gaps[2, 3] = -999
    with h5py.File(path, "w") as file:
        file["velocity"] = FLAT
        file["spacing"] = 0.025
        file.attrs["frequency"] = 5.0
        file["survey/vp"] = CUBE
        file["survey/vp"].attrs["spacing"] = (0.1, 0.2, 0.3)
        file["gaps"] = gaps
        file["gaps"].attrs["_FillValue"] = np.float32(-999)
        file["elsewhere"] = h5py.ExternalLink("/etc/passwd", "/x")
    case = load_case(path)
    np.testing.assert_array_equal(case.model.velocity, FLAT)
    assert (case.frequency, case.model.spacing) == (5.0, (0.025, 0.025))
    loaded = load_velocity(f"{path}:survey/vp")
    np.testing.assert_array_equal(loaded.velocity, CUBE)
    assert loaded.spacing == (0.1, 0.2, 0.3)
    refused("1 NaN .*fill='nearest'", path, "gaps")
    filled = load_velocity(path, "gaps", fill="nearest").velocity
    assert filled[2, 3] in (FLAT[1, 3], FLAT[3, 3], FLAT[2, 2], FLAT[2, 4])
    refused("no velocity model 'vs'; it holds gaps, survey/vp, velocity", path, "vs")


# SEG-Y


def write_cube(path, shuffle=False, holes=0, units=1, interval=20_000, angles=0):
    """5 x 3 x 4, at 20 m, 40 m, 30 m, rotated, coordinates in centimetres."""
    spec = segyio.spec()
    spec.format, spec.samples = 5, np.arange(5) * interval / 1000
    places = [(y, x) for y in range(3) for x in range(4)]
    if shuffle:
        np.random.default_rng(1).shuffle(places)
    places = places[: 12 - holes]
    spec.tracecount = len(places)
    across, along = np.array([-0.6, 0.8]) * 4000, np.array([0.8, 0.6]) * 3000
    with segyio.create(str(path), spec) as file:
        for number, (y, x) in enumerate(places):
            point = 5_000_000 + y * across + x * along
            file.trace[number] = CUBE[:, y, x].copy()
            file.header[number] = {
                segyio.TraceField.INLINE_3D: 100 + 2 * y,
                segyio.TraceField.CROSSLINE_3D: 300 + x,
                segyio.TraceField.CDP_X: round(point[0]),
                segyio.TraceField.CDP_Y: round(point[1]),
                segyio.TraceField.SourceGroupScalar: -100,
                segyio.TraceField.CoordinateUnits: angles,
            }
        signed = interval - 65536 if interval > 32767 else interval
        fields = segyio.BinField
        file.bin.update({fields.MeasurementSystem: units, fields.Interval: signed})


@pytest.mark.parametrize("shuffle", [False, True])
def test_segy_cubes_follow_inlines_and_crosslines(tmp_path, shuffle):
    write_cube(tmp_path / "a.sgy", shuffle)
    loaded = load_velocity(tmp_path / "a.sgy")
    np.testing.assert_allclose(loaded.velocity, CUBE, rtol=1e-6)
    np.testing.assert_allclose(loaded.spacing, (0.02, 0.04, 0.03), rtol=1e-6)


def test_segy_spacing_is_checked_against_the_headers(tmp_path):
    path = tmp_path / "a.sgy"
    write_cube(path)
    given = load_velocity(path, spacing=(20, 40, 30), spacing_unit="m").spacing
    np.testing.assert_allclose(given, (0.02, 0.04, 0.03))
    refused("spacing is .0.03, 0.03, 0.03. km, but the file", path, spacing=0.03)
    refused("coordinates say", path, spacing=(0.02, 0.03, 0.03))
    write_cube(path, units=2)
    feet = load_velocity(path).spacing
    np.testing.assert_allclose(feet, 0.3048 * np.array((0.02, 0.04, 0.03)), rtol=1e-6)


def test_segy_headers_in_other_units_are_not_believed(tmp_path):
    path = tmp_path / "a.sgy"
    spacing = (0.02, 0.04, 0.03)
    write_cube(path, interval=50_000)  # an interval has no sign
    np.testing.assert_allclose(load_velocity(path).spacing, (0.05, 0.04, 0.03))
    write_cube(path, interval=20)  # 20 m, or 20 mm?
    refused("no even coordinates of z", path)
    assert load_velocity(path, spacing=spacing).spacing == spacing
    refused("coordinates say", path, spacing=(0.02, 0.04, 0.04))
    write_cube(path, angles=2)
    refused("no even coordinates of z, y, x", path)
    assert load_velocity(path, spacing=spacing).spacing == spacing
    write_cube(path)
    refused("spacing must be one number or 3", path, spacing=(0.02, 0.03))


def test_segy_with_holes_is_refused(tmp_path):
    write_cube(tmp_path / "a.sgy", holes=1)
    refused("11 traces do not fill the grid of its 3 inlines and 4", tmp_path / "a.sgy")


# Madagascar and raw files


@pytest.mark.parametrize("data_format", ["native_float", "xdr_float", "ascii_float"])
@pytest.mark.parametrize("values", [FLAT, CUBE])
def test_rsf_has_depth_on_its_fastest_axis(tmp_path, values, data_format):
    stored = np.moveaxis(values, 0, -1)
    if data_format == "ascii_float":
        data = " ".join(f"{value:.9g}" for value in stored.ravel()).encode()
    else:
        data = stored.astype(">f4" if "xdr" in data_format else "<f4").tobytes()
    (tmp_path / "a.rsf@").write_bytes(data)
    sizes = " ".join(f"n{i + 1}={n}" for i, n in enumerate(stored.shape[::-1]))
    header = f'sfmath x=1\n  {sizes} d1=20 d2=30 d3=40 o1=0 o2=1000 unit1="m" unit2="m"'
    header += f' unit3=m data_format="{data_format}" esize=4 in="a.rsf@"\n'
    (tmp_path / "a.rsf").write_text(header)
    loaded = load_velocity(tmp_path / "a.rsf")
    np.testing.assert_allclose(loaded.velocity, values, rtol=1e-6)
    spacing = (0.02, 0.03) if values.ndim == 2 else (0.02, 0.04, 0.03)
    np.testing.assert_allclose(loaded.spacing, spacing)
    assert loaded.origin[0] == 1.0
    (tmp_path / "a.rsf@").write_bytes(data[:-20])
    refused("cannot read .*a.rsf: ", tmp_path / "a.rsf")


def test_rsf_in_one_file_and_devices(tmp_path):
    path = tmp_path / "a.rsf"
    header = b'n1=7 n2=9 d1=0.02 d2=0.03 data_format="native_float" in="stdin"\n'
    path.write_bytes(header + b"\x0c\x0c\x04" + FLAT.T.tobytes())
    np.testing.assert_array_equal(load_velocity(path).velocity, FLAT)
    path.write_text('n1=7 n2=9 data_format="native_float" in="/dev/zero"\n')
    refused("there is no file of numbers", path)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["float32", ">f4", "float64", "<i2"])
def test_raw_files_need_their_shape(tmp_path, order, dtype):
    path = tmp_path / "a.bin"
    values = np.round(1000 * FLAT).astype(dtype)
    path.write_bytes(values.tobytes(order=order))
    raw = dict(spacing=(20, 30), dtype=dtype, order=order)
    loaded = load_velocity(path, unit="m/s", spacing_unit="m", shape=(7, 9), **raw)
    np.testing.assert_allclose(loaded.velocity, values / 1000, rtol=1e-6)
    np.testing.assert_allclose(loaded.spacing, (0.02, 0.03))
    refused("a raw file needs its shape", path, **raw)
    refused("takes .* bytes, the file has", path, shape=(7, 8), **raw)
    refused("whole numbers from 1 up", path, shape=(7.0, 9), **raw)


# Options


def test_options_that_do_not_apply_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", FLAT)
    write_cube(tmp_path / "a.sgy")
    for option in (dict(shape=(7, 9)), dict(dtype="float64"), dict(order="F")):
        refused("are for raw files", tmp_path / "a.npy", **OPTIONS, **option)
    refused("transpose is not for SEG-Y", tmp_path / "a.sgy", transpose=True)
    refused("fill must be 'nearest'", tmp_path / "a.npy", **OPTIONS, fill="zero")
    refused("spacing_unit must be", tmp_path / "a.npy", **OPTIONS, spacing_unit="miles")


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("a.npy",), {"unit": ["m/s"]}, "unit must be one of km/s, m/s"),
        (("a.npy",), {"spacing_unit": {}}, "spacing_unit must be"),
        (("a.npy",), {"transpose": "no"}, "transpose must be True or False"),
        (("a.npy",), {"spacing": "wide"}, "spacing must be an array of real"),
        (("a.npy", 3), {}, "name must be text, got 3"),
        (("a.bin",), {"shape": 63, "spacing": 0.1}, r"got shape \(63,\)"),
        (("a.bin",), {"shape": "7,9", "spacing": 0.1}, "shape must be whole numbers"),
        (("a\nb.npy",), {}, "there is no velocity file"),
        (("a" * 5000 + ".npy",), {}, "there is no velocity file"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(tmp_path, arguments, options, message):
    np.save(tmp_path / "a.npy", FLAT)
    FLAT.tofile(tmp_path / "a.bin")
    path, *rest = arguments
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        load_velocity(tmp_path / path, *rest, **options)
    assert "\n" not in str(error.value) and len(str(error.value)) <= 300


def test_files_with_x_first_are_transposed(tmp_path):
    field = RNG.normal(size=(2, 7, 9)) * 1j
    np.savez(
        tmp_path / "a.npz",
        velocity=FLAT.T,
        spacing=(0.03, 0.02),
        source=[(0.1, 0.1), (0.2, 0.1)],
        scattered=np.swapaxes(field, 1, 2),
    )
    case = load_case(tmp_path / "a.npz", transpose=True)
    np.testing.assert_array_equal(case.model.velocity, FLAT)
    assert case.model.spacing == (0.02, 0.03)
    np.testing.assert_array_equal(case.scattered, field)
    np.save(tmp_path / "b.npy", CUBE.T)
    loaded = load_velocity(tmp_path / "b.npy", spacing=(0.1, 0.2, 0.3), transpose=True)
    np.testing.assert_array_equal(loaded.velocity, CUBE)


def test_a_stack_of_sections_is_no_volume(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, CUBE)
    refused(r"shape \(5, 3, 4\): give three spacings.*'velocity\[0\]'", path, spacing=0.1)
    one = load_velocity(f"{path}:velocity[3]", spacing=0.1)
    np.testing.assert_array_equal(one.velocity, CUBE[3])
    assert load_velocity(path, "[3]", 0.1).shape == (3, 4)
    assert load_velocity(path, spacing=(0.1,) * 3).shape == (5, 3, 4)
    refused("there is no section 5 of 5", path, "velocity[5]", 0.1)
    np.save(path, CUBE[:, None])  # as OpenFWI stores them
    refused(r"shape \(5, 1, 3, 4\): name one section", path, spacing=0.1)
    assert load_velocity(path, "velocity[4]", 0.1).shape == (3, 4)
    np.savez(tmp_path / "a.npz", velocity=CUBE, spacing=0.1, frequency=4.0)
    refused("give three spacings", tmp_path / "a.npz")
    assert load_case(f"{tmp_path / 'a.npz'}:velocity[1]").frequency is None


def test_metres_are_asked_about(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, 1000 * FLAT)
    refused("looks like m/s", path, spacing=0.02)
    refused("is the spacing 20 in m, ft or km", path, spacing=20, unit="m/s")
    loaded = load_velocity(path, spacing=20, unit="m/s", spacing_unit="m")
    assert loaded.spacing == (0.02, 0.02)
    np.testing.assert_allclose(loaded.velocity, FLAT, rtol=1e-6)


def test_members_that_are_no_arrays_are_left_out(tmp_path):
    import zipfile

    path = tmp_path / "a.npz"
    np.savez(path, velocity=FLAT, spacing=0.1)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("notes.npy", b"no array")
    assert load_velocity(path).shape == (7, 9)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("velocity.npy", b"no array")
    refused("the archive holds no array", path)


# The process of its own


def test_a_reader_that_dies_or_hangs_is_a_refusal(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["velocity"] = FLAT
    process = isolated._running()
    process.kill()
    process.wait()
    # One that has died between two files is replaced.
    np.testing.assert_array_equal(load_velocity(path, spacing=0.1).velocity, FLAT)
    # One that hangs is given up.
    os.kill(isolated._running().pid, signal.SIGSTOP)
    with pytest.raises(ValueError, match="its reader was stopped"):
        isolated.read("grouped.read_hdf5", path, None, patience=0.2)
    np.testing.assert_array_equal(load_velocity(path, spacing=0.1).velocity, FLAT)


def test_the_process_has_no_jax(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["velocity"] = FLAT
    load_velocity(path, spacing=0.1)
    maps = pathlib.Path(f"/proc/{isolated._running().pid}/maps")
    if not maps.exists():
        pytest.skip("only Linux says what a process has loaded")
    loaded = maps.read_text()
    assert "h5py" in loaded and "jaxlib" not in loaded


def test_every_suffix_has_a_reader(tmp_path):
    for suffix in SUFFIXES:
        (tmp_path / f"a{suffix}").write_bytes(b"")
        refused("cannot read", tmp_path / f"a{suffix}", spacing=0.1)
