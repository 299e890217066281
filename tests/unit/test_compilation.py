"""Compiled simulators where the machine code cannot be kept."""

from __future__ import annotations

import subprocess
import sys
import warnings

import pytest
from numba import njit
from numba.core.caching import CacheImpl

from rql_lightning import compilation

CODE = """
import warnings
from numba.core.caching import CacheImpl
CacheImpl._locator_classes = []  # permissions do not bind the superuser: no folder can be found
import gymnasium as gym, numpy as np, rql_lightning
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    env = gym.make_vec("rql_lightning/Parking-v0", num_envs=2)
    import rql_lightning.envs.simulation.highway
print([str(w.message) for w in caught if "NUMBA_CACHE_DIR" in str(w.message)].__len__())
env.reset(seed=3)
print(sum(env.step(np.full((2, 2), 0.5))[0].sum(dtype=float) for _ in range(5)).hex())
"""


def test_without_a_cache_the_simulators_do_the_same_and_say_so_once():
    import gymnasium as gym
    import numpy as np

    env = gym.make_vec("rql_lightning/Parking-v0", num_envs=2)
    env.reset(seed=3)
    here = sum(env.step(np.full((2, 2), 0.5))[0].sum(dtype=float) for _ in range(5)).hex()
    result = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["1", here]


def doubled(x):
    return 2 * x


def tripled(x):
    return 3 * x


def test_compiling_is_announced_once_and_machine_code_from_disk_is_not(monkeypatch, tmp_path, caplog):
    monkeypatch.setattr("numba.core.config.CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(compilation, "_told", set())
    monkeypatch.setattr(compilation, "__name__", __name__)  # the package that announces its own functions
    assert compilation.entry_point(tripled)(2) == 6
    assert compilation.entry_point(tripled)(2.0) == 6
    assert [record.getMessage() for record in caplog.records] == [
        "compiling simulators or planners: up to a minute, once on a machine"
    ]
    caplog.clear()
    monkeypatch.setattr(compilation, "_told", set())
    assert compilation.entry_point(tripled)(2) == 6
    assert not caplog.records


def test_other_peoples_functions_are_compiled_as_ever(caplog):
    made: dict = {}
    exec("def without_a_module(x): return x + 1", made)
    assert njit(made["without_a_module"])(1) == 2
    assert not caplog.records


def test_the_fingerprint_is_that_of_all_folders_with_compiled_code(tmp_path):
    """Compiled code calls into other folders, whose changes Numba does not notice."""
    package = tmp_path / "package"
    for folder, text in (
        ("", ""),
        ("planning", "@njit\ndef a(): ..."),
        ("envs", ""),
        ("envs/simulation", "@njit\n"),
        ("docs", ""),
    ):
        (package / folder).mkdir(exist_ok=True)
        (package / folder / "__init__.py").write_text(text)

    def fingerprint() -> str:
        compilation.fingerprint.cache_clear()
        return compilation.fingerprint(package)

    before = fingerprint()
    (package / "docs" / "page.py").write_text("text")
    assert fingerprint() == before
    (package / "envs" / "simulation" / "road.py").write_text("LANES = 3")
    assert fingerprint() != before
    compilation.fingerprint.cache_clear()


def test_a_folder_that_can_be_written_is_used_and_nothing_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr("numba.core.config.CACHE_DIR", str(tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert compilation.entry_point(doubled)(3) == 6
    assert list(tmp_path.rglob("*.nbi"))


@pytest.mark.parametrize("folder", ["/dev/null/cache", "/proc/cache"])
def test_a_folder_that_cannot_be_written(monkeypatch, folder):
    monkeypatch.setattr("numba.core.config.CACHE_DIR", folder)
    monkeypatch.setattr(CacheImpl, "_locator_classes", CacheImpl._locator_classes[:1])  # the one for that variable
    monkeypatch.setattr(compilation, "_told", set())
    with pytest.warns(UserWarning, match="NUMBA_CACHE_DIR") as told:
        assert [compilation.entry_point(function)(3) for function in (doubled, doubled)] == [6, 6]
    assert len(told) == 1
