"""Files of traces: those of wavefields, and SEG-Y."""

import os
import pathlib
import tempfile
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from meta_lrpinn.files import writing
from meta_lrpinn.results import storage
from meta_lrpinn.results.contents import Contents
from meta_lrpinn.runtime import machine

if TYPE_CHECKING:
    import xarray

    from meta_lrpinn.solvers.seismograms import Traces

SEGY = (".sgy", ".segy")
# Coordinates in a SEG-Y file are whole millimetres.
_PER_METRE = 1000
_LONGEST_STEP = 32_767  # microseconds, two bytes
_MOST_SAMPLES = 32_767  # of a trace, two bytes


def to_xarray(traces: "Traces") -> "xarray.Dataset":
    """The dataset of traces; see `Traces.to_xarray`."""
    machine.require(("xarray",), "xarray", "to_xarray")
    import xarray

    return xarray.Dataset(*_contents(traces))


def save(traces: "Traces", path: str | os.PathLike) -> None:
    """Writes traces; see `Traces.save`."""
    path = pathlib.Path(path)
    check_path(path, traces.step, len(traces.times))
    writing.write_together({path: writer(traces, path)})


def check_path(
    path: pathlib.Path, step: float | None = None, samples: int | None = None
) -> None:
    """Refuses, before anything is computed, a file that cannot be written.

    Args:
        path: The file.
        step: Time between samples [s], where it is known.
        samples: Of a trace, where they are known.

    Raises:
        ValueError: if the ending is unknown, a library is missing, something else is in
            its place, or SEG-Y has no such step or no such length.
    """
    if path.suffix.lower() not in SEGY:
        storage.check_path(path)
        return
    machine.require(("segyio",), "segy", "writing SEG-Y")
    writing.check_file(path)
    if step is not None:
        microseconds = 1e6 * step
        is_whole = abs(microseconds - round(microseconds)) < 1e-6 * microseconds
        if not (is_whole and 1 <= microseconds <= _LONGEST_STEP):
            raise ValueError(
                f"SEG-Y has steps of whole microseconds up to {_LONGEST_STEP}, "
                f"not {microseconds:g}"
            )
    if samples is not None and samples > _MOST_SAMPLES:
        raise ValueError(
            f"a SEG-Y trace has at most {_MOST_SAMPLES:,} samples, not {samples:,}; choose "
            "a longer step or a shorter record, or write .npz, .nc, .zarr or .h5"
        )


def writer(traces: "Traces", path: pathlib.Path) -> "Callable[[IO[Any]], None] | Any":
    """What writes traces in the format of a path, for `writing.write_together`."""
    if path.suffix.lower() not in SEGY:
        return storage.writer(_contents(traces), path)
    return lambda file: file.write(_segy(traces))


def _contents(traces: "Traces") -> Contents:
    names = "xyz" if traces.model.ndim == 3 else "xz"
    coordinates: dict[str, Any] = {"time": (("time",), traces.times, {"units": "s"})}
    for what, points in (("source", traces.sources), ("receiver", traces.receivers)):
        for name, column in zip(names, points.T, strict=True):
            coordinates[f"{what}_{name}"] = (what,), column, {"units": "km"}
    return Contents(
        {
            "traces": (
                ("source", "receiver", "time"),
                traces.data.astype(np.float32),
                {"long_name": "total wavefield"},
            ),
            "wavelet": (("time",), traces.wavelet, {"long_name": "source time function"}),
        },
        coordinates,
        {
            "conventions": "(1/v^2) d2u/dt2 - laplace u = wavelet(t) delta(x - source)",
            "wavelet_delay": traces.delay,
            "highest_frequency": float(np.max(traces.frequencies, initial=0.0)),
            "number_of_frequencies": len(traces.frequencies),
            "wrap_around": traces.wrap_around,
            "converged": int(traces.converged),
            "solver": traces.solver,
            "settings": repr(traces.settings),
            "free_surface": int(traces.free_surface),
        },
    )


def _segy(traces: "Traces") -> bytes:
    """A SEG-Y file of one trace for each source and receiver, sources as field records."""
    import segyio

    number = len(traces.sources) * len(traces.receivers)
    spec = segyio.spec()
    # Format 5 is IEEE floating point.
    vars(spec).update(format=5, samples=1000 * traces.times, tracecount=number)
    microseconds = round(1e6 * traces.step)
    field = segyio.TraceField
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "traces.sgy")
        with segyio.create(path, spec) as file:
            file.text[0] = segyio.tools.create_text_header(
                {
                    1: "SYNTHETIC SEISMOGRAMS BY META_LRPINN",
                    2: f"SOLVER {traces.solver.upper()}",
                    3: f"PEAK OF THE WAVELET AT {1000 * traces.delay:.3f} MS",
                    4: "COORDINATES IN MILLIMETRES, DEPTHS POSITIVE DOWN",
                }
            )
            file.bin.update(hdt=microseconds, hns=len(traces.times), format=5, mfeet=1)
            for index in range(number):
                shot, receiver = divmod(index, len(traces.receivers))
                source = np.rint(1e3 * _PER_METRE * traces.sources[shot]).astype(int)
                group = np.rint(1e3 * _PER_METRE * traces.receivers[receiver]).astype(int)
                file.header[index] = {
                    field.TRACE_SEQUENCE_LINE: index + 1,
                    field.FieldRecord: shot + 1,
                    field.TraceNumber: receiver + 1,
                    field.TraceIdentificationCode: 1,
                    field.SourceGroupScalar: -_PER_METRE,
                    field.ElevationScalar: -_PER_METRE,
                    field.CoordinateUnits: 1,
                    field.SourceX: int(source[0]),
                    field.SourceY: int(source[1]) if traces.model.ndim == 3 else 0,
                    field.SourceDepth: int(source[-1]),
                    field.GroupX: int(group[0]),
                    field.GroupY: int(group[1]) if traces.model.ndim == 3 else 0,
                    field.ReceiverGroupElevation: -int(group[-1]),
                    field.TRACE_SAMPLE_COUNT: len(traces.times),
                    field.TRACE_SAMPLE_INTERVAL: microseconds,
                }
                file.trace[index] = traces.data[shot, receiver].astype(np.float32)
        return pathlib.Path(path).read_bytes()
