"""Priors of Stable-Baselines3 on the command line and in Python: customised, resumed from a file, refused in a line."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import DQN, PPO, SAC

from rql_lightning.algorithms import ResidualSAC, ResidualSoftQLearning
from rql_lightning.data import ReplayDataModule
from rql_lightning.loading import load_policy
from rql_lightning.priors import StableBaselines3Prior

ALGORITHM = {"CartPole-v1": "ResidualSoftQLearning", "Pendulum-v1": "ResidualSAC"}
MODELS = {"dqn": (DQN, "CartPole-v1"), "ppo": (PPO, "Pendulum-v1"), "sac": (SAC, "Pendulum-v1")}
CONFIG = """
run_name: customised
model:
  class_path: rql_lightning.algorithms.{algorithm}
  init_args:
    prior:
      class_path: rql_lightning.priors.StableBaselines3Prior
      init_args: {options}
data:
  env: {env}
  add_on_reward: functions_of_a_user.wish
"""


def save(kind: str, folder: Path, **settings: Any) -> Path:
    algorithm, env = MODELS[kind]
    torch.manual_seed(0)
    path = folder / f"{kind}.zip"
    algorithm("MlpPolicy", env, policy_kwargs={"net_arch": [16]}, device="cpu", **settings).save(path)
    return path


@pytest.fixture
def config(tmp_path, functions):
    """``(kind, **options of the prior) →`` the path of a config of that prior."""

    def config(kind: str, **options: Any) -> str:
        env = MODELS[kind][1]
        text = CONFIG.format(algorithm=ALGORITHM[env], options=json.dumps(options), env=env)
        (tmp_path / "config.yaml").write_text(text)
        return str(tmp_path / "config.yaml")

    return config


def run_folder(root: Path) -> Path:
    (folder,) = root.rglob("version_0")
    return folder


def test_customised_on_the_command_line_and_loaded_without_the_zip(run, config, tmp_path):
    path = save("dqn", tmp_path)
    prior = StableBaselines3Prior(str(path), temperature=0.5)
    run("fit", config=config("dqn", path=str(path), temperature=0.5))
    folder = run_folder(run.root)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["frames"] == 1024 and metrics["kl_to_prior"] >= 0
    assert (folder / "prior_metrics.json").is_file()
    path.unlink()
    policy = load_policy(folder / "checkpoints" / "last.ckpt")
    assert policy.omega_prime == 0.5  # the temperature of the prior
    observation = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    np.testing.assert_array_equal(policy.prior.act(observation), prior.act(observation))


def test_a_normalised_prior_of_continuous_actions_on_the_command_line(run, config, tmp_path):
    """With the constants of VecNormalize as numbers, and its own checkpoint tested."""
    path = save("ppo", tmp_path)
    numbers = {"mean": [0.0, 0.1, 0.5], "variance": [0.5, 0.4, 9.0], "clip": 5.0}
    name = config("ppo", path=str(path), vec_normalize=numbers)
    run("fit", config=name)
    folder = run_folder(run.root)
    run("test", f"--ckpt_path={folder / 'checkpoints' / 'last.ckpt'}", config=name)
    assert np.isfinite(json.loads((folder / "metrics.json").read_text())["kl_to_prior"])
    prior = load_policy(folder / "checkpoints" / "last.ckpt").prior
    torch.testing.assert_close(prior.normalization.mean, torch.tensor(numbers["mean"], dtype=torch.float64))
    assert prior.normalization.clip == 5.0


@pytest.mark.parametrize(
    ("kind", "options", "expected"),
    [
        ("dqn", {}, "dqn.zip, temperature: found None, expected a number > 0"),
        ("ppo", {"scale": 0.3}, "ppo.zip, scale: found 0.3, expected null"),
        ("ppo", {"vec_normalize": "none.pkl"}, "vec_normalize none.pkl: found no such file"),
    ],
)
def test_errors_on_the_command_line(kind, options, expected, refused, config, tmp_path):
    name = config(kind, path=str(save(kind, tmp_path)), **options)
    assert expected in refused("fit", config=name)


@pytest.mark.parametrize("kind", ["dqn", "ppo", "sac"])
def test_customised_in_python(kind, fit, register, tmp_path):
    """The prior stays as it is, and the policy learns."""
    env = register(MODELS[kind][1], lambda observation, action, next_observation, info: -abs(next_observation[..., 0]))
    prior = StableBaselines3Prior(str(save(kind, tmp_path)), **({"temperature": 0.5} if kind == "dqn" else {}))
    before = {name: value.clone() for name, value in prior.state_dict().items()}
    algorithm = (ResidualSoftQLearning if kind == "dqn" else ResidualSAC)(prior, hidden_sizes=[16])
    data = ReplayDataModule(
        env=env, num_envs=4, total_frames=256, frames_per_batch=64, batch_size=16, warm_up_frames=64
    )
    fit(algorithm, data)
    assert algorithm.updates > 0 and algorithm.omega_prime == {"dqn": 0.5, "ppo": 1.0, "sac": 1.0}[kind]
    for name, value in prior.state_dict().items():
        assert torch.equal(value, before[name]), name
    observation = gym.make(MODELS[kind][1]).reset(seed=0)[0]
    assert np.isfinite(algorithm.policy.decide(observation[None]).kl_to_prior).all()


def test_a_frozen_prior_is_evaluated(run, monkeypatch, tmp_path, functions):
    path = save("sac", tmp_path, ent_coef=0.2)
    arguments = ["--data.env=Pendulum-v1", "--data.add_on_reward=functions_of_a_user.wish", "--evaluation.episodes=2"]
    arguments += ["--model=rql_lightning.algorithms.FrozenPolicy", "--run_name=frozen", "--evaluation.figures=false"]
    arguments += ["--model.prior=rql_lightning.priors.StableBaselines3Prior", f"--model.prior.path={path}"]
    from rql_lightning.train import main

    monkeypatch.setattr(sys, "argv", ["train"])
    main(["test", *arguments, f"--trainer.default_root_dir={run.root}"])
    assert json.loads((run_folder(run.root) / "metrics.json").read_text())["episodes"] == 2
