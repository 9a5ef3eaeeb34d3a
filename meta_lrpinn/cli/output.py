"""What commands write: a wavefield with its figure, all together or nothing."""

import argparse
import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from meta_lrpinn.cli.parsing import add_option
from meta_lrpinn.cli.problem import Problem
from meta_lrpinn.cli.report import Report
from meta_lrpinn.files import writing

if TYPE_CHECKING:
    import numpy as np

    import meta_lrpinn as ml

REFERENCE_TOLERANCE = 0.003
_SMALLEST_SHOWN = 1e-4
_FIGURE, _PAGE = ".png", ".html"
# Endings of what nobody calls a folder; others may be part of a name, as in run_2.5Hz.
_FILE_ENDINGS = frozenset(
    f".{end}"
    for end in "npy npz nc zarr h5 hdf5 mat sgy segy rsf bin csv txt json md png jpg jpeg "
    "svg pdf eps gif html".split()
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the folder to write to."""
    group = parser.add_argument_group("files")
    add_option(group, "out", str, "Folder to write to.", ".")


def add_field_options(parser: argparse.ArgumentParser) -> None:
    """Adds where to write a wavefield, and as what."""
    group = parser.add_argument_group("files")
    add_option(
        group,
        "out",
        str,
        "Folder to write to, or a file: .npz, .nc, .zarr or .h5, which is the format.",
        ".",
    )
    add_option(group, "report", bool, "Also write a page to look at in a browser.", False)


def check_folder(out: str | pathlib.Path) -> None:
    """Refuses, before anything is computed, a folder that is a file or is named as one."""
    folder = pathlib.Path(out)
    for path in (folder, *folder.parents):
        if path.exists() and not path.is_dir():
            raise ValueError(f"--out must be a folder, {path} is a file")
    if folder.suffix.lower() in _FILE_ENDINGS and not folder.is_dir():
        raise ValueError(f"--out must be a folder, {out} has the name of a file")


class Compared(NamedTuple):
    """A wavefield and what is known about it."""

    field: "ml.Wavefield"
    truth: "np.ndarray | None" = None  # δu to show beside it
    # Errors of every source by the name of what they are distances from.
    errors: Mapping[str, list[float | None]] = {}


class Paths(NamedTuple):
    """Where wavefields are written to; the figures' names differ in the ending only."""

    fields: list[pathlib.Path]  # one for each frequency
    page: pathlib.Path | None  # of all of them

    @property
    def figures(self) -> list[pathlib.Path]:
        """One for each field."""
        return [path.with_suffix(_FIGURE) for path in self.fields]


def field_paths(
    options: argparse.Namespace, name: str, problems: Sequence[Problem]
) -> Paths:
    """The files to write: what --out names, or NAME.npz in the folder that it names.

    Args:
        options: Parsed options of `add_field_options`.
        name: Of the file, where --out is a folder.
        problems: What is solved; several have their frequency in the files' names, too.

    Raises:
        ValueError: if one of them cannot be written, before anything is computed.
    """
    import numpy as np

    from meta_lrpinn.results import report, storage

    path = pathlib.Path(options.out)
    if path.suffix.lower() not in storage.SUFFIXES:
        path = path / f"{name}.npz"
    check_folder(path.parent)
    fields = [path]
    if len(problems) > 1:
        fields = [
            path.with_stem(f"{path.stem}_{posed.frequency:.15g}Hz") for posed in problems
        ]
    page = path.with_suffix(_PAGE) if options.report else None
    paths = Paths(fields, page)
    for field in paths.fields:
        storage.check_path(field)
    for figure in paths.figures:
        writing.check_file(figure)
    if page is not None:
        report.check_path(page)
        sources = sum(len(np.atleast_2d(posed.source)) for posed in problems)
        report.check_size(problems[0].model, sources)
    return paths


def reference_field(problem: Problem, tolerance: float | None) -> "ml.Wavefield":
    """The wavefield by finite differences; in 3D on one grid, a finer is out of reach."""
    import meta_lrpinn as ml

    return ml.reference_wavefield(
        problem.model,
        problem.frequency,
        problem.source,
        tolerance=tolerance if problem.model.ndim == 2 else None,
        **problem.keywords(),
    )


def say_field(field: "ml.Wavefield", report: Report) -> None:
    """Says what a solver did, and how good it takes its field to be."""
    unknowns = f"{field.stats.unknowns} complex unknowns"
    report.say("solver", f"{field.solver.replace('_', ' ')}, {unknowns}")
    report.say("seconds", f"{field.elapsed:.2f}, compilation included")
    estimate = field.error_estimate
    if estimate is not None:
        small = f"below {_SMALLEST_SHOWN:.2%}"
        text = f"{estimate:.2%}" if estimate >= _SMALLEST_SHOWN else small
        report.say("estimate", f"relative error {text} by its own estimate")
    report.add(
        solver=field.solver,
        unknowns=field.stats.unknowns,
        iterations=field.stats.iterations,
        rank=field.stats.rank,
        steps=field.stats.steps,
        seconds=field.elapsed,
        error_estimates=field.error_estimates,
        converged=field.converged,
    )


def errors_of(field: "ml.Wavefield", truth: "np.ndarray") -> list[float | None]:
    """Relative L2 error of every source; None where nothing scatters."""
    import meta_lrpinn as ml

    shape = (-1, *field.model.shape)
    pairs = zip(field.scattered.reshape(shape), truth.reshape(shape), strict=True)
    return [
        ml.relative_l2(prediction, known) if known.any() else None
        for prediction, known in pairs
    ]


def in_words(errors: list[float | None]) -> str:
    """Errors as text."""
    shown = ["none: nothing scatters" if e is None else f"{e:.2%}" for e in errors]
    return "relative L2 " + ", ".join(shown)


def write_fields(paths: Paths, results: Sequence[Compared], report: Report) -> None:
    """Writes fields, cases that can be loaded again, with their figures beside them.

    Args:
        paths: Where to, and whether one HTML page of all is written, too.
        results: The fields of different frequencies.
        report: Where to say so.
    """
    import numpy as np

    from meta_lrpinn.results import report as pages
    from meta_lrpinn.results import storage

    writers: dict[pathlib.Path, Any] = {}
    for path, image, (field, truth, errors) in zip(
        paths.fields, paths.figures, results, strict=True
    ):
        known = {name: np.array(error, float) for name, error in errors.items()}
        writers[path] = storage.writer(storage.contents(field, known), path)
        figure = field.plot(truth)
        writers[image] = functools.partial(figure.savefig, format="png", dpi=150)
    if paths.page is not None:
        truths = [result.truth for result in results if result.truth is not None]
        text = pages.html(
            [result.field for result in results],
            truths if len(truths) == len(results) else None,
        )
        writers[paths.page] = lambda file: file.write(text.encode())
    writing.write_together(writers)
    written = [str(file) for file in writers]
    report.say("wrote", ", ".join(written))
    report.add(files=written)
