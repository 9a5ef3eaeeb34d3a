"""`meta-lrpinn survey`: many velocities, frequencies and sources into a zarr file."""

import argparse

from meta_lrpinn.cli import NotConverged, Report, parsing, problem, solver
from meta_lrpinn.cli.parsing import Groups, Option, UsageError

SUMMARY = "Solve for many velocities, frequencies and sources; the same command goes on."


def option_groups() -> Groups:
    """The options of the command."""
    return {
        "survey": [
            Option(
                "velocity",
                "Models on one grid: FILE or FILE:NAME with an array (n, nz, nx) or "
                "(n, nz, ny, nx), or with one model. A zarr file may be a URL.",
            ),
            *problem.FILE_OPTIONS,
            problem.QUALITY_OPTION,
            Option(
                "frequencies",
                "In Hz: 3,4,5 or first:last:step, such as 2:15:0.5.",
                parsing.frequencies,
            ),
            Option(
                "sources",
                "x,z;x,z in km (3D: x,y,z), a range x0:x1:n,z, or a text or .npy file of "
                "rows.",
            ),
            Option("receivers", "Likewise; by default whole wavefields are kept."),
            Option(
                "amplitude",
                "A of the background wavefield; by default i/4, 3D -1/(4 pi).",
                parsing.amplitude,
            ),
            Option(
                "free_surface",
                "u = 0 at the top of the models, where there is no absorbing layer then.",
                bool,
                False,
            ),
            Option("seed", "Of all that is random.", int, 0),
        ],
        **solver.option_groups(),
        "files and machines": [
            Option(
                "out", "The zarr file, or a URL that all workers reach.", str, "survey.zarr"
            ),
            Option("memory", "GiB for the fields and vectors of one process.", float, 4.0),
            Option(
                "models_per_chunk", "Models of a chunk at most; by default by size.", int
            ),
            *solver.machine_options("read the velocities and write the chunks themselves"),
        ],
    }


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
    grid, frequencies = velocities.grid, options.frequencies
    sources = problem.positions(options.sources, grid.ndim, "source")
    receivers = options.receivers
    if receivers is not None:
        receivers = problem.positions(receivers, grid.ndim, "receiver")
    # A network is pruned at one frequency.
    frequency = frequencies[0] if len(frequencies) == 1 else None
    settings = solver.make_settings(options, frequency, grid.ndim)
    problem.say_notes(velocities.notes, report)
    report.say("models", f"{len(velocities)} of {options.velocity}, each as {grid!r}")
    number = len(velocities) * len(frequencies) * len(sources)
    report.say("wavefields", f"{number}, into {options.out}")
    with solver.resumable("give --memory=GIB or --models_per_chunk=N"):
        survey = run_survey(
            velocities,
            frequencies,
            sources,
            options.out,
            settings,
            receivers=receivers,
            amplitude=options.amplitude,
            memory=options.memory,
            models_per_chunk=options.models_per_chunk,
            seed=options.seed,
            free_surface=options.free_surface,
            **solver.machines(options),
            progress=report.is_talking,
        )
    report.say("solved", f"{survey.solved} wavefields in {survey.elapsed:.1f} s")
    if survey.solved:
        report.say("throughput", f"{survey.throughput:.3g} wavefields a second")
    if settings.tolerance is not None and survey.missed is not None:
        reached = f"reached by {number - survey.missed} of {number} wavefields"
        report.say("tolerance", f"{settings.tolerance:g}, {reached}")
    report.say("wrote", f"{survey.chunks} chunks in {options.out}")
    report.add(
        models=len(velocities),
        frequencies=frequencies,
        solved=survey.solved,
        chunks=survey.chunks,
        seconds=survey.elapsed,
        throughput=survey.throughput,
        converged=survey.converged,
        missed=survey.missed,
        files=[options.out],
    )
    if survey.converged is not False:
        return
    missed = f"{survey.missed} of {number} wavefields"
    if settings.tolerance is None:
        raise NotConverged(f"not converged: iterations of {missed} ended early")
    raise NotConverged(
        f"not converged: the tolerance {settings.tolerance:g} was not reached by "
        f"{missed}; `converged` in {options.out} says which"
    )
