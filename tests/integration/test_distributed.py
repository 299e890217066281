"""Two ranks on this machine: each its own environments, one set of weights."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tensordict import TensorDict

from rql_lightning.data.demonstrations import load_demonstrations
from rql_lightning.errors import CheckpointError
from rql_lightning.train import main

DDP = ["--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp"]


def launch(run, *arguments: str, **config: str) -> str:
    command = [sys.executable, "-m", "rql_lightning.train", *run.arguments("fit", *DDP, *arguments, **config)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    result = subprocess.run(command, capture_output=True, text=True, timeout=180, env=environment)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def write_demonstrations(folder: Path, *arguments: str) -> Path:
    frozen = ["--model=FrozenPolicy", "--model.prior=CheckpointPrior", "--model.prior.path=pretrained:cartpole-rl"]
    settings = [*frozen, "--data.env_kwargs={max_episode_steps: 20}", f"--trainer.default_root_dir={folder}"]
    command = [sys.executable, "-m", "rql_lightning.train", "predict", *settings, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stdout + result.stderr
    return next(folder.rglob("version_0")) / "trajectories"


def weights_of_ranks(run) -> list[dict[str, torch.Tensor]]:
    return [torch.load(run.root / f"weights-rank{rank}.pt", weights_only=True) for rank in (0, 1)]


def test_a_run_of_two_ranks(run, refused):
    """One launch, which takes long; then all that is to be said about it."""
    launch(run, "--trainer.callbacks+=rank_weights.WriteWeights", "--evaluation.episodes=5")

    # They share weights, but neither frames nor random numbers.
    weights = weights_of_ranks(run)
    assert weights[0].keys() == weights[1].keys()
    for key in weights[0]:
        assert torch.equal(weights[0][key], weights[1][key]), key
    saved = torch.load(run.checkpoint(), weights_only=True)["state_dict"]
    assert all(torch.equal(saved[key], weights[1][key]) for key in saved)
    replays = [run.replay(rank=rank) for rank in (0, 1)]
    observations = [replay["replay"]["_storage"]["_storage"]["observation"][:512] for replay in replays]
    assert not torch.equal(*observations)
    assert not torch.equal(*(replay["random_state"]["cpu"] for replay in replays))
    # Frames are counted over both ranks: 8 turns of 2 · 64, of which the first reaches the warm-up of 128.
    distributed = run.metrics()
    assert (distributed["frames"], distributed["updates"], distributed["episodes"]) == (1024, 8 * 4, 5)

    # Their evaluation is shared out and reduced.
    run("test", f"--ckpt_path={run.checkpoint()}", "--evaluation.episodes=5")
    # In float32 a divergence of 1e-4 nats is a difference of numbers of order 1: it is known to some 1e-8.
    assert run.metrics() == pytest.approx(distributed, rel=1e-5, abs=1e-8)

    # They resume as two, and not as one.
    message = refused("fit", f"--ckpt_path={run.checkpoint()}", "--data.total_frames=2048")
    assert "2 rank(s)" in message and CheckpointError.__name__ not in message
    launch(run, f"--ckpt_path={run.checkpoint()}", "--data.total_frames=1280")
    written = (run.root / run.task).rglob("metrics.json")
    assert max(json.loads(path.read_text())["frames"] for path in written) == 1280


@pytest.mark.slow  # as long as twenty others
def test_actor_critics_share_weights_and_statistics_too(parking):
    config = str(Path(__file__).parents[2] / "configs/parking/residual_sac.yaml")
    settings = ["--model.start_at_prior=false", "--model.critic_warm_up_updates=0", "--data.env_kwargs={duration: 4}"]
    settings += ["--model.alpha_hat=auto", "--model.omega_prime=0.1", "--data.total_frames=1024", "--video.episodes=0"]
    settings += ["--data.warm_up_frames=64", "--model.normalize_observations=true"]
    launch(parking, *settings, "--trainer.callbacks+=rank_weights.WriteWeights", config=config)
    own, other = weights_of_ranks(parking)
    assert all(torch.equal(own[key], other[key]) for key in own) and own["log_alpha"] != 0
    # The observations have no bounds, and the statistics are those of the frames of both ranks.
    replays = [torch.load(path, weights_only=True)["replay"] for path in parking.root.rglob("replay-*-rank?.pt")]
    frames = torch.cat([each["_storage"]["_storage"]["observation"][:512] for each in replays]).double()
    assert len(frames) == 1024
    torch.testing.assert_close(own["policy.encoder.mean"], frames.mean(dim=0), rtol=0, atol=1e-5)
    torch.testing.assert_close(own["policy.encoder.variance"], frames.var(dim=0, correction=0), rtol=0, atol=1e-5)


@pytest.mark.slow
def test_a_signal_to_rank_0_ends_both_ranks_with_a_checkpoint_of_both(run):
    settings = ["--data.total_frames=100_000_000", "--evaluation.every_n_frames=100_000_000"]
    command = [sys.executable, "-m", "rql_lightning.train", *run.arguments("fit", *DDP, *settings)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + 120
    while not run.checkpoint().is_file():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    screen, _ = process.communicate(timeout=60)  # also of rank 1, which has the same pipe
    assert process.returncode == 143 and "Traceback" not in screen, screen
    frames = torch.load(run.checkpoint(), weights_only=True)["rql_lightning"]["frames"]
    names = {path.name for path in run.checkpoint().parent.iterdir()}
    assert names == {"last.ckpt", f"replay-{frames}-rank0.pt", f"replay-{frames}-rank1.pt"}
    assert not run.folder(1).exists(), "both ranks have one folder"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cartpole/behavior_cloning", "cartpole/gail", "mountain_car/iq_learn"])
def test_imitation_on_two_ranks_has_one_set_of_weights(tmp_path, monkeypatch, name):
    """Weights, the discriminator's moments, and what early stopping keeps."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["train"])
    configs = Path(__file__).parents[2] / "configs"
    main(["predict", "--config", str(configs / name.split("/")[0] / "demonstrations.yaml"), "--episodes=20"])
    words = ["fit", "--config", str(configs / f"{name}.yaml"), *DDP, "--data.episodes=20", "--data.batch_size=16"]
    words += ["--data.updates_per_batch=4", "--trainer.callbacks+=rank_weights.WriteWeights", "--video.episodes=0"]
    words += ["--trainer.default_root_dir=runs", "--trainer.enable_progress_bar=false", "--evaluation.episodes=2"]
    words += ["--evaluation.episodes_during_fit=2", "--data.total_frames=2048"]
    if "cloning" not in name:
        words += ["--data.num_envs=8", "--data.frames_per_batch=64", "--data.warm_up_frames=64"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-m", "rql_lightning.train", *words]
    result = subprocess.run(command, capture_output=True, text=True, timeout=180, env=environment)
    assert result.returncode == 0, result.stdout + result.stderr
    own, other = (torch.load(f"runs/weights-rank{rank}.pt", weights_only=True) for rank in (0, 1))
    assert own.keys() == other.keys() and all(torch.equal(own[key], other[key]) for key in own)


@pytest.mark.slow
def test_two_ranks_write_demonstrations_that_are_loaded_as_one(tmp_path):
    folder = write_demonstrations(tmp_path, "--episodes=5", *DDP)
    demonstrations = load_demonstrations(folder)
    assert demonstrations.episodes == 5 and demonstrations.task == "rql_lightning/CartPole-v0"
    assert sorted(path.name for path in folder.iterdir()) == ["rank0", "rank1"]
    assert [path.name for path in folder.parent.glob("*trajectories*")] == ["trajectories"]
    seeds = torch.cat([TensorDict.load_memmap(folder / f"rank{rank}")["seed"] for rank in range(2)])
    assert seeds.unique().tolist() == list(range(10_000_000, 10_000_005)), "the seeds are shared out"
