"""Checkpoints that contain a prior of Stable-Baselines3: read as they are, and refused before a claim takes memory."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from sb3_models import Task, make

from rql_lightning.algorithms import ResidualSoftQLearning
from rql_lightning.errors import CheckpointError
from rql_lightning.loading import load_policy
from rql_lightning.priors import ObservationStatistics, StableBaselines3Prior


@pytest.fixture(scope="module")
def ppo(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("models") / "ppo.zip"
    make("ppo").save(path)
    return path


def checkpoint_of(ppo: Path, path: Path, normalized: bool, **changes: Any) -> Any:
    """Write the checkpoint of a policy that customises a prior whose description is changed; return the policy."""
    statistics = ObservationStatistics([0.1] * 6, [2.0] * 6) if normalized else None
    prior, task = StableBaselines3Prior(str(ppo), vec_normalize=statistics), Task(True)
    algorithm = ResidualSoftQLearning(prior=prior, hidden_sizes=[8], alpha_hat=0.5)
    algorithm.build(task.observation_space, task.action_space, "a task")
    description = copy.deepcopy(algorithm.policy.describe())
    description["prior"]["architecture"] |= changes
    weights = {f"policy.{name}": value for name, value in algorithm.policy.state_dict().items()}
    torch.save({"rql_lightning": {"policy": description}, "state_dict": weights}, path)
    return algorithm.policy


@pytest.mark.parametrize("normalized", [False, True])
def test_a_checkpoint_contains_the_prior(normalized, ppo, tmp_path):
    policy = checkpoint_of(ppo, tmp_path / "p.ckpt", normalized)
    again = load_policy(tmp_path / "p.ckpt")
    observations = torch.randn(5, 3, 2)
    for one, other in ((policy, again), (policy.prior, again.prior)):
        expected = one.distribution_parameters(observations)
        torch.testing.assert_close(other.distribution_parameters(observations), expected)
    assert not any(each.requires_grad or each.is_meta for each in again.prior.parameters())


@pytest.mark.parametrize("sizes", [[6, 10**6, 10**6, 3], [10**12, 16, 12, 3], [6, 16, 12, 12, 3]])
def test_sizes_that_a_checkpoint_claims_are_compared_with_its_weights(sizes, ppo, tmp_path):
    """The first two would take terabytes."""
    checkpoint_of(ppo, tmp_path / "p.ckpt", True, sizes=sizes)
    with pytest.raises(CheckpointError, match=r"p.ckpt: policy\.prior\.\S+: found (none|shape \(.*\)), expected shape"):
        load_policy(tmp_path / "p.ckpt")


def test_a_weight_of_a_checkpoint_that_is_one_number_many_times_is_refused(ppo, tmp_path):
    policy = checkpoint_of(ppo, tmp_path / "p.ckpt", False, sizes=[6, 10**5, 10**5, 3])
    name, content = "prior.network.hidden.0.weight", torch.load(tmp_path / "p.ckpt", weights_only=True)
    content["state_dict"][f"policy.{name}"] = torch.zeros(1).expand(10**5, 6)
    torch.save(content, tmp_path / "p.ckpt")
    assert name in policy.state_dict()
    with pytest.raises(CheckpointError, match=rf"p.ckpt: policy.{name}: found more numbers than are stored"):
        load_policy(tmp_path / "p.ckpt")
