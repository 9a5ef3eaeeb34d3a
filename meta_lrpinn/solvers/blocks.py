"""How a survey is divided: one frequency of some velocities and some sources a block."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

# Chunks of a size that file systems and object stores like.
_CHUNK_BYTES = 64 * 2**20
# A stop or a lost worker costs a block for each worker: a few minutes. Small surveys are
# divided, too, so that several workers have something to do.
_MOST_MODELS, _LEAST_BLOCKS = 32, 16
# A block may take this part of the memory; the solver's vectors have the rest.
_PART_OF_MEMORY = 0.25
_BYTES = np.dtype(np.complex64).itemsize


class Block(NamedTuple):
    """One chunk of a survey."""

    models: slice
    frequency: int  # its index
    sources: slice

    @property
    def region(self) -> tuple[slice, slice, slice]:
        """Where it stands in arrays of (n_models, n_frequencies, n_sources)."""
        return self.models, slice(self.frequency, self.frequency + 1), self.sources

    @property
    def wavefields(self) -> int:
        """How many it holds."""
        models, sources = self.models, self.sources
        return (models.stop - models.start) * (sources.stop - sources.start)


def block_sizes(
    models: int, sources: int, points: int, memory: float, most: int | None = None
) -> tuple[int, int]:
    """Models and sources of a block.

    Args:
        models: Number of velocities of the survey.
        sources: Number of sources.
        points: Numbers of one wavefield: receivers, or points of the grid.
        memory: GiB that one process may take.
        most: Models of a block at most; by default by size and number.

    Raises:
        ValueError: if one wavefield does not fit, or `most` is not positive.
    """
    if most is not None and most < 1:
        raise ValueError(f"models_per_chunk must be at least 1, got {most}")
    bytes_of_one = points * _BYTES
    budget = min(_CHUNK_BYTES, _PART_OF_MEMORY * memory * 2**30)
    if bytes_of_one > _PART_OF_MEMORY * memory * 2**30:
        raise ValueError(
            f"one wavefield takes {bytes_of_one / 2**30:.3g} GiB, more than a quarter of "
            f"the memory of {memory:g} GiB; give receivers or more memory"
        )
    per_source = int(np.clip(budget // bytes_of_one, 1, sources))
    if most is None:
        most = min(_MOST_MODELS, -(-models // _LEAST_BLOCKS))
    per_model = int(np.clip(budget // (bytes_of_one * per_source), 1, min(most, models)))
    return per_model, per_source


def blocks(shape: tuple[int, int, int], sizes: tuple[int, int]) -> Iterator[Block]:
    """All blocks, those that share a frequency and sources one after the other.

    Args:
        shape: (n_models, n_frequencies, n_sources) of the survey.
        sizes: Models and sources of a block.
    """
    models, frequencies, sources = shape
    for frequency in range(frequencies):
        for source in range(0, sources, sizes[1]):
            for model in range(0, models, sizes[0]):
                yield Block(
                    slice(model, min(model + sizes[0], models)),
                    frequency,
                    slice(source, min(source + sizes[1], sources)),
                )
