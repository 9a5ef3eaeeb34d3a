"""`meta-lrpinn traces`: seismograms at receivers, and a movie of the wavefield."""

import argparse
import math
import pathlib
from typing import TYPE_CHECKING

from meta_lrpinn.cli import output, problem, solver, values
from meta_lrpinn.cli.parsing import UsageError, add_option
from meta_lrpinn.cli.report import NotConverged, Report
from meta_lrpinn.files import writing

if TYPE_CHECKING:
    import numpy as np

    from meta_lrpinn.solvers.seismograms import Traces

SUMMARY = "Solve for seismograms: the wavefield at receivers as a function of time."
_MOVIE_FRAMES = 60
_SAME_STEP = 1e-3  # times in a file are rounded


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    group = parser.add_argument_group("problem")
    problem.add_model_options(group)
    problem.add_source_option(group)
    problem.add_surface_option(group)

    def add(name, text, kind: type = str, default=None):
        add_option(group, name, kind, text, default)

    add("receivers", "x,z;x,z in km, a range x0:x1:n,z, or a file, as for --source.")
    add("record", "Length of the traces in s.", float)
    add("peak_frequency", "Of a Ricker wavelet, in Hz.", float)
    add(
        "wavelet",
        "Text or .npy file of its samples instead, which needs --step, or of two columns, "
        "times in s and samples.",
    )
    add("step", "Between samples in s; by default fine enough for the wavelet.", float)
    add("transform_tolerance", "Largest error of the way to time.", float, 1e-3)
    add("seed", "Of all that is random.", int, 0)
    solver.add_options(parser)
    group = parser.add_argument_group("files")
    add_option(
        group,
        "out",
        str,
        "File to write: .npz, .nc, .zarr, .h5, or .sgy.",
        "traces.npz",
    )
    add_option(group, "movie", str, "Also write the wavefield in motion, FILE.gif.")


def run(options: argparse.Namespace, report: Report) -> None:
    """Solves at the frequencies that are needed, and writes traces and movie."""
    for name in ("receivers", "record"):
        if getattr(options, name) is None:
            raise UsageError(f"traces needs --{name}")
    import meta_lrpinn as ml
    from meta_lrpinn.results import movie, trace_files

    wavelet = _wavelet(options)
    path = pathlib.Path(options.out)
    output.check_folder(path.parent)
    trace_files.check_path(path, *_sampling(options))
    film = None if options.movie is None else pathlib.Path(options.movie)
    if film is not None:
        movie.check_path(film)
    name, model, source, free_surface = problem.model_and_source(options, report)
    if film is not None:
        movie.check_dimension(model)
    settings = solver.make_settings(options, None, model.ndim)
    report.say("model", f"{name}, {model!r}")
    traces = ml.time_traces(
        model,
        source,
        values.positions(options.receivers, model.ndim, "receiver"),
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
    _write(traces, path, film, report)
    if not traces.converged:
        raise NotConverged(f"not converged: {_reason(traces, options.transform_tolerance)}")


def _wavelet(options: argparse.Namespace) -> "np.ndarray | None":
    """Samples of the wavelet that is given; the step of their times becomes --step.

    Raises:
        ValueError: if that contradicts --step.
    """
    if options.wavelet is None:
        return None
    samples, step = values.samples(options.wavelet)
    if step is not None and options.step is None:
        options.step = step
    if step is not None and abs(options.step - step) > _SAME_STEP * step:
        raise ValueError(
            f"--step is {options.step:g} s, but the times in {options.wavelet} are "
            f"{step:g} s apart"
        )
    return samples


def _write(
    traces: "Traces", path: pathlib.Path, film: pathlib.Path | None, report: Report
) -> None:
    from meta_lrpinn.results import movie, trace_files

    writers = {path: trace_files.writer(traces, path)}
    if film is not None:
        writers[film] = movie.writer(traces)
    writing.write_together(writers)
    written = [str(file) for file in writers]
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


def _reason(traces: "Traces", transform_tolerance: float) -> str:
    """Why traces have not converged."""
    if not traces.wrap_around < transform_tolerance:
        return (
            f"waves are left after the longest period, {traces.wrap_around:.2g} of the "
            "largest; ask for a longer record"
        )
    return "the solver did not reach its own tolerance at every frequency"


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


def _say(traces: "Traces", report: Report) -> None:
    shape = " x ".join(str(count) for count in traces.data.shape)
    report.say("traces", f"{shape} (sources, receivers, samples of {traces.step:g} s)")
    used = traces.frequencies
    if len(used):
        report.say("frequencies", f"{len(used)}, {used[0]:.3g} to {used[-1]:.3g} Hz")
    report.say("seconds", f"{traces.elapsed:.2f}, compilation included")
