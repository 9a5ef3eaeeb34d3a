"""How a survey is divided."""

import numpy as np
import pytest

from meta_lrpinn.solvers.survey_run import block_sizes, blocks

GIB = 2**30


@pytest.mark.parametrize("sizes", [(1, 1), (2, 3), (5, 4), (3, 2)])
def test_every_wavefield_is_in_one_block(sizes):
    shape = (5, 3, 4)
    count = np.zeros(shape, int)
    for block in blocks(shape, sizes):
        count[tuple(block)] += 1
        assert block.wavefields == count[tuple(block)].size
    np.testing.assert_array_equal(count, 1)


def test_blocks_of_one_solver_follow_each_other():
    groups = [(b.frequencies.start, b.sources.start) for b in blocks((4, 2, 4), (1, 2))]
    assert groups == sorted(groups) and len(set(groups)) == 4


@pytest.mark.parametrize(
    ("models", "sources", "points", "memory"),
    [(10_000, 100, 100, 4), (200, 10, 91 * 91, 4), (7, 100, 2_000_000, 1), (1, 1, 1, 4)],
)
def test_a_block_fits_into_memory(models, sources, points, memory):
    per_model, per_source = block_sizes(models, sources, points, memory)
    assert 1 <= per_model <= models and 1 <= per_source <= sources
    assert 8 * per_model * per_source * points <= memory * GIB / 4


def test_small_surveys_have_enough_blocks_for_several_workers():
    per_model, _ = block_sizes(200, 10, 50, 4.0)
    assert -(-200 // per_model) >= 15
    assert block_sizes(200, 10, 50, 4.0, most=2)[0] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, 1, 10**9, 4.0), "one wavefield takes 7.45 GiB, more than a quarter"),
        ((1, 1, 10, 4.0, 0), "models_per_chunk must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_divided_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        block_sizes(*arguments)
