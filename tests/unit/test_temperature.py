"""The temperature of a policy: known from training, kept in its file, and the default weight of a prior."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import pytest
import torch

from rql_lightning.algorithms import ResidualSAC, ResidualSoftQLearning, SoftActorCritic, SoftQLearning
from rql_lightning.algorithms.compatibility import adapt_checkpoint
from rql_lightning.checkpoints import write_atomically
from rql_lightning.data import ReplayDataModule
from rql_lightning.loading import CheckpointPrior, build_policy, load_policy
from rql_lightning.priors import FunctionPrior

BOX, DISCRETE, CONTINUOUS = gym.spaces.Box(-1, 1, (3,)), gym.spaces.Discrete(2), gym.spaces.Box(-2, 2, (2,))


def built(algorithm: Any, actions: gym.Space[Any] = CONTINUOUS) -> Any:
    algorithm.build(BOX, actions, "a task")
    return algorithm


def file_of(algorithm: Any, path: Any, forget: bool = False) -> str:
    """Write an algorithm's policy; with ``forget``, as versions did that knew no temperatures."""
    about = {"algorithm": type(algorithm).__name__, "task": "a task", "policy": algorithm.policy.describe()}
    about |= {"frames": 0, "updates": 0, "train_seconds": 0.0}
    if forget:
        about["policy"].pop("temperature")
    write_atomically({"state_dict": algorithm.state_dict(), "rql_lightning": about}, path)
    return str(path)


@pytest.mark.parametrize(("alpha", "temperature"), [(0.1, 0.1), ("auto", 0.7)])
def test_an_actor_knows_the_temperature_before_it_is_trained(alpha, temperature, tmp_path):
    algorithm = built(SoftActorCritic(hidden_sizes=[4], alpha=alpha, initial_alpha=0.7))
    path = file_of(algorithm, tmp_path / "a.ckpt")
    assert algorithm.policy.temperature == load_policy(path).temperature == CheckpointPrior(path).temperature
    assert algorithm.policy.temperature == temperature
    assert build_policy(algorithm.policy.describe()).temperature == temperature


@pytest.mark.parametrize("alpha", [0.2, "auto"])
def test_training_keeps_it_up_to_date(alpha, fit):
    task = {"env": "MountainCarContinuous-v0", "reward": "basic", "num_envs": 2, "total_frames": 32}
    algorithm = SoftActorCritic(hidden_sizes=[4], alpha=alpha, learning_rate=0.1)
    fit(algorithm, ReplayDataModule(**task, frames_per_batch=16, updates_per_batch=3, batch_size=4, warm_up_frames=0))
    assert algorithm.policy.temperature == (0.2 if alpha == 0.2 else pytest.approx(algorithm.log_alpha.exp().item()))
    assert (algorithm.policy.temperature == 1.0) is False


def test_files_without_a_temperature_load(tmp_path):
    path = file_of(built(SoftActorCritic(hidden_sizes=[4], alpha=0.3)), tmp_path / "a.ckpt", forget=True)
    assert load_policy(path).temperature is CheckpointPrior(path).temperature is None


def test_the_priors_temperature_is_the_default_weight(tmp_path):
    known = file_of(built(SoftActorCritic(hidden_sizes=[4], alpha=0.3)), tmp_path / "known.ckpt")
    unknown = file_of(built(SoftActorCritic(hidden_sizes=[4], alpha=0.3)), tmp_path / "unknown.ckpt", forget=True)
    assert ResidualSAC(CheckpointPrior(known), alpha_hat=0.5).omega_prime == 0.3
    assert ResidualSAC(CheckpointPrior(known), alpha_hat="auto").omega_prime == 0.3
    assert ResidualSAC(CheckpointPrior(known), omega_prime=0.0, alpha_hat=0.5).omega_prime == 0.0
    assert ResidualSAC(CheckpointPrior(unknown), alpha_hat=0.5).omega_prime == 0.5
    discrete = file_of(built(SoftQLearning(hidden_sizes=[4], alpha=0.4), DISCRETE), tmp_path / "discrete.ckpt")
    assert ResidualSoftQLearning(CheckpointPrior(discrete), alpha_hat=0.5).omega_prime == 0.4

    def half(observation: Any, action: Any) -> Any:
        return torch.full(action.shape, 0.5).log()

    assert ResidualSoftQLearning(FunctionPrior(half), alpha_hat=0.5).omega_prime == 0.5


@pytest.mark.parametrize("forget", [False, True])
def test_another_temperature_is_no_reason_to_refuse_a_checkpoint(forget, tmp_path):
    """An automatic one changes in training, a fixed one is the config's, and a prior's may be missing in its file."""
    settings: dict[str, Any] = {"hidden_sizes": [4], "omega_prime": 0.1}
    prior = CheckpointPrior(file_of(built(SoftActorCritic(hidden_sizes=[4])), tmp_path / "prior.ckpt"))
    first, second = (built(ResidualSAC(prior, alpha_hat=alpha, **settings)) for alpha in (0.3, 0.2))
    about = {"algorithm": "ResidualSAC", "task": "a task", "policy": first.policy.describe()}
    about |= {"frames": 0, "updates": 0, "train_seconds": 0.0}
    if forget:
        about["policy"].pop("temperature")
        about["policy"]["prior"]["policy"].pop("temperature")
    checkpoint = {"rql_lightning": about, "state_dict": first.state_dict(), "optimizer_states": []}
    adapt_checkpoint(checkpoint, second, "a file", fitting=True)
    assert checkpoint["state_dict"].keys() == second.state_dict().keys()
