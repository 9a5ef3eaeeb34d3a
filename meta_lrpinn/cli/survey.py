"""`meta-lrpinn survey`: many velocities, frequencies and sources into a zarr file."""

import argparse

from meta_lrpinn.cli import problem, solver, values, workers
from meta_lrpinn.cli.parsing import UsageError, add_option
from meta_lrpinn.cli.report import NotConverged, Report

SUMMARY = "Solve for many velocities, frequencies and sources; the same command goes on."


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    group = parser.add_argument_group("survey")

    def add(name, text, kind: type = str, default=None, choices=None):
        add_option(group, name, kind, text, default, choices)

    add(
        "velocity",
        "Models on one grid: FILE or FILE:NAME with an array (n, nz, nx) or "
        "(n, nz, ny, nx), or with one model. A zarr file may be a URL.",
    )
    problem.add_file_options(group)
    problem.add_quality_option(group)
    add("frequencies", "In Hz: 3,4,5 or first:last:step, such as 2:15:0.5.")
    add(
        "sources",
        "x,z;x,z in km (3D: x,y,z), a range x0:x1:n,z, or a text or .npy file of rows.",
    )
    add("receivers", "Likewise; by default whole wavefields are kept.")
    add("amplitude", "A of the background wavefield; by default i/4, 3D -1/(4 pi).")
    add(
        "free_surface",
        "u = 0 at the top of the models, where there is no absorbing layer then.",
        bool,
        False,
    )
    add("seed", "Of all that is random.", int, 0)
    solver.add_options(parser)
    group = parser.add_argument_group("files and machines")
    add("out", "The zarr file, or a URL that all workers reach.", default="survey.zarr")
    add("memory", "GiB for the fields and vectors of one process.", float, 4.0)
    add("models_per_chunk", "Models of a chunk at most; by default by size.", int)
    workers.add_options(group, "read the velocities and write the chunks themselves")


# Long: options become arguments of one call, whose result becomes lines.
def run(options: argparse.Namespace, report: Report) -> None:
    """Solves what is not there yet."""
    for name in ("velocity", "frequencies", "sources"):
        if getattr(options, name) is None:
            raise UsageError(f"survey needs --{name}")
    from meta_lrpinn.files.velocity_stacks import open_velocities
    from meta_lrpinn.solvers.survey_run import run_survey

    velocities = open_velocities(
        options.velocity,
        quality=problem.quality_of(options.quality),
        **problem.file_options(options),
    )
    grid = velocities.grid
    frequencies = values.frequencies(options.frequencies)
    positions = {
        name: values.positions(text, grid.ndim, name.removesuffix("s"))
        for name in ("sources", "receivers")
        if (text := getattr(options, name)) is not None
    }
    only = frequencies[0] if len(frequencies) == 1 else None
    settings = solver.make_settings(options, only, grid.ndim)
    problem.say_notes(velocities.notes, report)
    report.say("models", f"{len(velocities)} of {options.velocity}, each as {grid!r}")
    number = len(velocities) * len(frequencies) * len(positions["sources"])
    report.say("wavefields", f"{number}, into {options.out}")
    amplitude = options.amplitude
    with workers.resumable("give --memory=GIB or --models_per_chunk=N"):
        done = run_survey(
            velocities,
            frequencies,
            out=options.out,
            settings=settings,
            **positions,
            amplitude=None if amplitude is None else values.amplitude(amplitude),
            memory=options.memory,
            models_per_chunk=options.models_per_chunk,
            seed=options.seed,
            free_surface=options.free_surface,
            **workers.chosen(options),
            progress=report.is_talking,
        )
    report.say("solved", f"{done.solved} wavefields in {done.elapsed:.1f} s")
    if done.solved:
        report.say("throughput", f"{done.throughput:.3g} wavefields a second")
    if settings.tolerance is not None and done.missed is not None:
        reached = f"reached by {number - done.missed} of {number} wavefields"
        report.say("tolerance", f"{settings.tolerance:g}, {reached}")
    report.say("wrote", f"{done.chunks} chunks in {options.out}")
    report.add(
        models=len(velocities),
        frequencies=frequencies,
        solved=done.solved,
        chunks=done.chunks,
        seconds=done.elapsed,
        throughput=done.throughput,
        converged=done.converged,
        missed=done.missed,
        files=[options.out],
    )
    if done.converged is False and settings.tolerance is None:
        raise NotConverged(
            f"not converged: iterations of {done.missed} of {number} wavefields ended early"
        )
    if done.converged is False:
        raise NotConverged(
            f"not converged: the tolerance {settings.tolerance:g} was not reached by "
            f"{done.missed} of {number} wavefields; `converged` in {options.out} says which"
        )
