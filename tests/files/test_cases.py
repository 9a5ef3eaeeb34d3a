"""Velocity files and cases of every format."""

import importlib.util
import os

import chex
import numpy as np
import pytest
import scipy.io

from meta_lrpinn.files.cases import Case, load_case, load_velocity, save_case, save_velocity
from meta_lrpinn.physics.velocity import VelocityModel

GOOD = np.full((4, 5), 2.0)
RNG = np.random.default_rng(0)
MODELS = {
    2: VelocityModel(RNG.uniform(1.5, 4.5, (7, 9)), (0.02, 0.03), (1.0, 0.5)),
    3: VelocityModel(
        RNG.uniform(1.5, 4.5, (5, 6, 7)), (0.02, 0.025, 0.03), (1.0, -0.2, 0.5)
    ),
}


@pytest.fixture
def model():
    return MODELS[2]


def assert_same(loaded, expected):
    np.testing.assert_array_equal(loaded.velocity, expected.velocity)
    np.testing.assert_allclose(loaded.spacing, expected.spacing)
    np.testing.assert_allclose(loaded.origin, expected.origin)


@pytest.mark.parametrize("ndim", [2, 3])
def test_npz_round_trip(tmp_path, ndim):
    model = MODELS[ndim]
    model = model.replace_velocity(model.velocity.astype(np.float32))
    save_velocity(tmp_path / "model.npz", model)
    assert_same(load_velocity(tmp_path / "model.npz"), model)
    assert load_velocity(tmp_path / "model.npz").velocity.dtype == np.float32
    assert os.listdir(tmp_path) == ["model.npz"]


def test_saving_replaces_all_or_nothing(tmp_path, model, monkeypatch):
    path = tmp_path / "model.npz"
    save_velocity(path, model)

    def fail(file, **arrays):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez_compressed", fail)
    with pytest.raises(OSError, match="disk full"):
        save_velocity(path, model.replace_velocity(model.velocity + 1))
    assert_same(load_velocity(path), model)
    assert os.listdir(tmp_path) == ["model.npz"]


def test_saving_refuses_other_endings_and_missing_folders(tmp_path, model):
    with pytest.raises(ValueError, match="written as .npz files, got .*model.mat"):
        save_velocity(tmp_path / "model.mat", model)
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        save_velocity(tmp_path / "none" / "model.npz", model)


def test_npy_needs_a_spacing(tmp_path, model):
    path = tmp_path / "model.npy"
    np.save(path, model.velocity)
    assert_same(load_velocity(path, spacing=0.1), VelocityModel(model.velocity, 0.1))
    with pytest.raises(ValueError, match="holds no grid spacing .* give it in km"):
        load_velocity(path)


@pytest.mark.parametrize("key", ["velocity", "v", "vel", "speeds"])
def test_mat_finds_the_array(tmp_path, model, key):
    path = tmp_path / "model.mat"
    scipy.io.savemat(path, {key: model.velocity, "spacing": model.spacing, "note": "a"})
    np.testing.assert_array_equal(load_velocity(path).velocity, model.velocity)
    assert load_velocity(path).spacing == model.spacing
    assert load_velocity(path, spacing=0.5).spacing == (0.5, 0.5)


def test_mat_reads_dz_and_dx(tmp_path, model):
    scipy.io.savemat(tmp_path / "a.mat", {"v": model.velocity, "dz": 0.01, "dx": 0.02})
    assert load_velocity(tmp_path / "a.mat").spacing == (0.01, 0.02)


def write_segy(path, velocity):
    segyio = pytest.importorskip("segyio")
    spec = segyio.spec()
    spec.format = 5
    spec.samples = np.arange(velocity.shape[0])
    spec.tracecount = velocity.shape[1]
    with segyio.create(str(path), spec) as file:
        for index in range(velocity.shape[1]):
            file.trace[index] = velocity[:, index].astype(np.float32)


@pytest.mark.parametrize("suffix", ["sgy", "segy"])
def test_segy_has_traces_along_x(tmp_path, model, suffix):
    path = tmp_path / f"model.{suffix}"
    write_segy(path, model.velocity)
    loaded = load_velocity(path, spacing=(0.02, 0.03))
    assert loaded.shape == model.shape
    np.testing.assert_allclose(loaded.velocity, model.velocity, rtol=1e-6)
    with pytest.raises(ValueError, match="holds no grid spacing"):
        load_velocity(path)


def test_segy_that_is_none_is_one_line(tmp_path):
    pytest.importorskip("segyio")
    (tmp_path / "bad.sgy").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="cannot read .*bad.sgy") as error:
        load_velocity(tmp_path / "bad.sgy", spacing=0.1)
    assert "\n" not in str(error.value)


def test_segy_without_segyio_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "model.sgy").write_bytes(b"anything")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError) as error:
        load_velocity(tmp_path / "model.sgy", spacing=0.1)
    assert str(error.value) == (
        "reading SEG-Y needs segyio: pip install 'meta_lrpinn[segy]'"
    )


@pytest.fixture
def library(tmp_path):
    path = tmp_path / "models.npz"
    np.savez(
        path,
        hills=np.full((4, 5), 2.0),
        hills_spacing=0.1,
        plain=np.full((6, 5), 3.0),
        plain_spacing=(0.1, 0.2),
    )
    return path


def test_models_of_one_file_are_chosen_by_name(library):
    assert load_velocity(library, "plain").spacing == (0.1, 0.2)
    assert load_velocity(f"{library}:hills").spacing == (0.1, 0.1)
    assert load_velocity(library, "plain", spacing=0.7).spacing == (0.7, 0.7)


def test_missing_and_unknown_names_list_the_choices(library):
    with pytest.raises(ValueError, match="several models; name one of hills, plain"):
        load_velocity(library)
    with pytest.raises(ValueError, match="no velocity model 'sea'; it holds hills, pl"):
        load_velocity(f"{library}:sea")


def test_colons_in_file_names_are_left_alone(tmp_path, model):
    path = tmp_path / "run:3.npz"
    save_velocity(path, model)
    assert_same(load_velocity(str(path)), model)
    assert_same(load_velocity(f"{path}:velocity"), model)
    with pytest.raises(FileNotFoundError, match="there is no velocity file .*a:b.npz"):
        load_velocity(tmp_path / "a:b.npz")


def test_metres_are_refused_or_converted(tmp_path, model):
    path = tmp_path / "metres.npz"
    metres = {
        "velocity": 1000 * model.velocity,
        "spacing": 1000 * np.array(model.spacing),
        "source": np.array([100.0, 50.0]),
        "v0": 2000.0,
    }
    np.savez(path, **metres)
    with pytest.raises(ValueError, match="metres.npz: .*looks like m/s or ft/s; say so"):
        load_velocity(path)
    case = load_case(path, unit="m/s")
    np.testing.assert_allclose(case.model.velocity, model.velocity)
    np.testing.assert_allclose(case.model.spacing, model.spacing)
    np.testing.assert_allclose(case.source, [0.1, 0.05])
    assert case.background_velocity == 2.0
    assert load_velocity(path, spacing=0.5, unit="m/s").spacing == (0.5, 0.5)
    with pytest.raises(ValueError, match="unit must be one of km/s, .*, got 'knots'"):
        load_velocity(path, unit="knots")


@pytest.mark.parametrize("suffix", ["npy", "npz", "mat"])
@pytest.mark.parametrize("content", [b"", b"not an array at all", b"PK\x03\x04broken"])
def test_broken_files_are_one_line(tmp_path, suffix, content):
    path = tmp_path / f"broken.{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"cannot read .*broken.{suffix}: .") as error:
        load_velocity(path, spacing=0.1)
    assert "\n" not in str(error.value)


def test_pickles_are_not_opened(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="cannot read .*a.npy"):
        load_velocity(tmp_path / "a.npy", spacing=0.1)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no velocity file .*no.npz"):
        load_velocity(tmp_path / "no.npz")
    with pytest.raises(FileNotFoundError):
        load_velocity(tmp_path)
    (tmp_path / "a.txt").write_text("1 2")
    with pytest.raises(ValueError, match="velocity files end in .npy, .npz, .mat"):
        load_velocity(tmp_path / "a.txt")
    np.savez(tmp_path / "b.npz", note=np.arange(3))
    with pytest.raises(ValueError, match="holds no velocity model: .* among note"):
        load_velocity(tmp_path / "b.npz")


def test_values_are_checked_with_the_name_of_the_file(tmp_path):
    np.savez(tmp_path / "b.npz", velocity=-GOOD, spacing=0.1)
    with pytest.raises(ValueError, match="b.npz: velocity must be positive"):
        load_velocity(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", velocity=GOOD.astype(complex), spacing=0.1)
    with pytest.raises(ValueError, match="c.npz: velocity must be an array of real"):
        load_velocity(tmp_path / "c.npz")


# Cases

PLAIN = {"velocity": GOOD, "spacing": 0.1}


def write_case(tmp_path, **fields):
    path = tmp_path / "case.npz"
    np.savez(path, **PLAIN, **fields)
    return path


def test_a_plain_file_is_a_case_of_nothing(tmp_path):
    case = load_case(write_case(tmp_path))
    assert case.model.shape == (4, 5)
    assert case.frequency is case.source is case.amplitude is None
    assert case.background_velocity is case.scattered is None


@pytest.mark.parametrize("writer", [np.savez, None])
def test_case_round_trip(tmp_path, model, writer):
    case = Case(
        model=VelocityModel(GOOD, 0.1),
        frequency=5.0,
        source=np.array([0.2, 0.1]),
        amplitude=1.925j,
        background_velocity=1.5,
        scattered=np.arange(20).reshape(4, 5) * (1 + 2j),
    )
    if writer is None:
        path = tmp_path / "case.npz"
        save_case(path, case)
    else:
        path = write_case(
            tmp_path,
            frequency=5.0,
            source=(0.2, 0.1),
            amplitude=1.925j,
            v0=1.5,
            scattered=case.scattered,
        )
    loaded = load_case(path)
    assert loaded.frequency == 5.0
    assert loaded.amplitude == 1.925j
    assert loaded.background_velocity == 1.5
    np.testing.assert_array_equal(loaded.source, case.source)
    np.testing.assert_array_equal(loaded.scattered, case.scattered)
    assert_same(loaded.model, case.model)


def test_case_from_mat(tmp_path):
    fields = {"frequency": 5.0, "source": [0.2, 0.1], "scattered": GOOD * 1j}
    scipy.io.savemat(tmp_path / "case.mat", {**PLAIN, **fields})
    case = load_case(tmp_path / "case.mat")
    assert case.frequency == 5.0
    chex.assert_shape(case.source, (2,))
    np.testing.assert_array_equal(case.scattered, GOOD * 1j)


def test_sources_from_columns(tmp_path):
    scattered = np.ones((3, 4, 5), np.complex64)
    path = write_case(
        tmp_path, source_x=[0.0, 0.1, 0.2], source_z=0.05, scattered=scattered
    )
    case = load_case(path)
    np.testing.assert_allclose(case.source, [[0.0, 0.05], [0.1, 0.05], [0.2, 0.05]])
    chex.assert_shape(case.scattered, (3, 4, 5))


@pytest.mark.parametrize(
    ("source", "shape"), [((0.1, 0.1), (1, 4, 5)), (((0.1, 0.1),), (4, 5))]
)
def test_one_source_may_or_may_not_have_an_axis(tmp_path, source, shape):
    path = write_case(tmp_path, source=source, scattered=np.ones(shape, np.complex64))
    case = load_case(path)
    assert case.scattered.shape == case.source.shape[:-1] + (4, 5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"frequency": -3.0}, "frequency must be positive, got -3.0 Hz"),
        ({"frequency": [3.0, 4.0]}, r"frequency must be one number, got shape \(2,\)"),
        ({"v0": 0.0}, "background velocity must be positive, got 0.0 km/s"),
        ({"amplitude": [1j, 2j]}, "amplitude must be one number"),
        ({"amplitude": np.nan}, "amplitude must be finite"),
        ({"source": (5.0, 0.0)}, r"source \(5.0, 0.0\) lies outside the model"),
        ({"source": (0.1, 0.1, 0.1)}, "source must have 2 coordinates"),
        ({"source": np.zeros((0, 2))}, "source holds no point"),
        ({"velocity_spacing": [0.1] * 3}, "spacing must be one number or 2, .* got 3"),
        ({"scattered": np.zeros((0, 4, 5), complex)}, "must be finite and not empty"),
        ({"source_x": [0.1, 0.2]}, "source_x needs source_z"),
        ({"source_x": [0.1, 0.2], "source_z": [0.1] * 3}, "must be of one length"),
        (
            {"scattered": np.ones((5, 4), complex)},
            r"scattered must have shape \(4, 5\) .* got \(5, 4\)",
        ),
        (
            {"source": [(0.1, 0.1)] * 2, "scattered": np.ones((3, 4, 5), complex)},
            r"scattered must have shape \(2, 4, 5\) .* got \(3, 4, 5\)",
        ),
        ({"scattered": np.full((4, 5), np.nan)}, "scattered must be finite"),
        ({"scattered": np.array("text")}, "scattered must be an array of complex"),
    ],
)
def test_parts_of_a_case_must_fit(tmp_path, fields, message):
    with pytest.raises(ValueError, match=message) as error:
        load_case(write_case(tmp_path, **fields))
    assert str(error.value).startswith(str(tmp_path))


def test_a_named_model_does_not_take_the_case_of_another(tmp_path):
    path = write_case(tmp_path, other=GOOD[:, :4], scattered=np.ones((4, 5), complex))
    case = load_case(path, "other")
    assert case.scattered is None
    assert case.model.shape == (4, 4)


@pytest.mark.parametrize("name", ["marmousi", "overthrust", "redsea", "hess"])
def test_published_models_are_read(data_dir, name):
    model = load_velocity(f"{data_dir / 'velocity_models.npz'}:{name}")
    assert 1.39 <= model.minimum < model.maximum <= 6.0
    assert model.upper[0] > model.upper[1] > 2.0


def test_published_cases_are_read(data_dir):
    one = load_case(data_dir / "layered_5hz.npz")
    chex.assert_shape(one.scattered, (91, 91))
    np.testing.assert_allclose(one.source, [1.0, 0.025])
    assert (one.frequency, one.amplitude) == (5.0, 1.925j)
    nine = load_case(data_dir / "layered_4hz_9sources.npz")
    chex.assert_shape(nine.scattered, (9, 101, 101))
    chex.assert_shape(nine.source, (9, 2))
    assert nine.background_velocity == 1.5
