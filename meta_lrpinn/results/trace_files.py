"""Files of traces: those of wavefields, SEG-Y, and snapshots as a movie."""

import os
import pathlib
import tempfile
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from meta_lrpinn.files import writing
from meta_lrpinn.files.readers import SEGY
from meta_lrpinn.results import storage
from meta_lrpinn.results.storage import Contents, variable
from meta_lrpinn.runtime import machine

if TYPE_CHECKING:
    from meta_lrpinn.solvers.seismograms import Traces

# Coordinates in a SEG-Y file are whole millimetres.
_PER_METRE = 1000
_LONGEST_STEP = 32_767  # microseconds, two bytes
_MOST_SAMPLES = 32_767  # of a trace, two bytes
_FRAMES_PER_SECOND = 20
# Of the largest amplitude, the part that has the full colour: late waves are weak.
_CLIP = 0.2
_WIDTH = 5.0  # of a frame [inches]


def check_path(
    path: pathlib.Path, step: float | None = None, samples: int | None = None
) -> None:
    """Refuses, before anything is computed, a file that cannot be written.

    The time between samples [s] and their number in a trace are given where known.

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


def check_movie(path: pathlib.Path, ndim: int) -> None:
    """Refuses, before anything is computed, a movie that cannot be written.

    Raises:
        ValueError: if the ending is not .gif, a folder is in its place, or the model is
            in 3D.
    """
    if path.suffix.lower() != ".gif":
        raise ValueError(f"movies are written as .gif, got {path}")
    if ndim == 3:
        raise ValueError("movies are of models in 2D")
    writing.check_file(path)


def save(traces: "Traces", path: str | os.PathLike) -> None:
    """Writes traces; see `Traces.save`."""
    path = pathlib.Path(path)
    check_path(path, traces.step, len(traces.times))
    writing.write_together({path: writer(traces, path)})


def save_movie(traces: "Traces", path: str | os.PathLike) -> None:
    """Writes snapshots of the first source as an animated GIF; see `Traces.movie`."""
    path = pathlib.Path(path)
    check_movie(path, traces.model.ndim)
    writing.write_together({path: movie_writer(traces)})


def writer(traces: "Traces", path: pathlib.Path) -> "Callable[[IO[Any]], None] | Any":
    """What writes traces in the format of a path, for `writing.write_together`."""
    if path.suffix.lower() not in SEGY:
        return storage.writer(contents(traces), path)
    return lambda file: file.write(_segy(traces))


def contents(traces: "Traces") -> Contents:
    """Traces and wavelet with coordinates, units and settings."""
    coordinates = {
        "time": variable(("time",), traces.times, units="s"),
        **storage.positions("source", traces.sources),
        **storage.positions("receiver", traces.receivers),
    }
    data = traces.data.astype(np.float32)
    arrays = {
        "traces": variable(("source", "receiver", "time"), data, "total wavefield"),
        "wavelet": variable(("time",), traces.wavelet, "source time function"),
    }
    attributes = {
        "conventions": "(1/v^2) d2u/dt2 - laplace u = wavelet(t) delta(x - source)",
        "wavelet_delay": traces.delay,
        "highest_frequency": float(np.max(traces.frequencies, initial=0.0)),
        "number_of_frequencies": len(traces.frequencies),
        "wrap_around": traces.wrap_around,
        "converged": int(traces.converged),
        "solver": traces.solver,
        "settings": repr(traces.settings),
        "free_surface": int(traces.free_surface),
    }
    return Contents(arrays, coordinates, attributes)


def _segy(traces: "Traces") -> bytes:
    """A SEG-Y file of one trace for each source and receiver, sources as field records."""
    import segyio

    number = len(traces.sources) * len(traces.receivers)
    spec = segyio.spec()
    # Format 5 is IEEE floating point.
    vars(spec).update(format=5, samples=1000 * traces.times, tracecount=number)
    microseconds = round(1e6 * traces.step)
    field = segyio.TraceField
    sources, receivers = _in_millimetres(traces.sources), _in_millimetres(traces.receivers)
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
                shot, receiver = divmod(index, len(receivers))
                file.header[index] = {
                    field.TRACE_SEQUENCE_LINE: index + 1,
                    field.FieldRecord: shot + 1,
                    field.TraceNumber: receiver + 1,
                    field.TraceIdentificationCode: 1,
                    field.SourceGroupScalar: -_PER_METRE,
                    field.ElevationScalar: -_PER_METRE,
                    field.CoordinateUnits: 1,
                    field.SourceX: sources[shot][0],
                    field.SourceY: sources[shot][1],
                    field.SourceDepth: sources[shot][2],
                    field.GroupX: receivers[receiver][0],
                    field.GroupY: receivers[receiver][1],
                    field.ReceiverGroupElevation: -receivers[receiver][2],
                    field.TRACE_SAMPLE_COUNT: len(traces.times),
                    field.TRACE_SAMPLE_INTERVAL: microseconds,
                }
                file.trace[index] = traces.data[shot, receiver].astype(np.float32)
        return pathlib.Path(path).read_bytes()


def _in_millimetres(points: np.ndarray) -> list[list[int]]:
    """Whole x, y and z of points [km]; y is 0 in 2D."""
    whole = np.rint(1e3 * _PER_METRE * points).astype(int)
    return (whole if whole.shape[1] == 3 else np.insert(whole, 1, 0, axis=1)).tolist()


def movie_writer(traces: "Traces") -> Callable[[IO[Any]], None]:
    """What writes snapshots over the velocity, for `writing.write_together`.

    Raises:
        ValueError: if there are no snapshots.
    """
    from matplotlib.animation import FuncAnimation, PillowWriter
    from matplotlib.figure import Figure

    if not len(traces.snapshots):
        raise ValueError("there are no snapshots; ask time_traces for some")
    model = traces.model
    (left, top), (right, bottom) = model.lower, model.upper
    extent = (left, right, bottom, top)
    height = np.clip(_WIDTH * (bottom - top) / (right - left), 1.5, 10) + 0.8
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    axes = figure.add_subplot(xlabel="x [km]", ylabel="z [km]")
    axes.imshow(model.velocity, cmap="gray", extent=extent, alpha=0.6)
    frames = traces.snapshots[:, 0]
    largest = _CLIP * np.quantile(np.abs(frames), 0.9999)
    image = axes.imshow(
        frames[0], cmap="RdBu_r", extent=extent, vmin=-largest, vmax=largest, alpha=0.7
    )
    axes.plot(*traces.sources[0], "k*")
    axes.plot(*traces.receivers.T, "kv", markersize=3)
    title = axes.set_title(" ")

    def draw(index):
        image.set_data(frames[index])
        title.set_text(f"{traces.snapshot_times[index]:.3g} s")
        return image, title

    animation = FuncAnimation(figure, draw, len(frames), blit=False)

    def write(file):
        with tempfile.TemporaryDirectory() as folder:  # the library wants a name
            whole = pathlib.Path(folder) / "movie.gif"
            animation.save(whole, PillowWriter(fps=_FRAMES_PER_SECOND), dpi=100)
            file.write(whole.read_bytes())

    return write
