"""Many velocities on one grid, in memory or in a file that is read piece by piece."""

import dataclasses
import math
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from meta_lrpinn.files import cases
from meta_lrpinn.files.layouts import Layout, Reading
from meta_lrpinn.files.readers.contents import ArrayFile
from meta_lrpinn.physics.velocity import VelocityModel

# Models are read so many at a time, since those of a zarr file share chunks.
_BYTES_AT_ONCE = 32 * 2**20


@dataclasses.dataclass(frozen=True, eq=False)
class Velocities:
    """A stack of velocities on one grid, of which some are read at a time."""

    values: np.ndarray | ArrayFile  # models along the first axis
    number: int  # of models
    layout: Layout  # what makes velocities of the values
    quality: np.ndarray | float | None = None  # Q of all, one number or on the grid
    first: int = 0  # row of the first model

    def __len__(self) -> int:
        return self.number

    def __iter__(self) -> Iterator[VelocityModel]:
        """The models.

        Raises:
            ValueError: if a value is no velocity; it says of which model.
        """
        values = self.values
        source = values.open() if isinstance(values, ArrayFile) else values
        rows = max(1, _BYTES_AT_ONCE // (8 * math.prod(source.shape[1:])))
        last = self.first + self.number
        for start in range(self.first, last, rows):
            block = np.asarray(source[start : min(start + rows, last)])
            for index in range(len(block)):
                try:
                    yield self._model(block[index : index + 1])
                except ValueError as error:
                    where = f"velocity {start + index} of the survey"
                    raise ValueError(f"{where}: {error}") from None

    def _model(self, stored: np.ndarray) -> VelocityModel:
        layout, values = self.layout, self.layout.velocities(stored)
        values = values.reshape(values.shape[-layout.ndim :])
        return VelocityModel(values, layout.spacing, layout.origin, self.quality)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was turned, unpacked or converted in reading."""
        return self.layout.notes

    @property
    def grid(self) -> VelocityModel:
        """The first model, which stands for the grid of all."""
        return next(iter(self.part(0, 1)))

    def part(self, start: int, stop: int) -> "Velocities":
        """The models from `start` to `stop`; of an array only what they need."""
        if isinstance(self.values, ArrayFile):
            return dataclasses.replace(self, first=self.first + start, number=stop - start)
        values = self.values[start:stop]
        return dataclasses.replace(self, values=values, number=len(values))


def open_velocities(
    source: str | os.PathLike | Velocities | VelocityModel | Sequence[VelocityModel],
    spacing: float | Sequence[float] | None = None,
    unit: str | None = None,
    quality: float | np.ndarray | None = None,
    **options: Any,
) -> Velocities:
    """Velocities in memory, or those that a file holds.

    A .npy file and a zarr array are read slice by slice, wherever they are needed; any
    other file is read whole. What `load_velocity` reads as one model is one.

    Args:
        source: Models, or a file or URL, as FILE:NAME where it holds several arrays.
        spacing: Grid spacing [km], of files without it.
        unit: Of the velocities in a file, as for `load_velocity`.
        quality: Quality factor Q of all velocities, one number or on their grid; by
            default the file's own.
        **options: The others of `load_velocity`.

    Raises:
        ValueError: if there is no velocity, or it has no spacing.
        FileNotFoundError: if there is no such file.
    """
    if isinstance(source, str | os.PathLike):
        reading = Reading(spacing=spacing, unit=unit, **options)
        stack = _of_file(cases.open_array(source, None, reading, lazily=True))
    elif isinstance(source, Velocities):
        stack = source
    else:
        stack = _of_models([source] if isinstance(source, VelocityModel) else list(source))
    return stack if quality is None else dataclasses.replace(stack, quality=quality)


def _of_models(models: list[VelocityModel]) -> Velocities:
    if not models:
        raise ValueError("a survey needs at least one model")
    if len({(m.shape, m.spacing, m.origin) for m in models}) != 1:
        raise ValueError("the models of a survey must share one grid")
    first, *others = models
    if not all(np.array_equal(first.quality, other.quality) for other in others):
        raise ValueError("the models of a survey must share one quality")
    values = np.stack([np.asarray(model.velocity) for model in models])
    quality = None if first.quality is None else np.asarray(first.quality)
    straight = tuple(range(values.ndim))
    layout = Layout(straight, (len(models),), (), first.spacing, first.origin)
    return Velocities(values, len(models), layout, quality)


def _of_file(opened: cases.Opened) -> Velocities:
    """All models of a file, or the one that an index names."""
    layout, stored = opened.layout, opened.stored
    with cases.naming(opened.path):
        quality = None
        if opened.index:
            stored = cases.one_of_stack(opened)
            layout = dataclasses.replace(layout, stack=(1,) * len(layout.stack))
        elif opened.is_default:
            quality = cases.quality_of(opened.contents, layout)
        number = math.prod(layout.stack)
        if number not in (1, max(layout.stack, default=1)):
            raise ValueError(
                f"{opened.name} has shape {stored.shape}: a stack has one axis of models"
            )
        if not number:
            raise ValueError("a survey needs at least one model")
    if not layout.stack or layout.order[0] != 0 or stored.shape[0] != number:
        turned = layout.turned(stored[...])
        stored = turned.reshape(number, *turned.shape[-layout.ndim :])
        straight = tuple(range(stored.ndim))
        layout = dataclasses.replace(layout, order=straight, stack=(number,), flipped=())
    return Velocities(stored, number, layout, quality)
