"""A checkpoint is the whole run: stopped and resumed equals never stopped, bit for bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rql_lightning.callbacks import FrameCheckpoint
from rql_lightning.checkpoints import read_checkpoint, write_atomically


def assert_identical(first: Any, second: Any, path: str = "") -> None:
    assert type(first) is type(second), path
    if isinstance(first, dict):
        assert first.keys() == second.keys(), path
        for key in first:
            assert_identical(first[key], second[key], f"{path}/{key}")
    elif isinstance(first, list | tuple):
        assert len(first) == len(second), path
        for index, pair in enumerate(zip(first, second, strict=True)):
            assert_identical(*pair, f"{path}/{index}")
    elif isinstance(first, torch.Tensor):
        assert first.dtype == second.dtype and torch.equal(first, second), path
    else:
        assert first == second, path


def contents(run: Any, version: int) -> dict[str, Any]:
    checkpoint = torch.load(run.checkpoint(version), weights_only=True)
    about = {key: value for key, value in checkpoint["rql_lightning"].items() if key != "train_seconds"}
    data = checkpoint["rql_lightning_data"]
    weights = {key: checkpoint[key] for key in ("state_dict", "optimizer_states", "global_step")}
    return {**weights, "about": about, "data": data, "replay": run.replay(version)}


def interrupt_at(frames: int, monkeypatch: pytest.MonkeyPatch) -> None:
    original = FrameCheckpoint.on_train_batch_end

    def patched(self: FrameCheckpoint, trainer: Any, *args: Any) -> None:
        self.request.received = signal.SIGINT if trainer.datamodule.frames >= frames else None
        original(self, trainer, *args)

    monkeypatch.setattr(FrameCheckpoint, "on_train_batch_end", patched)


def stop_and_resume(run: Any, monkeypatch: pytest.MonkeyPatch, at: int, *arguments: str) -> None:
    """Version 0: never stopped. Version 1: stopped. Version 2: resumed from 1."""
    run("fit", *arguments)
    with monkeypatch.context() as patch:
        interrupt_at(at, patch)
        with pytest.raises(SystemExit) as stop:
            run("fit", *arguments)
        assert stop.value.code == 130
    assert torch.load(run.checkpoint(1), weights_only=True)["rql_lightning"]["frames"] == at
    run("fit", *arguments, f"--ckpt_path={run.checkpoint(1)}")


@pytest.mark.parametrize("at", [512, 576])  # on and off the frames at which checkpoints are due anyway
def test_resumed_run_equals_the_uninterrupted_one_bit_for_bit(run, monkeypatch, at):
    stop_and_resume(run, monkeypatch, at)
    uninterrupted, resumed = contents(run, 0), contents(run, 2)
    assert uninterrupted["replay"]["env"] is not None
    assert_identical(uninterrupted, resumed)
    first, second = run.metrics(0), run.metrics(2)
    assert {**first, "train_seconds": 0} == {**second, "train_seconds": 0}
    curves = [
        torch.load(run.checkpoint(version), weights_only=True)["callbacks"]["EvaluationCallback"]["history"]
        for version in (0, 2)
    ]
    assert [entry["frames"] for entry in curves[0]] == [0, 512]
    assert_identical(*curves)


def test_a_resumed_run_on_a_compiled_environment_equals_the_uninterrupted_one(highway, monkeypatch):
    stop_and_resume(highway, monkeypatch, 576, "--video.episodes=0")
    uninterrupted, resumed = contents(highway, 0), contents(highway, 2)
    assert {"vehicles", "generators", "episode_metric"} <= uninterrupted["replay"]["env"].keys()
    assert_identical(uninterrupted, resumed)


def test_the_comparison_can_fail(run):
    run("fit")
    run("fit", "--seed_everything=1")
    with pytest.raises(AssertionError):
        assert_identical(contents(run, 0), contents(run, 1))


def test_a_finished_run_goes_on_with_a_larger_budget(run):
    run("fit")
    run("fit", f"--ckpt_path={run.checkpoint()}", "--data.total_frames=1536")
    assert run.metrics(1)["frames"] == 1536
    assert run.metrics(1)["updates"] == run.metrics(0)["updates"] + 8 * 4


def test_a_write_that_dies_leaves_the_previous_file(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    write_atomically({"rql_lightning": {"frames": 1}}, path)

    def die(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", die)
    with pytest.raises(OSError, match="disk full"):
        write_atomically({"rql_lightning": {"frames": 2}}, path)
    assert read_checkpoint(path) == {"rql_lightning": {"frames": 1}}
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def start(run: Any, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "rql_lightning.train", *run.arguments("fit", *arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for(path: Path, process: subprocess.Popen[str], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not path.is_file():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, f"no {path} after {seconds} s"
        time.sleep(0.01)


def test_kill_9_leaves_a_checkpoint_to_resume_from(run):
    process = start(run, "--data.total_frames=1_000_000", "--checkpoint.every_n_frames=64")  # writes all the time
    wait_for(run.checkpoint(), process)
    time.sleep(float(np.random.default_rng().uniform(0.2, 0.6)))
    process.kill()
    process.wait()
    frames = read_checkpoint(run.checkpoint())["rql_lightning"]["frames"]
    run("fit", f"--ckpt_path={run.checkpoint()}", f"--data.total_frames={frames + 64}")
    assert run.metrics(1)["frames"] == frames + 64
