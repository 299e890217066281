"""Actors of SAC and TQC as policies of this library, from which residual soft actor-critic starts."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from sb3_models import Task, make
from stable_baselines3 import SAC
from torch import nn

from rql_lightning.algorithms import ResidualSAC
from rql_lightning.customizing.defaults import Choice, model_settings
from rql_lightning.errors import ConfigurationError
from rql_lightning.loading import CheckpointPrior
from rql_lightning.policies import Encoder, SquashedGaussianPolicy
from rql_lightning.policies.families import LOG_SCALE_RANGE
from rql_lightning.priors import StableBaselines3Prior

LOW, HIGH = np.array([-1, 2, -np.inf], np.float32), np.array([5, 2.5, np.inf], np.float32)
SPACE = gym.spaces.Box(LOW, HIGH)
CHOICE = Choice("ResidualSAC", 20_000, 8, 0.99, 0.2, 0.2)


def prior_of(kind: str, folder: Path, space: gym.Space = SPACE, **policy) -> StableBaselines3Prior:
    env = Task(False, space)
    path = folder / f"{kind}.zip"
    make(kind, env, **policy).save(path)
    prior = StableBaselines3Prior(str(path), scale=0.1 if kind in ("td3", "ddpg") else None)
    prior.attach(env.observation_space, env.action_space)
    return prior


def states(count: int = 200) -> torch.Tensor:
    rows = torch.rand(count, 3, generator=torch.Generator().manual_seed(3))
    return rows * torch.tensor([6.0, 0.5, 4.0]) + torch.tensor([-1.0, 2.0, -2.0])


@pytest.mark.parametrize("layers", [[16, 12], [8], []])
@pytest.mark.parametrize("kind", ["sac", "tqc"])
def test_the_law_is_the_models(kind, layers, tmp_path):
    prior = prior_of(kind, tmp_path, net_arch={"pi": layers, "qf": [4]})
    actor = prior.as_actor()
    assert isinstance(actor, SquashedGaussianPolicy) and actor.hidden_sizes == layers
    expected = prior.distribution_parameters(states())
    assert expected[:, 2:].std() > 0 and (expected[:, 2:] > LOG_SCALE_RANGE[0]).float().mean() > 0.5
    expected[:, 2:].clamp_(min=LOG_SCALE_RANGE[0])
    torch.testing.assert_close(actor.distribution_parameters(states()), expected, rtol=1e-5, atol=1e-5)
    inside = (prior.distribution_parameters(states())[:, 2:] > LOG_SCALE_RANGE[0]).all(dim=-1)
    given = states()[inside].numpy()
    actions = np.stack([actor.act(each, deterministic=False) for each in given[:20]])
    ours, theirs = actor.log_prob(given[:20], actions), prior.log_prob(given[:20], actions)
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)


def test_the_law_is_that_of_the_library_itself(tmp_path):
    prior = prior_of("sac", tmp_path)
    model = SAC.load(tmp_path / "sac.zip")
    with torch.no_grad():
        location, log_scale, _ = model.actor.get_action_dist_params(states())
    found = prior.as_actor().distribution_parameters(states())
    expected = torch.cat([location, log_scale.clamp(min=LOG_SCALE_RANGE[0])], dim=-1)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "policy"), [("sac", {"activation_fn": nn.Tanh}), ("sac_gsde", {}), ("ppo_box", {}), ("td3", {})]
)
def test_networks_of_another_form_are_started_at_by_nobody(kind, policy, tmp_path):
    prior = prior_of(kind, tmp_path, **policy)
    assert prior.as_actor() is prior
    assert "start_at_prior" not in model_settings(CHOICE, prior, prior.observation_space)
    algorithm = ResidualSAC(prior, omega_prime=0.1, hidden_sizes=[16, 12], start_at_prior=True)
    with pytest.raises(ConfigurationError, match=r"^model\.start_at_prior: found True, expected a policy of "):
        algorithm.build(prior.observation_space, prior.action_space, "tests/Task-v0")


def test_customization_starts_at_the_prior(tmp_path):
    """Without a training step, the policy is the prior and the residual Q-values are 0."""
    pendulum = gym.make("Pendulum-v1")
    model = SAC("MlpPolicy", pendulum, policy_kwargs={"net_arch": [16, 12]}, device="cpu", seed=1)
    model.save(tmp_path / "sac.zip")
    prior = StableBaselines3Prior(str(tmp_path / "sac.zip"))
    prior.attach(pendulum.observation_space, pendulum.action_space)
    settings = model_settings(CHOICE, prior, prior.observation_space)
    assert settings["start_at_prior"] and settings["hidden_sizes"] == [16, 12]
    algorithm = ResidualSAC(prior, **settings)
    algorithm.build(pendulum.observation_space, pendulum.action_space, "Pendulum-v1")
    observation = torch.tensor(np.stack([pendulum.observation_space.sample() for _ in range(50)]))
    found = algorithm.policy.distribution_parameters(observation)
    torch.testing.assert_close(found, prior.distribution_parameters(observation), rtol=1e-5, atol=1e-5)
    code = algorithm.policy.encoder(observation)
    assert (algorithm.critic(code, torch.zeros(50, 1)) == 0).all()


def test_bounds_of_observations_are_the_environments(tmp_path):
    """A file may be of a version of the environment with other bounds, or hold them in part."""
    prior = prior_of("sac", tmp_path)
    expected = prior.distribution_parameters(states())
    expected[:, 2:].clamp_(min=LOG_SCALE_RANGE[0])
    wider = gym.spaces.Box(2 * LOW - 1, 2 * HIGH)
    prior.attach(wider, prior.action_space)
    actor = prior.as_actor()
    assert actor.encoder.fixed == Encoder.scaled_of(wider).fixed
    torch.testing.assert_close(actor.distribution_parameters(states()), expected, rtol=1e-5, atol=1e-5)
    algorithm = ResidualSAC(prior, **model_settings(CHOICE, prior, wider))
    algorithm.build(wider, prior.action_space, "tests/Task-v0")
    assert model_settings(CHOICE, prior, wider)["start_at_prior"]


def test_actors_without_hidden_layers_and_of_other_bounds_are_not_started_at(tmp_path):
    linear = prior_of("sac", tmp_path, net_arch={"pi": [], "qf": [4]})
    assert "start_at_prior" not in model_settings(CHOICE, linear, linear.observation_space)
    own = CheckpointPrior("pretrained:mountain-car-rl")
    assert model_settings(CHOICE, own, own.observation_space)["start_at_prior"]
    wider = gym.spaces.Box(2 * own.observation_space.low, 2 * own.observation_space.high)
    assert "start_at_prior" not in model_settings(CHOICE, own, wider)
