"""The output of a survey: a zarr group, each block one chunk of every array.

    scattered       (model, frequency, source, receiver) or (..., z, x), complex64
    error_estimate  (model, frequency, source)
    converged       (model, frequency, source), where a tolerance is asked for
    unknowns        (model, frequency, source), of each solve
    solved          (model, frequency, source), whether it is; written after the others

with coordinates and units as xarray reads them. The attribute `survey` of the group says
what the survey is; only the same survey is continued.
"""

import dataclasses
import os
import pathlib
import shutil
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from meta_lrpinn.files.readers.contents import one_line
from meta_lrpinn.physics.velocity import VelocityModel
from meta_lrpinn.results import storage
from meta_lrpinn.results.storage import variable
from meta_lrpinn.runtime import machine

if TYPE_CHECKING:
    from meta_lrpinn.solvers.survey import Plan
    from meta_lrpinn.solvers.survey_run import Block

_AXES = ("model", "frequency", "source")
_DESCRIPTION = "survey"
_CONVERGED = "converged"
# How the name of a file ends that zarr has not written to its end.
_PARTIAL = ".partial"
_UNFINISHED = "being created by meta_lrpinn"


@dataclasses.dataclass(frozen=True)
class Output:
    """The zarr group at a path or URL; can be pickled, and is opened where it is used."""

    url: str

    def group(self) -> Any:
        """The group, to read and to write."""
        import zarr

        return zarr.open_group(self.url, mode="r+")

    def write(
        self,
        block: "Block",
        scattered: np.ndarray,
        estimates: np.ndarray,
        unknowns: np.ndarray,
        converged: np.ndarray | None,
    ) -> None:
        """Writes a block, last of all that it is whole.

        Args:
            block: Which.
            scattered: (n_models, n_sources, ...) of the block.
            estimates: (n_models, n_sources).
            unknowns: (n_models,) of each solve.
            converged: (n_models, n_sources); None without a tolerance.
        """
        group = self.group()
        values = {
            "scattered": scattered,
            "error_estimate": estimates,
            "unknowns": np.broadcast_to(unknowns[:, None], estimates.shape),
            _CONVERGED: converged,
            "solved": np.ones(estimates.shape, bool),
        }
        for name, array in values.items():
            if array is not None:
                group[name][tuple(block)] = array[:, None]

    def missed(self) -> int | None:
        """How many wavefields of a whole survey missed the tolerance; None without one."""
        group = self.group()
        if _CONVERGED not in group:
            return None
        reached = group[_CONVERGED]
        return sum(int(np.sum(~reached[:, index])) for index in range(reached.shape[1]))

    def clear_partial(self) -> None:
        """Removes what killed processes were writing; no other may be at work."""
        if "://" not in self.url:
            for path in pathlib.Path(self.url).rglob(f"*{_PARTIAL}"):
                path.unlink(missing_ok=True)

    def solved(self, sizes: tuple[int, int]) -> np.ndarray:
        """Which blocks are there, (model blocks, n_frequencies, source blocks)."""
        return self.group()["solved"][:: sizes[0], :, :: sizes[1]]


def open_output(
    out: str | os.PathLike,
    description: Mapping[str, Any],
    plan: "Plan",
    grid: VelocityModel,
    models: int,
    sizes: tuple[int, int],
) -> Output:
    """The output of a survey, created unless it is there.

    Args:
        out: Path, or URL that all workers reach.
        description: What the survey is; plain values.
        plan: Its frequencies, sources, receivers.
        grid: A model on its grid.
        models: Number of velocities.
        sizes: Models and sources of a block.

    Raises:
        ValueError: if there is something else, or the disk is too small.
    """
    machine.require(("zarr",), "xarray", "a survey")
    import zarr

    text = os.fspath(out)
    output = Output(text if "://" in text else os.path.abspath(text))
    try:
        group = zarr.open_group(output.url, mode="r")
    except FileNotFoundError:
        if "://" not in text and os.path.lexists(text) and not _is_empty_folder(text):
            raise ValueError(f"{text} is there and no survey; choose another") from None
    except Exception as error:  # Stores raise nearly anything.
        raise ValueError(one_line(f"cannot open {text}: {error}")) from None
    else:
        known = group.attrs.get(_DESCRIPTION)
        if known != _UNFINISHED:
            _check_same(text, known, description)
            if plan.settings.tolerance is not None and _CONVERGED not in group:
                raise ValueError(
                    f"{text} is of a version that did not keep which wavefields reached "
                    "the tolerance; choose another output"
                )
            return output
    _create(output, description, plan, grid, models, sizes)
    return output


def _is_empty_folder(path: str) -> bool:
    # The lock of this very run may be in it, and what a killed one was writing.
    return os.path.isdir(path) and all(
        name == ".lock" or name.endswith(_PARTIAL) for name in os.listdir(path)
    )


def _check_same(out: str, known: Any, description: Mapping[str, Any]) -> None:
    if not isinstance(known, dict):
        raise ValueError(f"{out} is there and no survey; choose another")
    names = {*known, *description}
    other = sorted(name for name in names if known.get(name) != description.get(name))
    if other:
        raise ValueError(
            f"{out} is a survey with other {', '.join(other)}; give the same, or choose "
            "another output"
        )


def _create(
    output: Output,
    description: Mapping[str, Any],
    plan: "Plan",
    grid: VelocityModel,
    models: int,
    sizes: tuple[int, int],
) -> None:
    """Empty arrays, with coordinates; the description last."""
    import zarr

    group = zarr.open_group(output.url, mode="a", attributes={_DESCRIPTION: _UNFINISHED})
    points = storage.positions("source", plan.sources)
    axes = storage.axes_of(grid) if plan.receivers is None else {}
    dimensions, space = tuple(axes), grid.shape
    if plan.receivers is not None:
        dimensions, space = ("receiver",), (len(plan.receivers),)
        points |= storage.positions("receiver", plan.receivers)
    coordinates = {
        "frequency": variable(("frequency",), plan.frequencies, units="Hz"),
        "model": variable(("model",), np.arange(models)),
        **points,
        **axes,
    }
    for name, (labels, values, attributes) in coordinates.items():
        group.create_array(
            name, data=values, dimension_names=labels, attributes=attributes, overwrite=True
        )
    beside = {"coordinates": " ".join(points)}
    arrays = [
        ("scattered", np.complex64, np.nan, space, "scattered wavefield"),
        ("error_estimate", np.float32, np.nan, (), "estimated relative error (L2)"),
        ("unknowns", np.int32, 0, (), "complex unknowns of the solve"),
        ("solved", bool, False, (), "whether the chunk has been solved"),
    ]
    if plan.settings.tolerance is not None:
        text = "whether the tolerance was reached; false until solved"
        arrays.append((_CONVERGED, bool, False, (), text))
    for name, kind, fill, extra, text in arrays:
        group.create_array(
            name,
            shape=(models, len(plan.frequencies), len(plan.sources), *extra),
            chunks=(sizes[0], 1, sizes[1], *extra),
            dtype=kind,
            fill_value=fill,
            dimension_names=(*_AXES, *(dimensions if extra else ())),
            attributes={"long_name": text, **beside},
            overwrite=True,
        )
    with warnings.catch_warnings():
        # Not in the specification of format 3 yet, but what xarray opens quickly.
        warnings.simplefilter("ignore")
        group = zarr.consolidate_metadata(group.store)
    conventions = "time goes as exp(+i omega t); depth z is positive down"
    # In one write: what has a description is whole.
    group.attrs.update(
        {"conventions": conventions, **beside, _DESCRIPTION: dict(description)}
    )


def check_room(out: str | os.PathLike, needed: int) -> None:
    """Refuses a new output on a disk that is too small; of a URL nothing is known.

    Raises:
        ValueError: if the disk has less free than the needed bytes, uncompressed.
    """
    if "://" in os.fspath(out) or os.path.lexists(out):
        return
    parents = pathlib.Path(out).absolute().parents
    folder = next(parent for parent in parents if parent.is_dir())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ValueError(
            f"the survey takes {needed / 2**30:.3g} GiB, {folder} has "
            f"{free / 2**30:.3g} GiB free; give receivers, or another output"
        )
