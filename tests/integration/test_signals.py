"""Ctrl-C and SIGTERM, in every command and stage: a prompt end, the right exit code, and nothing lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from rql_lightning.callbacks import EvaluationCallback, Stopped
from rql_lightning.checkpoints import read_checkpoint

PLAIN = str(Path(__file__).parents[2] / "configs/cartpole/rl_prior.yaml")
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
LONG = ["--evaluation.episodes=100_000", "--evaluation.max_envs=2", "--data.env=odd_tasks:odd/Watched-v0"]


def stop(command: list[str], number: signal.Signals, sign: Path) -> tuple[int, str]:
    """Run a command, send it a signal once it has written a file, and wait for it; exit code and screen."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    words = [sys.executable, "-m", "rql_lightning.train", *command]
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    process = subprocess.Popen(words, text=True, env=environment, **pipes)
    deadline = time.monotonic() + 120
    while not sign.is_file():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    try:
        screen, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert "Traceback" not in screen
    return process.returncode, screen


@pytest.mark.parametrize("number", CODES)
def test_during_training_the_batch_ends_and_is_saved(run, number):
    flags = [
        "--data.total_frames=100_000_000",
        "--evaluation.episodes_during_fit=1",
        "--evaluation.every_n_frames=2048",
    ]
    path = run.folder(what="rl_prior") / "checkpoints/last.ckpt"
    code, screen = stop(run.arguments("fit", *flags, config=PLAIN), number, path)
    frames = read_checkpoint(path)["rql_lightning"]["frames"]
    assert code == CODES[number] and f"{frames:,} frames saved; to go on: --ckpt_path {path}" in screen
    assert "Stopping after this training batch" in screen or frames % 2048 == 0
    assert not (path.parents[1] / "metrics.json").exists()
    if number == signal.SIGTERM:  # the checkpoint is the same whichever signal it was
        run("fit", f"--ckpt_path={path}", f"--data.total_frames={frames + 64}", config=PLAIN)


def test_during_the_closing_evaluation_it_stops_at_once_with_the_checkpoint_saved(run, tmp_path):
    sign = tmp_path / "evaluating"
    flags = ["--data.total_frames=256", "--evaluation.episodes_during_fit=1", *LONG]
    command = run.arguments("fit", *flags, f"--data.env_kwargs={{stepped: {sign}}}", config=PLAIN)
    code, screen = stop(command, signal.SIGINT, sign)
    assert code == 130 and "stopped by SIGINT" in screen and "Stopping after" not in screen
    folder = run.root / "watched/rl_prior/version_0"
    assert read_checkpoint(folder / "checkpoints/last.ckpt")["rql_lightning"]["frames"] == 256
    assert len(list((folder / "checkpoints").glob("replay-*.pt"))) == 1


@pytest.mark.parametrize(
    ("command", "number"), [("test", signal.SIGTERM), pytest.param("predict", signal.SIGINT, marks=pytest.mark.slow)]
)
def test_other_commands_stop_at_once(run, tmp_path, command, number):
    """With one line; a test keeps the episodes that have ended, and shows their table."""
    sign = tmp_path / "evaluating"
    flags = ["--model=odd_tasks.Untrained", "--data.reward=basic", *LONG, f"--data.env_kwargs={{stepped: {sign}}}"]
    code, screen = stop(run.arguments(command, *flags, config=PLAIN), number, sign)
    *before, last = screen.splitlines()
    assert (code, last) == (CODES[number], f"stopped by {number.name}")
    assert not before or (command == "test" and "stopped after" in screen and before[-1].startswith("metrics: "))


def test_an_environment_that_never_ends_an_episode_does_not_hold_a_signal_up(run, tmp_path):
    sign = tmp_path / "evaluating"
    command = run.arguments("fit", "--data.env=odd_tasks:odd/Endless-v0", config=PLAIN)
    command += ["--evaluation.max_episode_steps=1_000_000_000", f"--data.env_kwargs={{stepped: {sign}}}"]
    code, screen = stop(command, signal.SIGTERM, sign)
    assert (code, screen.splitlines()[-1]) == (143, "stopped by SIGTERM")


def test_an_interrupted_evaluation_is_made_up_for(run, monkeypatch):
    """Stopped in the evaluation at 512 of 1024 frames; the checkpoint is of that frame, its evaluation comes later."""
    run("fit")
    original = EvaluationCallback._evaluate_during_fit

    def interrupted(self: EvaluationCallback, trainer: Any, pl_module: Any) -> None:
        if pl_module.frames == 512:
            raise Stopped(signal.SIGTERM)
        original(self, trainer, pl_module)

    with monkeypatch.context() as patch:
        patch.setattr(EvaluationCallback, "_evaluate_during_fit", interrupted)
        with pytest.raises(SystemExit) as stopped:
            run("fit", "--checkpoint.every_n_frames=1_000_000")
    assert stopped.value.code == 143
    checkpoint = read_checkpoint(run.checkpoint(1))
    assert checkpoint["rql_lightning"]["frames"] == 512
    assert [entry["frames"] for entry in checkpoint["callbacks"]["EvaluationCallback"]["history"]] == [0]
    run("fit", f"--ckpt_path={run.checkpoint(1)}")
    histories = [
        read_checkpoint(run.checkpoint(version))["callbacks"]["EvaluationCallback"]["history"] for version in (0, 2)
    ]
    assert histories[0] == histories[1] and len(histories[0]) == 2
    metrics = [{**run.metrics(version), "train_seconds": 0} for version in (0, 2)]
    assert metrics[0] == metrics[1]


def test_a_signal_before_a_due_evaluation_does_not_wait_for_it(run, monkeypatch):
    original = EvaluationCallback.on_train_batch_end
    evaluated: list[int] = []
    monkeypatch.setattr(
        EvaluationCallback, "_evaluate_during_fit", lambda self, trainer, model: evaluated.append(model.frames)
    )

    def signalled(self: EvaluationCallback, trainer: Any, pl_module: Any, *args: Any) -> None:
        if pl_module.frames == 512:
            os.kill(os.getpid(), signal.SIGTERM)
        original(self, trainer, pl_module, *args)

    monkeypatch.setattr(EvaluationCallback, "on_train_batch_end", signalled)
    with pytest.raises(SystemExit) as stopped:
        run("fit")
    assert stopped.value.code == 143 and evaluated == [0]
    assert read_checkpoint(run.checkpoint())["rql_lightning"]["frames"] == 512
