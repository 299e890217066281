"""fit, validate, test, predict: what they write and print."""

from __future__ import annotations

import json
import locale
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensordict import TensorDict
from torchrl.data import LazyTensorStorage, SliceSampler, TensorDictReplayBuffer

import rql_lightning
from rql_lightning.callbacks import FrameProgressBar
from rql_lightning.checkpoints import read_checkpoint
from rql_lightning.train import main

CONFIG = Path(__file__).parents[2] / "configs/cartpole/residual_soft_q.yaml"
METRICS = {
    "episodes",
    "success_rate",
    "basic_return_mean",
    "basic_return_std",
    "add_on_return_mean",
    "add_on_return_std",
    "total_return_mean",
    "total_return_std",
    "mean_abs_position_mean",
    "mean_abs_position_std",
    "episode_length_mean",
    "kl_to_prior",
    "frames",
    "updates",
    "train_seconds",
    *(
        f"successful_{name}_{statistic}"
        for name in ("basic_return", "add_on_return", "total_return", "mean_abs_position")
        for statistic in ("mean", "std")
    ),
}


@pytest.mark.parametrize("task", ["cartpole", "highway"])
def test_greedy_customization_of_discrete_actions(task, request):
    run = request.getfixturevalue("run" if task == "cartpole" else task)
    short = [
        "--video.episodes=0",
        *(["--data.env_kwargs={duration: 4, vehicles_count: 8}"] if task == "highway" else []),
    ]
    run("fit", *short, config=str(CONFIG.parents[1] / task / "greedy.yaml"))
    folder = run.folder(what="greedy")
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["kl_to_prior"] > 0 and metrics["updates"] == 15 * 4
    policy = rql_lightning.load_policy(folder / "checkpoints/last.ckpt")
    weight = yaml.safe_load((folder / "config.yaml").read_text())["model"]["init_args"]["omega_prime"]
    assert (policy.omega_prime, policy.alpha_hat) == (weight, 2 * weight), "λ and α̂ + λ of Eq. 17, where α̂ = λ"


def test_fit_writes_the_whole_run_folder(run, capsys):
    run("fit", "--evaluation.figures=true")
    folder = run.folder()
    names = {path.name for path in folder.iterdir()}
    assert {"config.yaml", "checkpoints", "metrics.json", "learning_curves.png", "distribution.png"} <= names
    metrics = run.metrics()
    assert set(metrics) == METRICS
    # 16 turns of 64 frames, of which the first only fills the buffer to the 128 frames of the warm-up; 4 updates each.
    assert (metrics["frames"], metrics["updates"], metrics["episodes"]) == (1024, 15 * 4, 4)
    screen = capsys.readouterr().out
    assert "prior" in screen and "policy" in screen and "success rate" in screen and "metrics.json" in screen
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["data"]["init_args"]["total_frames"] == 1024 and config["model"]["init_args"]["hidden_sizes"] == [16]


def test_tensorboard_has_scalars_against_frames_and_pictures(run):
    run("fit", "--trainer.log_every_n_steps=1", "--evaluation.figures=true")
    events = EventAccumulator(str(run.folder())).Reload()
    scalars = events.Tags()["scalars"]
    assert {"train/td_loss", "train/epsilon", "eval/add_on_return_mean", "eval/kl_to_prior"} <= set(scalars)
    assert [event.step for event in events.Scalars("eval/add_on_return_mean")] == [0, 512, 1024]
    assert events.Scalars("train/td_loss")[0].step == 128
    assert {"learning_curves", "distribution"} <= set(events.Tags()["images"])


def test_test_writes_into_the_run_and_repeats_the_figures(run, capsys):
    run("fit")
    before = run.metrics()
    (run.folder() / "metrics.json").unlink()
    config = (run.folder() / "config.yaml").read_text()
    run("test", f"--ckpt_path={run.checkpoint()}")
    assert run.metrics() == before
    assert (run.folder() / "config.yaml").read_text() == config
    assert not run.folder(1).exists()
    capsys.readouterr()
    run("validate", f"--ckpt_path={run.checkpoint()}")
    assert f"{before['basic_return_mean']:.2f}" in capsys.readouterr().out


def test_results_do_not_depend_on_how_many_environments_evaluate(run):
    run("fit")
    before = run.metrics()
    run("test", f"--ckpt_path={run.checkpoint()}", "--evaluation.max_envs=3")
    assert run.metrics() == pytest.approx(before, rel=1e-5)


def test_predict_writes_trajectories_that_torchrl_loads(run):
    run("fit")
    run("predict", f"--ckpt_path={run.checkpoint()}", "--deterministic=true", "--seed=1_000_000")
    data = TensorDict.load_memmap(run.folder() / "trajectories")
    metrics = run.metrics()
    assert len(data) == metrics["episode_length_mean"] * 4
    assert data["next", "add_on_reward"].sum() / 4 == pytest.approx(metrics["add_on_return_mean"], rel=1e-4)
    assert int(data["next", "done"].sum()) == 4
    same_episode = data["step"][1:] > 0
    following, observation = data["next", "observation"][:-1], data["observation"][1:]
    assert bool((following == observation)[same_episode].all())
    policy = rql_lightning.load_policy(run.checkpoint())
    assert bool((policy.act(data["observation"]) == data["action"]).all())
    sampler = SliceSampler(slice_len=5, traj_key=("collector", "traj_ids"))
    replay = TensorDictReplayBuffer(storage=LazyTensorStorage(len(data)), sampler=sampler, batch_size=20)
    replay.extend(data)
    steps = replay.sample()["step"].reshape(4, 5)
    assert bool((steps.diff(dim=1) == 1).all())


def test_predict_samples_the_policy_reproducibly(run, capsys):
    run("fit")
    path, folder = f"--ckpt_path={run.checkpoint()}", run.folder() / "trajectories"

    def predicted(*options: str) -> TensorDict:
        run("predict", path, "--episodes=3", *options)
        return TensorDict.load_memmap(folder).clone()

    first, again, other = predicted(), predicted("--seed_everything=7"), predicted("--seed=20_000_000")
    assert bool((first == again).all()) and first["seed"].unique().tolist() == [10_000_000, 10_000_001, 10_000_002]
    assert other["seed"].min() == 20_000_000
    greedy = rql_lightning.load_policy(run.checkpoint()).act(first["observation"])
    assert bool((greedy != first["action"]).any())
    random = predicted("--epsilon=1.0", "--episodes=30")["action"].double().mean()
    assert 0.4 < random < 0.6
    about = json.loads((folder / "demonstrations.json").read_text())
    assert (about["task"], about["deterministic"], about["epsilon"]) == ("rql_lightning/CartPole-v0", False, 1.0)
    for option, named in (("--epsilon=2", "epsilon"), ("--episodes=0", "episodes"), ("--seed=5", "seed")):
        with pytest.raises(SystemExit) as stop:
            run("predict", path, option)
        assert stop.value.code == 2 and f"{named}: found" in capsys.readouterr().err
    assert json.loads((folder / "demonstrations.json").read_text()) == about, "what was written is still there"


def test_max_steps_counts_training_batches(run):
    trainer = run("fit", "--trainer.max_steps=5", "--checkpoint.every_n_frames=1_000_000").trainer
    assert trainer.global_step == 5
    assert read_checkpoint(run.checkpoint())["rql_lightning"]["frames"] == 6 * 64
    assert trainer.lightning_module.updates == 5 * 4 and trainer.lightning_module.frames == 6 * 64


@pytest.mark.parametrize("flag", ["max_epochs=3", "max_epochs=-1"])
def test_the_budget_is_the_budget(run, flag):
    trainer = run("fit", f"--trainer.{flag}").trainer
    assert trainer.datamodule.frames == trainer.lightning_module.frames == 1024
    assert trainer.lightning_module.updates == 15 * 4


def test_without_logger_every_run_still_has_a_folder(run):
    for version in (0, 1):
        run("fit", "--trainer.logger=false")
        assert run.metrics(version)["frames"] == 1024 and run.checkpoint(version).is_file()


def test_without_a_root_the_current_folder_is_it(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run("fit", "--trainer.default_root_dir=null", "--data.total_frames=256")
    assert (tmp_path / "cartpole/residual_soft_q/version_0/metrics.json").is_file()


LATIN = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def test_config_files_are_utf_8_whatever_the_locale(run, tmp_path):
    """Read by one process, also where arguments and other files name them, printed, and read again by another."""
    config = tmp_path / "ω′.yaml"
    text = CONFIG.read_text(encoding="utf-8").replace("rql_lightning/CartPole-v0", "Größe/Δ-v0")
    config.write_text(f"# ω′ = α̂\n{text}", encoding="utf-8")
    command = [sys.executable, "-m", "rql_lightning.train"]
    (tmp_path / "data.yaml").write_text("add_on_reward: wünsche.mitte\n", encoding="utf-8")
    model = "class_path: ResidualSoftQLearning\ninit_args:\n  gamma: 0.5\n  prior: prior.yaml\n"
    (tmp_path / "model.yaml").write_text(f"# ω′\n{model}", encoding="utf-8")
    prior = "class_path: rql_lightning.priors.CheckpointPrior\ninit_args:\n  path: pretrained:cartpole-rl\n"
    (tmp_path / "prior.yaml").write_text(f"# π\n{prior}", encoding="utf-8")
    arguments = ["--config", os.fsencode(config), "--model=model.yaml", "--data=data.yaml", "--print_config"]
    here = {"env": {**os.environ, **LATIN}, "capture_output": True, "cwd": tmp_path}
    printed = subprocess.run([*command, "fit", *arguments], **here)
    assert printed.returncode == 0, printed.stderr
    content = yaml.safe_load(printed.stdout.decode("utf-8"))
    data = content["data"]["init_args"]
    assert data["env"] == "Größe/Δ-v0" and data["add_on_reward"] == "wünsche.mitte"
    model_arguments = content["model"]["init_args"]
    assert model_arguments["gamma"] == 0.5
    assert model_arguments["prior"]["init_args"]["path"] == "pretrained:cartpole-rl"
    config.write_bytes(printed.stdout)
    command += ["fit", "--config", os.fsencode(config)]
    again = subprocess.run(command, **here)
    assert again.returncode == 2 and b"Traceback" not in again.stderr
    assert again.stderr.startswith(b"error: runs/delta/residual_soft_q: found a name with 'delta'")


def test_the_config_of_a_run_is_utf_8(run, monkeypatch):
    monkeypatch.setattr(locale, "getpreferredencoding", lambda *_: "ANSI_X3.4-1968")
    run("fit", "--data.total_frames=256", "--run_name=größe")
    path = run.folder(what="größe") / "config.yaml"
    assert yaml.safe_load(path.read_text(encoding="utf-8"))["run_name"] == "größe"
    run("fit", "--data.total_frames=256", config=str(path))
    assert (run.folder(1, "größe") / "metrics.json").is_file()


def test_without_checkpoints(run):
    run("fit", "--trainer.enable_checkpointing=false")
    assert run.metrics()["frames"] == 1024 and not run.checkpoint().exists()


def test_a_dry_run_writes_nothing(run):
    run("fit", "--trainer.fast_dev_run=true")
    assert not [path for path in run.root.rglob("*") if path.is_file() and path.name != "config.yaml"]


@pytest.mark.parametrize(
    "flags",
    [
        ["callbacks=pytorch_lightning.callbacks.LearningRateMonitor"],
        ["callbacks=[pytorch_lightning.callbacks.ModelCheckpoint]"],
        ["precision=bf16-mixed"],
        ["profiler=simple"],
        ["limit_train_batches=3"],
        ["max_time=00:01:00:00"],
    ],
    ids=lambda flags: flags[0].partition("=")[0],
)
def test_trainer_flags(run, flags):
    run("fit", *(f"--trainer.{flag}" for flag in flags))
    assert run.metrics()["updates"] > 0 and run.checkpoint().is_file()


@pytest.mark.parametrize("width", [80, 140])
def test_progress_shows_frames_rate_and_time_left(run, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    shown = []
    original = FrameProgressBar.on_train_end

    def look(self: FrameProgressBar, *args: Any) -> None:
        console = Console(width=width)
        with console.capture() as capture:
            console.print(self._progress.get_renderable())
        shown.append(capture.get())
        original(self, *args)

    monkeypatch.setattr(FrameProgressBar, "on_train_end", look)
    run("fit", "--trainer.enable_progress_bar=true")
    (line,) = shown[0].splitlines()
    assert re.match(r"1,024/1,024 frames", line)
    assert re.search(r"[\d,]+ frames/s +\d+:\d\d left", line)


def test_run_folder_is_named_after_task_and_algorithm_unless_told(run):
    run("fit", "--run_name=null", "--data.total_frames=128", "--data.warm_up_frames=0")
    assert run.folder(what="residual_soft_q_learning").is_dir()


def test_help_is_written_for_users(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["train"])

    def shown(*arguments: str) -> str:
        with pytest.raises(SystemExit) as stop:
            main([*arguments])
        assert stop.value.code == 0
        return " ".join(capsys.readouterr().out.split())

    assert all(name in shown("--help") for name in ("fit", "validate", "test", "predict"))
    assert "Training budget in environment frames, over all ranks." in shown("fit", "--data.help", "ReplayDataModule")
    text = shown("fit", "--model.help", "ResidualSoftQLearning")
    assert "--model.omega_prime" in text and "Weight ω′ = ωα of the prior's log-likelihood" in text
