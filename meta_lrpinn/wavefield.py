"""The one result of `solve`: what was found, and what one does with it.

The parts stand below: `solved` holds the fields, `plotting` draws them, and `results`
converts, saves and reports them.
"""

import os
from typing import TYPE_CHECKING

import numpy as np

from meta_lrpinn.solved import SolvedField

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure


class Wavefield(SolvedField):
    """Frequency-domain wavefield u = u₀ + δu of one or several point sources.

    With several sources, every array has the source as its first axis. It can be pickled
    and sent to other processes.
    """

    def to_xarray(self) -> "xarray.Dataset":
        """The fields with coordinates, units and provenance.

        Returns:
            A dataset with `velocity`, `scattered`, `background` and `total` over z, y and
            x [km], after `source` where there are several; `frequency` and the source
            positions are coordinates. `total` is NaN at nodes that hold a source.

        Raises:
            ValueError: if xarray is not installed.
        """
        from meta_lrpinn.results import storage

        return storage.to_xarray(self)

    def save(self, path: str | os.PathLike) -> None:
        """Writes what `to_xarray` gives; `load_wavefield` reads it, all of it or nothing.

        Each of these files is also a case, which `load_case` and `--velocity` read.

        Args:
            path: Ending in .nc, .zarr, .h5 or .npz, which is the format; replaced if it
                exists.

        Raises:
            ValueError: if the ending is another, or the format's library is missing.
        """
        from meta_lrpinn.results import storage

        storage.save(self, path)

    def plot(
        self, reference: np.ndarray | None = None, *, source_index: int = 0
    ) -> "Figure":
        """Velocity, fields and, with a reference, the difference from it.

        In 3D each of them is cut by three planes; see `plotting.wavefield_figure`.

        Args:
            reference: δu to compare with, of the shape of `scattered`.
            source_index: Which source to show where there are several.

        Returns:
            A Matplotlib figure; save it with `figure.savefig(path)`.

        Raises:
            ValueError: if the reference has another shape, or there is no such source.
        """
        from meta_lrpinn import plotting

        return plotting.wavefield_figure(self, reference, source_index=source_index)

    def report(self, path: str | os.PathLike, reference: np.ndarray | None = None) -> None:
        """Writes one HTML file that any browser opens, without a server or a network.

        Several frequencies in one file are written by `write_report`.

        Args:
            path: The file, ending in .html; replaced if it exists.
            reference: δu to compare with, of the shape of `scattered`.

        Raises:
            ValueError: if the path has another ending, the reference another shape, the
                report would be too large to open, or plotly is not installed.
        """
        from meta_lrpinn.results import report

        report.write_report(path, [self], None if reference is None else [reference])
