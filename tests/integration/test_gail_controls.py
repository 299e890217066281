"""GAIL learns from its demonstrations, and not from the sign of its reward."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def controls(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The benchmark of the controls, as a module."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["train"])
    spec = importlib.util.spec_from_file_location("gail_controls", ROOT / "benchmarks/gail_controls.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_only_demonstrations_of_an_expert_make_an_expert(controls, tmp_path):
    """With the default reward and seed 0, within 100,000 frames."""
    folders = controls.demonstrations(tmp_path / "demonstrations")
    runs = {
        name: controls.imitate(folder, tmp_path / name, "logit", absorbing=False, seed=0, frames=100_000)
        for name, folder in folders.items()
    }
    assert runs["expert"]["success_rate"] > 0.9 and runs["expert"]["basic_return_mean"] > 390
    for name in ("random actions", "random numbers"):
        assert runs[name]["success_rate"] < 0.1 and runs[name]["basic_return_mean"] < 100, name
