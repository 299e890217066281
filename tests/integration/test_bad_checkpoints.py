"""Checkpoints that are damaged or belong to something else, and runs that diverge: one message, nothing lost."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from rql_lightning import load_policy
from rql_lightning.algorithms import SoftQLearning

PLAIN = str(Path(__file__).parents[2] / "configs/cartpole/rl_prior.yaml")
MORE = "--data.total_frames=2048"


@pytest.fixture
def run(among_finished_runs: Any) -> Any:
    return among_finished_runs


@pytest.fixture
def plain_checkpoint(run: Any) -> Path:
    return run.folder(what="plain") / "checkpoints" / "last.ckpt"


# -- checkpoints -----------------------------------------------------------------------------------------------------


def damaged(kind: str, good: Path, folder: Path) -> Path:
    path = folder / f"{kind}.ckpt"
    if kind == "truncated":
        path.write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    elif kind == "random":
        path.write_bytes(
            torch.randint(256, (5000,), generator=torch.Generator().manual_seed(0)).byte().numpy().tobytes()
        )
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "pickle":
        path.write_bytes(pickle.dumps({"weights": [1.0]}))
    elif kind == "weights_only":
        torch.save({"state_dict": {}}, path)
    elif kind == "without_weights":
        torch.save({**torch.load(good, weights_only=True), "state_dict": {}}, path)
    elif kind == "without_description":
        about = torch.load(good, weights_only=True)
        del about["rql_lightning"]["policy"]
        torch.save(about, path)
    return path  # kind "missing": no such file


def spoil(checkpoint: dict[str, Any], kind: str) -> None:
    if kind == "no_frames":
        del checkpoint["rql_lightning"]["frames"]
    elif kind == "words_for_frames":
        checkpoint["rql_lightning"]["frames"] = "many"
    elif kind == "nan_weights":
        checkpoint["state_dict"]["policy.q_network.0.weight"][0, 0] = float("nan")
    elif kind == "more_weights":
        checkpoint["state_dict"]["policy.q_network.99.weight"] = torch.zeros(3)
    elif kind == "weights_are_none":
        checkpoint["state_dict"] = None


@pytest.mark.parametrize("kind", ["no_frames", "words_for_frames", "nan_weights", "more_weights", "weights_are_none"])
@pytest.mark.parametrize("command", ["fit", "test"])
def test_a_spoilt_checkpoint(run, refused, tmp_path, kind, command):
    checkpoint = torch.load(run.checkpoint(), weights_only=True)
    spoil(checkpoint, kind)
    path = tmp_path / f"{kind}.ckpt"
    torch.save(checkpoint, path)
    assert str(path) in refused(command, f"--ckpt_path={path}", MORE)


@pytest.mark.parametrize("content", [{"x": 1}, [3]])
def test_a_replay_buffer_of_something_else(run, refused, tmp_path, content):
    (tmp_path / "last.ckpt").write_bytes(run.checkpoint().read_bytes())
    torch.save(content, tmp_path / "replay-1024-rank0.pt")
    assert "replay-1024-rank0.pt" in refused("fit", f"--ckpt_path={tmp_path / 'last.ckpt'}", MORE)


def test_a_checkpoint_without_what_the_data_goes_on_from(run, refused, tmp_path):
    checkpoint = torch.load(run.checkpoint(), weights_only=True)
    del checkpoint["rql_lightning_data"]
    torch.save(checkpoint, tmp_path / "last.ckpt")
    message = refused("fit", f"--ckpt_path={tmp_path / 'last.ckpt'}", MORE)
    assert str(tmp_path / "last.ckpt") in message and "rql_lightning_data" in message


DAMAGES = ["missing", "truncated", "random", "empty", "pickle"]
DAMAGES += ["weights_only", "without_weights", "without_description"]


@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize("argument", ["--ckpt_path", "--model.prior.path"])
def test_a_damaged_checkpoint(run, refused, tmp_path, kind, argument):
    path = damaged(kind, run.checkpoint(), tmp_path)
    assert str(path) in refused("test" if argument == "--ckpt_path" else "fit", f"{argument}={path}")


@pytest.mark.parametrize("command", ["fit", "test"])
@pytest.mark.parametrize(
    ("arguments", "found", "expected"),
    [
        ([], "SoftQLearning", "ResidualSoftQLearning"),
        (["--model.hidden_sizes=[8]"], "[16]", "[8]"),
        (
            ["--data.env=CartPole-v1", "--data.add_on_reward=functions_of_a_user.wish"],
            "rql_lightning/CartPole-v0",
            "expected CartPole-v1",
        ),
        (["--model.prior.path={plain}"], "prior", "prior"),
        (["--model.omega_prime=50"], "omega_prime 0.9", "config's 50"),
        (["--model.alpha_hat=30"], "alpha_hat 0.9", "config's 30"),
        (["--model.prior=FunctionPrior", "--model.prior.log_prob=functions_of_a_user.prior"], "prior", "functions_of"),
    ],
    ids=["algorithm", "hidden_sizes", "task", "prior", "omega_prime", "alpha_hat", "kind of prior"],
)
def test_a_checkpoint_of_something_else(run, refused, functions, plain_checkpoint, command, arguments, found, expected):
    path = run.checkpoint() if arguments else plain_checkpoint
    arguments = [argument.format(plain=plain_checkpoint) for argument in arguments]
    message = refused(command, f"--ckpt_path={path}", MORE, *arguments)
    assert str(path) in message and found in message and expected in message


def test_going_on_with_another_number_of_environments(run, refused):
    message = refused("fit", f"--ckpt_path={run.checkpoint()}", MORE, "--data.num_envs=4")
    assert "num_envs" in message and "8" in message and "4" in message


@pytest.mark.parametrize(
    ("argument", "found", "expected"),
    [
        ("data.reward=total", "data.reward: found 'total'", "expected 'basic'"),
        ("data.env_kwargs={max_episode_steps: 9}", "data.env_kwargs: found {'max_episode_steps': 9}", "expected {}"),
    ],
)
def test_going_on_with_a_replay_buffer_of_something_else(run, refused, plain_checkpoint, argument, found, expected):
    message = refused("fit", f"--ckpt_path={plain_checkpoint}", "--run_name=plain", MORE, f"--{argument}", config=PLAIN)
    assert found in message and expected in message and str(plain_checkpoint) in message


def test_a_spent_budget(run, refused):
    message = refused("fit", f"--ckpt_path={run.checkpoint()}")
    assert "data.total_frames" in message and "1024" in message


def test_a_missing_replay_buffer(run, refused, tmp_path):
    alone = tmp_path / "alone.ckpt"
    alone.write_bytes(run.checkpoint().read_bytes())
    message = refused("fit", f"--ckpt_path={alone}", MORE)
    assert str(alone) in message and "replay-1024-rank0.pt" in message


# -- divergence ------------------------------------------------------------------------------------------------------


def diverge_at(frames: int, monkeypatch: pytest.MonkeyPatch, before_the_update: bool) -> None:
    original = SoftQLearning.update

    def poison(algorithm: SoftQLearning) -> None:
        if algorithm.frames >= frames:
            with torch.no_grad():
                next(algorithm.policy.q_network.parameters()).fill_(float("nan"))

    def update(self: SoftQLearning, batch: Any) -> dict[str, float]:
        if before_the_update:
            poison(self)
        metrics = original(self, batch)
        poison(self)
        return metrics

    monkeypatch.setattr(SoftQLearning, "update", update)


@pytest.mark.parametrize("before_the_update", [True, False], ids=["loss", "weights alone"])
def test_divergence_stops_the_run_and_spares_the_checkpoint(run, refused, monkeypatch, before_the_update):
    name = f"diverged_{before_the_update}"
    arguments = [f"--run_name={name}"]
    with monkeypatch.context() as patch:
        diverge_at(768, patch, before_the_update)  # a frame at which a checkpoint is due
        message = refused("fit", *arguments)
    assert "768" in message and "diverged" in message
    assert not before_the_update or "td_loss became nan" in message
    checkpoint = run.folder(what=name) / "checkpoints" / "last.ckpt"
    policy = load_policy(checkpoint)
    assert all(bool(parameter.isfinite().all()) for parameter in policy.parameters())
    assert torch.load(checkpoint, weights_only=True)["rql_lightning"]["frames"] == 512
    run("fit", *arguments, f"--ckpt_path={checkpoint}")
    assert (run.folder(1, what=name) / "metrics.json").is_file()


def test_a_learning_rate_beyond_reason(refused):
    message = refused("fit", "--model.learning_rate=1e30", "--run_name=reckless")
    assert "td_loss" in message and "frame 128" in message and "model.learning_rate" in message
