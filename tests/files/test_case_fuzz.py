"""Files that are whole but make no sense: any array under any of the known names."""

import io
import os

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from meta_lrpinn.files.cases import load_case

NAMES = (
    "velocity vel v other velocity_spacing spacing origin source source_x source_z "
    "frequency amplitude v0 scattered quality free_surface dz dy dx weights x y z depth "
    "velocity_units units z_units z_positive velocity_scale_factor velocity__FillValue"
).split()
TYPES = "f2 f4 f8 >f4 i1 i8 u2 c8 c16 ? U3 S2 M8[s]".split()
ARRAYS = st.sampled_from(TYPES).flatmap(
    lambda kind: arrays.arrays(
        np.dtype(kind), arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
    )
) | st.sampled_from(["km", "m", "ft/s", "s/km", "up", "true", "?"]).map(np.array)
# A model that is read, so that what stands beside it is looked at.
MODEL = {"velocity": np.full((4, 5), 2.0), "spacing": np.array(0.1)}
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["velocity", "other", "velocity[1]", "[0,1]", "v0", "]["]),
        "spacing": st.sampled_from([0.1, (0.1, 0.2), (0.1, 0.2, 0.3), 25, np.nan, 0]),
        "unit": st.sampled_from(["km/s", "m/s", "ft/s", "s/km", "s2/km2", "knots"]),
        "spacing_unit": st.sampled_from(["km", "m", "ft", None]),
        "transpose": st.booleans(),
        "fill": st.sampled_from([None, "nearest"]),
    },
)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "a.npz"


def check(path, fields, options):
    """Whether a file of these fields is read."""
    buffer = io.BytesIO()
    np.savez(buffer, **fields)
    path.write_bytes(buffer.getvalue())
    try:
        case = load_case(path, **options)
    except (ValueError, OSError) as error:
        text = str(error)
        assert len(text.splitlines()) == 1 and len(text) <= 300
        is_read = False
    else:
        assert 0.1 <= case.model.minimum <= case.model.maximum <= 100
        is_read = True
    assert os.listdir(path.parent) == [path.name]
    return is_read


FIELDS = st.dictionaries(st.sampled_from(NAMES), ARRAYS, max_size=5)
KEEPS_MODEL = st.booleans()


@hypothesis.settings(max_examples=150)
@hypothesis.given(FIELDS, KEEPS_MODEL, OPTIONS)
def test_any_arrays_are_read_or_refused_in_a_line(path, fields, keeps_model, options):
    check(path, fields | (MODEL if keeps_model else {}), options)


@pytest.mark.counts(slow=1000, reliability=10_000)
def test_very_many_arrays_are_read_or_refused(path, count):
    @hypothesis.settings(max_examples=count)
    @hypothesis.given(FIELDS, KEEPS_MODEL, OPTIONS)
    def search(fields, keeps_model, options):
        read.append(check(path, fields | (MODEL if keeps_model else {}), options))

    read = []
    search()
    print(f"{len(read)} files: {sum(read)} read, {len(read) - sum(read)} refused")
