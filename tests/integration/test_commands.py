"""The commands around the command line: demo, sweep, export."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from rql_lightning import load_policy
from rql_lightning.reproduce import demo, export, sweep
from rql_lightning.train import main

ROOT = Path(__file__).parents[2]
CONFIG = str(ROOT / "configs/cartpole/residual_soft_q.yaml")


def refused_by(command: Callable[[], None], capsys: pytest.CaptureFixture[str]) -> str:
    """What a command says when it ends with exit code 2."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        command()
    assert stop.value.code == 2
    return capsys.readouterr().err


@pytest.fixture
def small(run: Any) -> list[str]:
    """A config and a budget of seconds."""
    return run.arguments("fit")[1:-1]


def test_demo_ends_with_the_table_and_the_pictures_it_names(small, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["demo", *small, "--evaluation.figures=true", "--root", str(tmp_path)])
    demo.main()
    screen = capsys.readouterr().out
    assert all(word in screen for word in ("prior", "customised", "paper", "425.73", "mean abs position"))
    (run,) = tmp_path.rglob("version_0")
    metrics = json.loads((run / "metrics.json").read_text())
    assert f"{metrics['basic_return_mean']:.2f}" in screen
    for name in ("before_after.png", "before_after.gif", "distribution.png", "learning_curves.png"):
        assert str(run / name) in screen
        with Image.open(run / name) as image:
            assert image.width > 300 and (not name.endswith("gif") or image.n_frames > 100)


def test_demo_outside_the_project_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["demo"])
    assert "error: --config: found no file configs/cartpole/residual_soft_q.yaml" in refused_by(demo.main, capsys)


def test_sweep_runs_every_setting_once(small, tmp_path, monkeypatch, capsys):
    asked: list[list[str]] = []
    original = subprocess.run

    def counting(command: list[str], **kwargs: Any) -> Any:
        asked.append(command)
        return original(command, **kwargs)

    monkeypatch.setattr(sweep.subprocess, "run", counting)
    arguments = [*small, "--root", str(tmp_path), "--seeds", "0", "1"]
    arguments += ["--vary", "model.omega_prime", "--values", "100", "--data.total_frames=256", "--jobs=2"]
    monkeypatch.setattr(sys, "argv", ["sweep", *arguments])
    sweep.main()
    first = capsys.readouterr().out
    paths = sorted(tmp_path.rglob("metrics.json"))
    assert len(paths) == len(asked) == 2
    runs = [json.loads(path.read_text()) for path in paths]
    assert [run["frames"] for run in runs] == [256, 256] and runs[0]["kl_to_prior"] != runs[1]["kl_to_prior"]
    assert "IQM" in first and all(f"{run['basic_return_mean']:.2f}" in first for run in runs)
    sweep.main()
    assert capsys.readouterr().out == first and len(asked) == 2
    monkeypatch.setattr(sys, "argv", ["sweep", *arguments, "--model.gamma=0.9"])
    assert "settings.json: found a run of other settings" in refused_by(sweep.main, capsys)
    assert len(asked) == 2


def test_sweep_shows_the_command_that_failed_and_its_message(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["sweep", "--config", CONFIG, "--root", str(tmp_path), "--model.gamma=7"])
    message = refused_by(sweep.main, capsys)
    assert message.startswith("error: ") and "--model.gamma=7" in message and "model.gamma: found 7" in message


def test_an_exported_policy_is_the_policy(among_finished_runs, tmp_path, monkeypatch, capsys):
    run, target = among_finished_runs, tmp_path / "alone" / "policy.ckpt"
    monkeypatch.setattr(sys, "argv", ["export", str(run.checkpoint()), str(target)])
    export.main()
    assert str(target) in capsys.readouterr().out
    assert target.stat().st_size < run.checkpoint().stat().st_size
    observation = torch.randn(20, 4)
    policy, exported = load_policy(run.checkpoint()), load_policy(target)
    assert torch.equal(policy.distribution_parameters(observation), exported.distribution_parameters(observation))
    monkeypatch.setattr(sys, "argv", ["train"])
    run("test", f"--ckpt_path={target}", "--run_name=exported")
    assert run.metrics()["basic_return_mean"] > 0


def test_sweep_of_a_config_that_is_not_there(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["sweep", "--config", str(tmp_path / "missing.yaml"), "--root", str(tmp_path)])
    assert "missing.yaml" in refused_by(sweep.main, capsys)


def test_export_to_where_nothing_can_be_written(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setattr(sys, "argv", ["export", "pretrained:cartpole-rl", str(tmp_path / "file" / "policy.ckpt")])
    assert "policy.ckpt: found 'File exists', expected a file" in refused_by(export.main, capsys)


def test_export_of_something_else(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["export", str(tmp_path / "missing.ckpt"), str(tmp_path / "target.ckpt")])
    assert "missing.ckpt" in refused_by(export.main, capsys)
    assert not Path(tmp_path / "target.ckpt").exists()


def test_a_prior_is_evaluated_as_it_is_without_a_checkpoint(run):
    frozen = ["--model=FrozenPolicy", "--model.prior=CheckpointPrior", "--model.prior.path=pretrained:cartpole-rl"]
    small = ["--evaluation.episodes=3", f"--trainer.default_root_dir={run.root}"]
    main(["test", *frozen, *small])
    metrics = json.loads((run.root / "cartpole" / "frozen_policy" / "version_0" / "metrics.json").read_text())
    assert metrics["episodes"] == 3 and metrics["success_rate"] == 1.0 and metrics["kl_to_prior"] is None
    main(["predict", *frozen, *small])
    assert (run.root / "cartpole" / "frozen_policy" / "version_1" / "trajectories").is_dir()
    with pytest.raises(SystemExit) as stop:
        main(["fit", *frozen, *small])
    assert stop.value.code == 2
