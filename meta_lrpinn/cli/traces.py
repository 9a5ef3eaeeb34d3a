"""`meta-lrpinn traces`: seismograms at receivers, and a movie of the wavefield."""

import argparse
import math
import pathlib
from typing import TYPE_CHECKING

from meta_lrpinn.cli import NotConverged, Report, check_folder, problem, solver
from meta_lrpinn.cli.parsing import Groups, Option, UsageError
from meta_lrpinn.files import writing

if TYPE_CHECKING:
    import numpy as np

    from meta_lrpinn.solvers.seismograms import Traces

SUMMARY = "Solve for seismograms: the wavefield at receivers as a function of time."
# None of these is tuned.
_MOVIE_FRAMES = 60
_SAME_STEP = 1e-3  # relative; times in a file are rounded
_UNEVEN = 0.01  # how much nearer or farther times may be than on average, likewise


def option_groups() -> Groups:
    """The options of the command."""
    return {
        "problem": [
            *problem.MODEL_OPTIONS,
            problem.SOURCE_OPTION,
            problem.SURFACE_OPTION,
            Option(
                "receivers", "x,z;x,z in km, a range x0:x1:n,z, or a file, as for --source."
            ),
            Option("record", "Length of the traces in s.", float),
            Option("peak_frequency", "Of a Ricker wavelet, in Hz.", float),
            Option(
                "wavelet",
                "Text or .npy file of its samples instead, which needs --step, or of two "
                "columns, times in s and samples.",
            ),
            Option(
                "step",
                "Between samples in s; by default fine enough for the wavelet.",
                float,
            ),
            Option("transform_tolerance", "Largest error of the way to time.", float, 1e-3),
            Option("seed", "Of all that is random.", int, 0),
        ],
        **solver.option_groups(),
        "files": [
            Option(
                "out",
                "File to write: .npz, .nc, .zarr, .h5, or .sgy.",
                default="traces.npz",
            ),
            Option("movie", "Also write the wavefield in motion, FILE.gif."),
        ],
    }


def run(options: argparse.Namespace, report: Report) -> None:
    """Solves at the frequencies that are needed, and writes traces and movie."""
    for name in ("receivers", "record"):
        if getattr(options, name) is None:
            raise UsageError(f"traces needs --{name}")
    import meta_lrpinn as ml
    from meta_lrpinn.results import trace_files

    wavelet = _wavelet(options)
    path = pathlib.Path(options.out)
    check_folder(path.parent)
    trace_files.check_path(path, *_sampling(options))
    film = None if options.movie is None else pathlib.Path(options.movie)
    name, model, source, free_surface = problem.model_and_source(options, report)
    if film is not None:
        trace_files.check_movie(film, model.ndim)
    settings = solver.make_settings(options, None, model.ndim)
    report.say("model", f"{name}, {model!r}")
    traces = ml.time_traces(
        model,
        source,
        problem.positions(options.receivers, model.ndim, "receiver"),
        options.peak_frequency,
        record=options.record,
        step=options.step,
        wavelet=wavelet,
        transform_tolerance=options.transform_tolerance,
        settings=settings,
        free_surface=free_surface,
        snapshots=0 if film is None else _MOVIE_FRAMES,
        seed=options.seed,
        progress=report.shows_progress,
    )
    _say(traces, report)
    written = _write(traces, path, film)
    report.say("wrote", ", ".join(written))
    report.add(
        shape=traces.data.shape,
        step=traces.step,
        frequencies=len(traces.frequencies),
        wrap_around=traces.wrap_around,
        converged=traces.converged,
        seconds=traces.elapsed,
        files=written,
    )
    if not traces.converged:
        raise NotConverged(f"not converged: {_reason(traces, options.transform_tolerance)}")


def _write(traces: "Traces", path: pathlib.Path, film: pathlib.Path | None) -> list[str]:
    """Writes traces and movie; returns the names of the files."""
    from meta_lrpinn.results import trace_files

    writers = {path: trace_files.writer(traces, path)}
    if film is not None:
        writers[film] = trace_files.movie_writer(traces)
    writing.write_together(writers)
    return [str(file) for file in writers]


def _reason(traces: "Traces", transform_tolerance: float) -> str:
    """Why traces have not converged."""
    if traces.wrap_around < transform_tolerance:
        return "the solver did not reach its own tolerance at every frequency"
    return (
        f"waves are left after the longest period, {traces.wrap_around:.2g} of the "
        "largest; ask for a longer record"
    )


def _say(traces: "Traces", report: Report) -> None:
    shape = " x ".join(str(count) for count in traces.data.shape)
    report.say("traces", f"{shape} (sources, receivers, samples of {traces.step:g} s)")
    used = traces.frequencies
    if len(used):
        report.say("frequencies", f"{len(used)}, {used[0]:.3g} to {used[-1]:.3g} Hz")
    report.say("seconds", f"{traces.elapsed:.2f}, compilation included")


def _wavelet(options: argparse.Namespace) -> "np.ndarray | None":
    """Samples of the wavelet that is given; the step of their times becomes --step.

    Raises:
        ValueError: if that contradicts --step.
    """
    if options.wavelet is None:
        return None
    wavelet, step = samples(options.wavelet)
    if step is not None and options.step is None:
        options.step = step
    if step is not None and abs(options.step - step) > _SAME_STEP * step:
        raise ValueError(
            f"--step is {options.step:g} s, but the times in {options.wavelet} are "
            f"{step:g} s apart"
        )
    return wavelet


def samples(path: str) -> "tuple[np.ndarray, float | None]":
    """Samples of a text or .npy file, (n,), and their step where it has times [s].

    One column, or one row, holds samples; of two columns the first holds their times.

    Raises:
        ValueError: if it holds anything else.
    """
    import numpy as np

    try:
        rows = problem.rows_of_file(path)
        if rows.ndim == 2 and 1 in rows.shape:
            rows = rows.ravel()
        if rows.ndim == 1:
            return rows, None
        if rows.ndim != 2 or len(rows.T) != 2:
            raise ValueError(
                f"it must hold one column of samples, or two of times and samples, got "
                f"shape {rows.shape}"
            )
        times, values = rows.T
        step = float(np.mean(np.diff(times)))
        if not step > 0 or np.abs(np.diff(times) - step).max() > _UNEVEN * step:
            raise ValueError("the times of its first column are not evenly spaced")
        if abs(times[0]) > _UNEVEN * step:
            raise ValueError(f"its times begin at {times[0]:g} s; let them begin at zero")
    except (ValueError, TypeError) as error:
        raise ValueError(f"cannot read samples from {path}: {error}") from None
    return values, float(f"{step:.6g}")


def _sampling(options: argparse.Namespace) -> tuple[float | None, int | None]:
    """Step and samples of a trace, as far as the options tell; bad values tell nothing."""
    from meta_lrpinn.solvers import seismograms

    step, peak, record = options.step, options.peak_frequency, options.record
    if step is None and _is_good(peak) and 0 < options.transform_tolerance < 1:
        step = seismograms.round_step(
            seismograms.ricker_band(peak, options.transform_tolerance)
        )
    if not (_is_good(step) and _is_good(record) and _is_good(record / step)):
        return step, None
    return step, round(record / step) + 1


def _is_good(value: float | None) -> bool:
    return value is not None and 0 < value < math.inf
