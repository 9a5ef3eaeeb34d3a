"""Compiled programs of the command line, kept from one process to the next."""

import os
import subprocess
import sys

import pytest

from meta_lrpinn.runtime import machine

SCRIPT = """
import warnings
warnings.simplefilter("always")
from meta_lrpinn.runtime import machine
machine.keep_programs()
import jax, jax.numpy as jnp
@jax.jit
def power(x):
    for k in range(6):
        x = jnp.sin(x @ x) + k
    return x
power(jnp.eye(8)).block_until_ready()
"""


def run(place):
    environment = dict(os.environ) | {
        "META_LRPINN_CACHE": str(place),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_programs_are_kept_and_damage_does_not_matter(tmp_path):
    place = tmp_path / "programs"
    run(place)
    kept = [path for path in place.rglob("*-cache") if path.is_file()]
    assert kept
    for path in kept:
        path.write_bytes(b"no program")
    assert "cache" not in run(place)


def test_a_folder_that_cannot_be_used_does_not_matter(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    for chosen in ("off", str(tmp_path / "file"), str(tmp_path / "file" / "within")):
        monkeypatch.setenv("META_LRPINN_CACHE", chosen)
        machine.keep_programs()
        if chosen == "off":
            assert machine.cache_folder() is None
        assert "JAX_COMPILATION_CACHE_DIR" not in os.environ


@pytest.mark.skipif(sys.platform != "linux", reason="where caches are on Linux")
def test_by_default_it_is_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.delenv("META_LRPINN_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert machine.cache_folder() == tmp_path / "meta-lrpinn"
