"""The output of a survey: a zarr group, each block one chunk of every array.

    scattered       (model, frequency, source, receiver) or (..., z, x), complex64
    error_estimate  (model, frequency, source)
    converged       (model, frequency, source), where a tolerance is asked for
    unknowns        (model, frequency, source), of each solve
    solved          (model, frequency, source), written last: the block is whole

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

from meta_lrpinn.files.readers import one_line
from meta_lrpinn.physics.velocity import VelocityModel
from meta_lrpinn.runtime import optional

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
            converged: (n_models, n_sources); None where no tolerance is asked for.
        """
        group = self.group()
        region = tuple(block)
        group["scattered"][region] = scattered[:, None]
        group["error_estimate"][region] = estimates[:, None]
        shape = estimates[:, None].shape
        group["unknowns"][region] = np.broadcast_to(unknowns[:, None, None], shape)
        if converged is not None:
            group[_CONVERGED][region] = converged[:, None]
        group["solved"][region] = True

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
    optional.require(("zarr",), "xarray", "a survey")
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


# Long: one array of the store after the other.
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

    names = "zyx" if grid.ndim == 3 else "zx"
    if plan.receivers is None:
        dimensions, points = tuple(names), grid.shape
    else:
        dimensions, points = ("receiver",), (len(plan.receivers),)
    shape = (models, len(plan.frequencies), len(plan.sources))
    chunks = (sizes[0], 1, sizes[1])
    group = zarr.open_group(output.url, mode="a", attributes={_DESCRIPTION: _UNFINISHED})

    def add(name, values, dimensions, **attributes):
        group.create_array(
            name,
            data=np.asarray(values),
            dimension_names=dimensions,
            attributes=attributes,
            overwrite=True,
        )

    add("frequency", plan.frequencies, ("frequency",), units="Hz")
    add("model", np.arange(models), ("model",))
    coordinates = []
    for what, positions in (("source", plan.sources), ("receiver", plan.receivers)):
        if positions is None:
            continue
        for name, column in zip(names[::-1], positions.T, strict=True):
            add(f"{what}_{name}", column, (what,), units="km")
            coordinates.append(f"{what}_{name}")
    if plan.receivers is None:
        for name, axis in zip(names, grid.axes(), strict=True):
            add(name, axis, (name,), units="km")
    common = {"coordinates": " ".join(coordinates)}
    arrays = [
        ("scattered", np.complex64, np.nan, points, "scattered wavefield"),
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
            shape=(*shape, *extra),
            chunks=(*chunks, *extra),
            dtype=kind,
            fill_value=fill,
            dimension_names=(*_AXES, *(dimensions if extra else ())),
            attributes={"long_name": text, **common},
            overwrite=True,
        )
    with warnings.catch_warnings():
        # Not in the specification of format 3 yet, but what xarray opens quickly.
        warnings.simplefilter("ignore")
        group = zarr.consolidate_metadata(group.store)
    # In one write: what has a description is whole.
    group.attrs.update(
        {
            "conventions": "time goes as exp(+i omega t); depth z is positive down",
            "coordinates": " ".join(coordinates),
            _DESCRIPTION: dict(description),
        }
    )


def check_room(out: str | os.PathLike, needed: int) -> None:
    """Refuses a new output on a disk that is too small.

    Args:
        out: Path; of a URL nothing is known.
        needed: Bytes, compression left out.

    Raises:
        ValueError: if the disk has less free.
    """
    if "://" in os.fspath(out) or os.path.lexists(out):
        return
    folder = os.path.abspath(out)
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ValueError(
            f"the survey takes {needed / 2**30:.3g} GiB, {folder} has "
            f"{free / 2**30:.3g} GiB free; give receivers, or another output"
        )
