"""Soft actor-critics from the command line: every algorithm, exact resume, and what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor

from rql_lightning import load_policy
from rql_lightning.algorithms import ResidualSAC, SoftActorCritic
from rql_lightning.data import ReplayDataModule
from rql_lightning.errors import DivergenceError, EnvironmentContractError
from rql_lightning.priors import FunctionPrior

CONFIGS = Path(__file__).parents[2] / "configs"
MOUNTAIN_CAR = str(CONFIGS / "mountain_car/residual_sac.yaml")
QUICK = ["--data.warm_up_frames=64", "--model.prior_frames=64", "--model.start_at_prior=false", "--video.episodes=0"]
QUICK += ["--data.total_frames=512", "--data.env_kwargs={duration: 4}"]
PRIOR = "rql_lightning.priors.CheckpointPrior"


@pytest.mark.parametrize("name", ["residual_sac", "greedy", "kl_reward", "prior_likelihood_reward"])
def test_customizations_of_parking(parking, name):
    parking("fit", *QUICK, "--model.critic_warm_up_updates=0", config=str(CONFIGS / f"parking/{name}.yaml"))
    folder = parking.folder(what=name)
    policy = load_policy(folder / "checkpoints/last.ckpt")
    action = policy.act(np.zeros((3, 12), np.float32))
    assert action.shape == (3, 2) and np.abs(action).max() <= 1 and policy.task == "rql_lightning/Parking-v0"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["kl_to_prior"] > 0 and 0 <= metrics["no_violation_mean"] <= 1 and metrics["updates"] > 0


def weights(path: Path) -> dict[str, Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


def test_a_resumed_run_is_the_run_that_was_not_interrupted(run):
    """Noise that is correlated over time, automatic temperature and all."""
    settings = ["--model.noise_correlation=5", "--model.alpha_hat=auto", "--model.omega_prime=0.1", *QUICK]
    settings = [setting for setting in settings if "duration" not in setting]
    settings += ["--model.learning_rate_schedule=constant", "--model.critic_warm_up_updates=3"]
    run.task = "mountain_car_continuous"
    folder = lambda version: run.folder(version, "residual_sac") / "checkpoints/last.ckpt"  # noqa: E731
    run("fit", *settings, config=MOUNTAIN_CAR)
    run("fit", *settings, "--data.total_frames=256", config=MOUNTAIN_CAR)
    run("fit", *settings, f"--ckpt_path={folder(1)}", config=MOUNTAIN_CAR)
    straight, resumed = weights(folder(0)), weights(folder(2))
    assert straight.keys() == resumed.keys() and "log_alpha" in straight
    for name in straight:
        assert torch.equal(straight[name], resumed[name]), name
    assert not torch.equal(weights(folder(1))["log_alpha"], straight["log_alpha"])


FULL = str(CONFIGS / "parking/full.yaml")
WIDE = "--model.hidden_sizes=[128,128]"
SHORT = [setting for setting in QUICK if "--model" not in setting]


def test_a_full_policy_starts_where_it_is_told_to(parking):
    """And stays there while the critics learn alone."""
    parking("fit", *SHORT, "--model.critic_warm_up_updates=1_000_000", WIDE, config=FULL)
    learnt, started = (
        load_policy(parking.folder(what="full") / "checkpoints/last.ckpt"),
        load_policy("pretrained:parking-rl"),
    )
    for name, weight in started.network.state_dict().items():
        assert torch.equal(learnt.network.state_dict()[name], weight), name
    parking("fit", *SHORT, "--model.critic_warm_up_updates=0", WIDE, config=FULL)
    moved = load_policy(parking.folder(1, "full") / "checkpoints/last.ckpt").network.state_dict()
    assert not any(torch.equal(moved[name], weight) for name, weight in started.network.state_dict().items())


@pytest.mark.parametrize("start", ["pretrained:mountain-car-rl", "pretrained:cartpole-rl", "nowhere.ckpt"])
def test_a_full_policy_cannot_start_at_any_file(refused, start):
    message = refused("fit", *SHORT, f"--model.start_at={start}", config=FULL)
    assert start in message and ("model.start_at" in message or start == "nowhere.ckpt"), message


def test_the_matmul_precision_is_set(parking):
    try:
        parking("fit", *QUICK, "--matmul_precision=medium")
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


# -- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model.alpha_hat=auto", "--model.omega_prime=null"], ["model.omega_prime", "None", "auto"]),
        (["--model.alpha_hat=automatic"], ["alpha_hat"]),
        (["--model.goal_scales=[1,1,1,1,1,1,1]"], ["model.goal_scales", "at most half"]),
        (["--model.hidden_sizes=[16]", "--model.start_at_prior=true"], ["model.start_at_prior", "[16]"]),
        (["--data.reward=basic"], ["data.reward", "never see the basic reward"]),
        ([f"--model.prior={PRIOR}", "--model.prior.init_args.path=pretrained:cartpole-rl"], ["cartpole-rl", "space"]),
        (["--data.env=CartPole-v1", "--data.add_on_reward=functions_of_a_user.wish"], ["space"]),
        (["--matmul_precision=low"], ["matmul_precision"]),
    ],
)
def test_refused_with_a_reason(refused, functions, arguments, words):
    message = refused("fit", *QUICK[:-2], *arguments, config=str(CONFIGS / "parking/residual_sac.yaml"))
    assert all(word in message for word in words), message


def test_discrete_and_continuous_algorithms_name_each_other(refused):
    config = str(CONFIGS / "cartpole/rl_prior.yaml")
    assert "SoftActorCritic" in refused("fit", "--data.env=rql_lightning/Parking-v0", config=config)


class Drifting(gym.Env):
    """Its observation and reward are what the arguments say from the third step on."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,))
    action_space = gym.spaces.Box(-1.0, 1.0, (1,))

    def __init__(self, late_observation: float = 0.5, late_reward: float = 1.0) -> None:
        self.observation, self.reward, self.steps = late_observation, late_reward, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        late = self.steps >= 3
        observation = np.array([0.1, self.observation if late else 0.5], np.float32)
        return observation, self.reward if late else 1.0, False, self.steps >= 20, {}


@pytest.fixture
def drifting() -> Any:
    gym.register("tests/Drifting-v0", entry_point=Drifting)
    yield "tests/Drifting-v0"
    gym.registry.pop("tests/Drifting-v0")


SMALL: dict[str, Any] = {"num_envs": 4, "total_frames": 256, "frames_per_batch": 32, "updates_per_batch": 4}
SMALL |= {"batch_size": 16, "warm_up_frames": 0, "replay_size": 256}


@pytest.mark.parametrize("what", ["observation", "reward"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_that_are_not_finite_are_named_with_environment_and_step(fit, drifting, what, value):
    data = ReplayDataModule(env=drifting, reward="basic", env_kwargs={f"late_{what}": value}, **SMALL)
    with pytest.raises(EnvironmentContractError, match=rf"{what}: found {value}.*environment 0 at step 3"):
        fit(SoftActorCritic(hidden_sizes=[8]), data)


def test_a_run_that_diverges_says_which_loss_and_when(fit, drifting):
    data = ReplayDataModule(env=drifting, reward="basic", env_kwargs={"late_reward": 1e30}, **SMALL)
    with pytest.raises(
        DivergenceError, match=r"critic_loss became (inf|nan) at frame \d+, update \d+.*last checkpoint"
    ):
        fit(SoftActorCritic(hidden_sizes=[8]), data)


def uniform_density(observation: Tensor, action: Tensor) -> Tensor:
    return -math.log(2.0) + 0.0 * action.sum(-1)


def test_a_density_alone_is_a_prior(fit, drifting, register):
    env = register(drifting, lambda observation, action, next_observation, info: float(action[0]))
    learner = ResidualSAC(
        FunctionPrior(uniform_density), 0.2, 0.2, hidden_sizes=[16], learning_rate=1e-2, gamma=0.0, tau=0.1
    )
    fit(learner, ReplayDataModule(env=env, reward="add_on", **{**SMALL, "total_frames": 1024, "updates_per_batch": 16}))
    assert learner.policy.act(np.array([0.1, 0.5], np.float32))[0] > 0.5, "the wish: as large as can be"
