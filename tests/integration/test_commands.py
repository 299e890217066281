"""The commands around the command line: demo, sweep, export."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from rql_lightning import load_policy
from rql_lightning.checkpoints import read_checkpoint
from rql_lightning.export.__main__ import main as export
from rql_lightning.reproduce import demo, sweep
from rql_lightning.reproduce.jobs import locked
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


def test_sweep_runs_every_setting_once(small, tmp_path, capsys):
    words = [*small, "--root", str(tmp_path), "--seeds", "0", "1", "--jobs=2", "--data.total_frames=256"]
    words += ["--vary", "model.omega_prime", "model.alpha_hat", "--values"]
    sweep.main([*words, "3"])
    first = capsys.readouterr().out
    paths = sorted(tmp_path.rglob("metrics.json"))
    runs = [json.loads(path.read_text()) for path in paths]
    assert [run["frames"] for run in runs] == [256, 256] and runs[0]["kl_to_prior"] != runs[1]["kl_to_prior"]
    assert "[2/2]" in first and "IQM" in first and all(f"{run['basic_return_mean']:.2f}" in first for run in runs)
    for seed, path in enumerate(paths):
        assert f"model.omega_prime+model.alpha_hat=3/seed{seed}" in path.as_posix()
    sweep.main([*words, "3", "0.3"])
    second = capsys.readouterr().out
    assert "2 of 4 jobs are finished already" in second and "[4/4]" in second
    report = (tmp_path / "cartpole_residual_soft_q" / "report.html").read_text(encoding="utf-8")
    assert "ω′ = 0.3" in report and "ω′ = 3" in report
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("metrics.json")}
    assert len(written) == 4
    message = refused_by(lambda: sweep.main([*words, "3", "--model.gamma=0.9"]), capsys)
    assert "found a result of other settings" in message and "--force" in message
    assert written == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("metrics.json")}


def test_sweep_names_what_failed_and_shows_the_rest(small, tmp_path, capsys):
    words = [
        *small,
        "--root",
        str(tmp_path),
        "--data.total_frames=256",
        "--vary",
        "model.gamma",
        "--values",
        "7",
        "0.5",
    ]
    with pytest.raises(SystemExit) as stop:
        sweep.main(words)
    screen = capsys.readouterr()
    assert stop.value.code == 2 and "1 jobs failed; the same command tries them again" in screen.err
    assert "failed: model.gamma=7/seed0" in screen.out and "model.gamma: found 7" in screen.out
    assert "IQM" not in screen.out and len(list(tmp_path.rglob("metrics.json"))) == 1
    report = (tmp_path / "cartpole_residual_soft_q" / "report.html").read_text(encoding="utf-8")
    assert "residual_soft_q, model.gamma = 0.5" in report and "model.gamma = 7" not in report


def test_a_stopped_sweep_goes_on_from_its_checkpoint(small, tmp_path):
    words = [*small, "--root", str(tmp_path), "--data.total_frames=50_000", "--evaluation.every_n_frames=100_000_000"]
    words = [sys.executable, "-m", "rql_lightning.reproduce.sweep", *words]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(tmp_path.rglob("last.ckpt")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    screen, _ = process.communicate(timeout=120)
    assert process.returncode == 130 and "stopped: the same command goes on from here" in screen
    (checkpoint,) = tmp_path.rglob("last.ckpt")
    spent = read_checkpoint(checkpoint)["rql_lightning"]["frames"]
    assert 0 < spent < 50_000 and not list(tmp_path.rglob("metrics.json"))
    again = subprocess.run(words, capture_output=True, text=True, check=True)
    (log,) = tmp_path.rglob("log.txt")
    assert "[1/1] seed0" in again.stdout and f"--ckpt_path={checkpoint}" in log.read_text(encoding="utf-8")
    (metrics,) = tmp_path.rglob("metrics.json")
    assert json.loads(metrics.read_text())["frames"] >= 50_000


def test_two_sweeps_in_one_folder_are_refused(small, tmp_path, capsys):
    with locked(tmp_path / "cartpole_residual_soft_q" / ".lock", wait=False):
        message = refused_by(lambda: sweep.main([*small, "--root", str(tmp_path)]), capsys)
    assert "found another command that runs a plan here" in message


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_an_exported_policy_is_the_policy(suffix, among_finished_runs, tmp_path, monkeypatch, capsys):
    run, target = among_finished_runs, tmp_path / "alone" / f"policy{suffix}"
    monkeypatch.setattr(sys, "argv", ["export", str(run.checkpoint()), str(target)])
    export()
    assert str(target) in capsys.readouterr().out
    assert target.stat().st_size < run.checkpoint().stat().st_size
    observation = torch.randn(20, 4)
    policy, exported = load_policy(run.checkpoint()), load_policy(target)
    assert torch.equal(policy.distribution_parameters(observation), exported.distribution_parameters(observation))
    version = len(list(run.folder().parent.glob("../exported/*")))
    monkeypatch.setattr(sys, "argv", ["train"])
    run("test", f"--ckpt_path={target}", "--run_name=exported")
    metrics = json.loads((run.folder(version, what="exported") / "metrics.json").read_text())
    assert metrics == json.loads((run.folder() / "metrics.json").read_text()) | {
        "train_seconds": metrics["train_seconds"]
    }


def test_sweep_of_a_config_that_is_not_there(tmp_path, capsys):
    words = ["--config", str(tmp_path / "missing.yaml"), "--root", str(tmp_path)]
    assert "missing.yaml" in refused_by(lambda: sweep.main(words), capsys)


def test_export_to_where_nothing_can_be_written(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setattr(sys, "argv", ["export", "pretrained:cartpole-rl", str(tmp_path / "file" / "policy.ckpt")])
    assert "file: found 'File exists', expected a place that can be written" in refused_by(export, capsys)


@pytest.mark.parametrize(
    ("source", "target", "words", "message"),
    [
        ("missing.ckpt", "target.ckpt", [], "missing.ckpt: found no such file"),
        ("pretrained:cartpole-rl", "target.onx", [], "target.onx', expected a file that ends in .ckpt, .safetensors,"),
        ("pretrained:parking-rl", "target.zip", [], "found differences to a goal (goal_scales)"),
        ("pretrained:cartpole-rl", "target.ckpt", ["--run", "nowhere"], "run: found 'nowhere', expected the folder"),
        ("config.yaml", "target.ckpt", [], "config.yaml: found a damaged or foreign file"),
        ("config.yaml", "config.yaml", [], "config.yaml', expected a file that ends in"),
        (
            "pretrained:cartpole-rl",
            "old.ckpt",
            [],
            "old.ckpt: found a file, expected the path of a new one, or --force",
        ),
        (
            "pretrained:cartpole-rl",
            "folder.ckpt",
            ["--force"],
            "folder.ckpt: found a folder, expected the path of a new",
        ),
        ("old.ckpt", "old.ckpt", ["--force"], "old.ckpt: found the checkpoint that is exported"),
    ],
)
def test_export_that_cannot_be(source, target, words, message, tmp_path, monkeypatch, capsys):
    """Nothing is written, and what there was stays."""
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text("a: file")
    Path("old.ckpt").write_bytes((ROOT / "rql_lightning/pretrained/cartpole-il.ckpt").read_bytes())
    Path("folder.ckpt").mkdir()
    before = {path: path.is_dir() or path.read_bytes() for path in tmp_path.rglob("*")}
    monkeypatch.setattr(sys, "argv", ["export", source, target, *words])
    assert message in refused_by(export, capsys)
    assert {path: path.is_dir() or path.read_bytes() for path in tmp_path.rglob("*")} == before


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
