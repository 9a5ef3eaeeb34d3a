"""What several test modules share."""

import gc
import importlib.metadata
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import tempfile

import hypothesis
import pytest

# Searches give the same in every run, however long an example takes.
hypothesis.settings.register_profile(
    "search",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)
hypothesis.settings.load_profile("search")

# Most of the time of a small test is compilation, which level 0 halves. Set before JAX is
# imported; child processes inherit it.
_FLAGS = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
# At level 0 one kind of processor got wrong gradients of `custom_linear_solve`: with the
# same instructions everywhere, what passes on one machine passes on another.
if platform.machine() in ("x86_64", "AMD64"):
    _FLAGS += " --xla_cpu_max_isa=AVX2"
# Without fusion emitters a test of an experiment takes two thirds of the time. Later
# versions do not know the flag and would end the process.
if importlib.metadata.version("jaxlib").startswith("0.10."):
    _FLAGS += " --xla_cpu_use_fusion_emitters=false"
os.environ.setdefault("XLA_FLAGS", _FLAGS)


def pytest_configure(config):
    """Shares compiled programs between the processes of a run, in a temporary folder.

    Workers and child processes inherit the folder's name; a folder that
    JAX_COMPILATION_CACHE_DIR names already is used instead, and kept.
    """
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        folder = tempfile.mkdtemp(prefix="meta_lrpinn_programs_")
        os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


def pytest_generate_tests(metafunc):
    """The argument `count` of tests marked with counts, as a slow and a reliability test.

    META_LRPINN_COUNTS multiplies those of the reliability tests, 0.1 for a tenth.
    """
    marker = metafunc.definition.get_closest_marker("counts")
    if marker is None:
        return
    factor = float(os.environ.get("META_LRPINN_COUNTS", "1"))
    few, many = marker.kwargs["slow"], marker.kwargs["reliability"]
    many = max(few, round(factor * many))
    metafunc.parametrize(
        "count",
        [
            pytest.param(few, marks=pytest.mark.slow, id="few"),
            pytest.param(many, marks=pytest.mark.reliability, id="many"),
        ],
    )


@pytest.fixture(scope="session")
def contents():
    """A function of a folder: the bytes of all files by their names in it."""

    def bytes_of_files(folder):
        paths = sorted(path for path in pathlib.Path(folder).rglob("*") if path.is_file())
        return {str(path.relative_to(folder)): path.read_bytes() for path in paths}

    return bytes_of_files


@pytest.fixture(scope="session")
def beside_a_tpu():
    """A function of a script and a folder, which runs it there beside a pretended TPU."""

    def run(script, folder):
        here = pathlib.Path(__file__).parent
        flags = os.environ["XLA_FLAGS"] + " --xla_force_host_platform_device_count=2"
        environment = {"PYTHONPATH": str(here.parent), "XLA_FLAGS": flags}
        done = subprocess.run(
            [sys.executable, here / "pretended_tpu.py"],
            input=script,
            env={**os.environ, **environment, "JAX_PLATFORMS": "cpu"},
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=280,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    return run


@pytest.fixture(scope="session")
def data_dir() -> pathlib.Path:
    """Folder of the published data; the test is skipped where there is none.

    META_LRPINN_DATA names it, else it is ../shared/data beside the repository.
    """
    default = pathlib.Path(__file__).parents[2] / "shared" / "data"
    folder = pathlib.Path(os.environ.get("META_LRPINN_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"published data are absent: there is no folder {folder}")
    return folder


@pytest.fixture(scope="module", autouse=True)
def forget_compiled_programs():
    """Frees what a module compiled.

    Every program on a CPU holds a few memory maps, and a process may have 65,530 of them
    (Linux, vm.max_map_count): the whole suite in one process would end in a crash.
    """
    yield
    import jax

    jax.clear_caches()
    gc.collect()
