"""A wavefield in motion, over the velocity that it travels in."""

import os
import pathlib
import tempfile
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from meta_lrpinn.files import writing
from meta_lrpinn.physics.velocity import VelocityModel

if TYPE_CHECKING:
    from meta_lrpinn.solvers.seismograms import Traces

_FRAMES_PER_SECOND = 20
# Of the largest amplitude, the part that has the full colour: late waves are weak.
_CLIP = 0.2
_WIDTH = 5.0  # inches


def save(traces: "Traces", path: str | os.PathLike) -> None:
    """Writes snapshots of the first source as an animated GIF; see `Traces.movie`."""
    path = pathlib.Path(path)
    check_path(path)
    writing.write_together({path: writer(traces)})


def check_path(path: pathlib.Path) -> None:
    """Refuses, before anything is computed, another format.

    Raises:
        ValueError: if the ending is not .gif, or a folder is in its place.
    """
    if path.suffix.lower() != ".gif":
        raise ValueError(f"movies are written as .gif, got {path}")
    writing.check_file(path)


def check_dimension(model: VelocityModel) -> None:
    """Refuses, before anything is computed, a model that there are no movies of.

    Raises:
        ValueError: if it is in 3D.
    """
    if model.ndim == 3:
        raise ValueError("movies are of models in 2D")


def writer(traces: "Traces") -> Callable[[IO[Any]], None]:
    """What writes the animation, for `writing.write_together`.

    Raises:
        ValueError: if there are no snapshots, or they are in 3D.
    """
    from matplotlib.animation import FuncAnimation, PillowWriter
    from matplotlib.figure import Figure

    if not len(traces.snapshots):
        raise ValueError("there are no snapshots; ask time_traces for some")
    model = traces.model
    check_dimension(model)
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
