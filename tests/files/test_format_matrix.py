"""Every format × order of dimensions × direction × units × offset × packing.

Each file is written as a library of its format writes it. Whatever a cell is, it is the
same model, or a refusal in one line; none is silently another model.
"""

import collections
import itertools

import numpy as np
import pytest
import scipy.io

from meta_lrpinn.files.cases import load_case
from meta_lrpinn.files.velocity_stacks import open_velocities

h5py = pytest.importorskip("h5py")
segyio = pytest.importorskip("segyio")
xarray = pytest.importorskip("xarray")
zarr = pytest.importorskip("zarr")

VELOCITY = np.random.default_rng(0).uniform(1.5, 4.5, (7, 9))  # (nz, nx) [km/s]
# Whole feet and whole millimetres, since headers of SEG-Y are whole numbers.
DZ, DX = 0.012192, 0.03048  # km
FOOT = 0.3048e-3  # km
LENGTHS = {"km": 1.0, "m": 1e-3, "ft": FOOT}
VELOCITIES = {
    "km/s": lambda v: v,
    "m/s": lambda v: 1000 * v,
    "ft/s": lambda v: v / FOOT,
    "s/km": lambda v: 1 / v,
    "s2/km2": lambda v: v**-2,
}
FORMATS = ("npy", "npz", "mat", "h5", "nc", "zarr", "sgy", "rsf", "bin")
AXES = (("z", "x"), ("x", "z"))
DIRECTIONS = ("down", "descending", "heights")
ORIGINS = ((0.0, 0.0), (1.2192, 0.381))  # (x, z) [km]
PACKINGS = (None, "scale")

Cell = collections.namedtuple(
    "Cell", "format dims direction length velocity origin packing said"
)


class Inexpressible(Exception):
    """A format has no way to say this."""


def content(cell):
    """Numbers, coordinates and attributes as a file of the cell holds them."""
    values = VELOCITIES[cell.velocity](VELOCITY)
    x = (cell.origin[0] + DX * np.arange(9)) / LENGTHS[cell.length]
    z = (cell.origin[1] + DZ * np.arange(7)) / LENGTHS[cell.length]
    if cell.direction == "descending":
        values, z = values[::-1], z[::-1]
    elif cell.direction == "heights":
        values, z = values[::-1], -z[::-1]
    if cell.dims == ("x", "z"):
        values = values.T
    attributes = {"units": cell.velocity} if cell.said == "file" else {}
    if cell.packing:
        scale, offset = 2.0**-28 * np.ceil(np.ptp(values) + 1), 1.0
        packed = np.round((values - offset) / scale)
        attributes |= {"scale_factor": scale, "add_offset": offset}
        values = packed.astype(np.int32)
    return np.ascontiguousarray(values), {"x": x, "z": z}, attributes


def write(cell, folder):
    """Writes the file of a cell; its path and the options that complete it."""
    path = folder / f"a.{cell.format}"
    values, axes, attributes = content(cell)
    options = {}
    if cell.said == "option":
        options |= {"unit": cell.velocity, "spacing_unit": cell.length}
    writer = globals()[f"write_{cell.format}"]
    options |= writer(path, cell, values, axes, attributes) or {}
    return path, options


def _spacing(cell):
    if cell.direction != "down":
        raise Inexpressible
    steps = np.array([DZ, DX]) / LENGTHS[cell.length]
    return steps if cell.dims == ("z", "x") else steps[::-1]


def _plain(cell, values, attributes):
    """What a format of names without dimensions holds."""
    arrays = {"velocity": values, "spacing": _spacing(cell)}
    arrays["origin"] = np.array(cell.origin) / LENGTHS[cell.length]
    arrays |= {f"velocity_{key}": value for key, value in attributes.items()}
    if cell.said == "file":
        arrays["length_unit"] = cell.length
    return arrays, {"transpose": cell.dims == ("x", "z")}


def write_npz(path, cell, values, axes, attributes):
    arrays, options = _plain(cell, values, attributes)
    np.savez(path, **arrays)
    return options


def write_mat(path, cell, values, axes, attributes):
    arrays, options = _plain(cell, values, attributes)
    scipy.io.savemat(path, arrays)
    return options


def _by_option(cell):
    if cell.packing or cell.said == "file" or cell.origin != ORIGINS[0]:
        raise Inexpressible
    steps = _spacing(cell) if cell.dims == ("z", "x") else _spacing(cell)[::-1]
    return {"spacing": steps, "transpose": cell.dims == ("x", "z")}


def write_npy(path, cell, values, axes, attributes):
    np.save(path, values)
    return _by_option(cell)


def write_bin(path, cell, values, axes, attributes):
    values.tofile(path)
    return _by_option(cell) | {"shape": values.shape, "dtype": values.dtype.str}


def _dataset(cell, values, axes, attributes):
    z = {"positive": "up"} if cell.direction == "heights" else {}
    units = {"units": cell.length} if cell.said == "file" else {}
    coordinates = {
        "x": ("x", axes["x"], units),
        "z": ("z", axes["z"], {**units, **z}),
    }
    return xarray.Dataset({"velocity": (cell.dims, values, attributes)}, coordinates)


def write_nc(path, cell, values, axes, attributes):
    _dataset(cell, values, axes, attributes).to_netcdf(path, engine="h5netcdf")


def write_h5(path, cell, values, axes, attributes):
    _dataset(cell, values, axes, attributes).to_netcdf(path, engine="h5netcdf")


def write_zarr(path, cell, values, axes, attributes):
    _dataset(cell, values, axes, attributes).to_zarr(path, consolidated=False)


def write_rsf(path, cell, values, axes, attributes):
    if cell.packing or cell.direction == "heights":
        raise Inexpressible
    header = [f'data_format="native_double" esize=8 in="{path.name}@"']
    for number, name in enumerate(reversed(cell.dims), 1):
        axis = axes[name]
        header.append(f"n{number}={axis.size} o{number}={axis[0]!r}")
        header.append(f"d{number}={axis[1] - axis[0]!r} label{number}={name.upper()}")
        if cell.said == "file":
            header.append(f'unit{number}="{cell.length}"')
    if cell.said == "file":
        header.append(f'unit="{cell.velocity}"')
    path.write_text(" ".join(header).replace("np.float64(", "").replace(")", ""))
    path.with_name(f"{path.name}@").write_bytes(values.tobytes())


def write_sgy(path, cell, values, axes, attributes):
    if cell.packing or cell.dims == ("z", "x") or cell.direction != "down":
        raise Inexpressible  # traces run down
    if cell.length == "km" or (cell.said == "file" and cell.velocity != "m/s"):
        raise Inexpressible
    spec = segyio.spec()
    step = axes["z"][1] - axes["z"][0]
    spec.format, spec.samples = 5, np.arange(7.0)
    spec.tracecount = 9
    with segyio.create(str(path), spec) as file:
        for index, place in enumerate(axes["x"]):
            file.trace[index] = values[index].astype(np.float32)
            file.header[index] = {
                segyio.TraceField.CDP_X: round(place * 1e4),
                segyio.TraceField.SourceGroupScalar: -10000,
                segyio.TraceField.DelayRecordingTime: round(axes["z"][0]),
                segyio.TraceField.TraceValueMeasurementUnit: 6
                if (cell.said, cell.velocity) == ("file", "m/s")
                else 0,
            }
        fields = segyio.BinField
        system = 2 if cell.length == "ft" else 1
        interval = round(step * 1000)
        signed = interval - 65536 if interval > 32767 else interval
        file.bin.update({fields.MeasurementSystem: system, fields.Interval: signed})


CELLS = [
    Cell(*values)
    for values in itertools.product(
        FORMATS, AXES, DIRECTIONS, LENGTHS, VELOCITIES, ORIGINS, PACKINGS,
        ("file", "option", "nothing"),
    )
]  # fmt: skip


def outcome(cell, folder):
    """ "same", "refused" or "inexpressible"; anything else fails."""
    try:
        path, options = write(cell, folder)
    except Inexpressible:
        return "inexpressible"
    try:
        case = load_case(path, **options)
    except ValueError as error:
        text = str(error)
        assert len(text.splitlines()) == 1 and len(text) <= 300
        with pytest.raises(ValueError):
            for _ in open_velocities(path, **options):
                pass
        return "refused"
    (stacked,) = open_velocities(path, **options)
    for model in (case.model, stacked):
        np.testing.assert_allclose(model.velocity, VELOCITY, rtol=1e-6)
        np.testing.assert_allclose(model.spacing, (DZ, DX), rtol=1e-6)
        np.testing.assert_allclose(model.origin, cell.origin, atol=1e-6)
    return "same"


def check(format, folder, step):
    """Looks at every so many cells of a format."""
    counts = collections.Counter()
    for number, cell in enumerate([c for c in CELLS if c.format == format][::step]):
        place = folder / str(number)
        place.mkdir()
        try:
            found = outcome(cell, place)
        except AssertionError as error:
            raise AssertionError(f"{cell}: {error}") from None
        # What the file or the user says of units has to be enough.
        assert cell.said == "nothing" or found != "refused", cell
        counts[found] += 1
    print(format, dict(counts))
    assert counts["same"]


@pytest.mark.parametrize("format", FORMATS)
def test_cells_are_the_same_model_or_a_refusal(format, tmp_path):
    # The sizes of the matrix have no factor in common with it: all pairs occur.
    check(format, tmp_path, 11)


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_every_cell_is_the_same_model_or_a_refusal(format, tmp_path):
    check(format, tmp_path, 1)
