"""Residual SAC with a flow as the actor: samples and losses against distributions, starts, files, and its modes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor

from rql_lightning import register_task
from rql_lightning.algorithms import ResidualFlowSAC
from rql_lightning.algorithms.base import Minibatch
from rql_lightning.checkpoints import write_atomically
from rql_lightning.data import ReplayDataModule
from rql_lightning.envs import Customization
from rql_lightning.errors import ConfigurationError
from rql_lightning.loading import CheckpointPrior, load_policy
from rql_lightning.policies import Encoder, NetworkPolicy
from rql_lightning.priors import FunctionPrior

pytest.importorskip("zuko")

OBSERVATIONS, ACTIONS = gym.spaces.Box(-1, 1, (3,)), gym.spaces.Box(np.float32([-2, 0]), np.float32([2, 4]))
DOUBLE = {"dtype": torch.float64}
MOUNTAIN_CAR = "rql_lightning/MountainCarContinuous-v0"


def prior_at(path: Path, spaces: Any = (OBSERVATIONS, ACTIONS), family: str = "flow", **settings: Any) -> Any:
    """A file of a random policy, as a prior."""
    torch.manual_seed(0)
    policy = NetworkPolicy(*spaces, **{"hidden_sizes": [8], **settings}, family=family)
    about = {"rql_lightning": {"policy": policy.describe()}}
    write_atomically(
        {**about, "state_dict": {f"policy.{key}": each for key, each in policy.state_dict().items()}}, path
    )
    return CheckpointPrior(str(path))


def learner(detach: Any, prior: Any, omega_prime: float, alpha_hat: float, **settings: Any) -> Any:
    settings = {"hidden_sizes": [8], "gamma": 0.9, "prior_log_prob_min": None, **settings}
    return detach(ResidualFlowSAC, OBSERVATIONS, ACTIONS, prior, omega_prime, alpha_hat, **settings)


def test_the_losses_are_those_of_the_distributions(detach, tmp_path):
    """Log-densities by PyTorch's transformed distributions, and the losses of Eq. 7 to 10 from them."""
    subject = learner(detach, prior_at(tmp_path / "prior.ckpt"), 0.4, 0.7)
    noise, following = torch.randn(2, 6, 2, **DOUBLE)
    states, successors = torch.rand(2, 6, 3, **DOUBLE)
    prior, reward = subject.prior, torch.randn(6, **DOUBLE)
    parameters, next_parameters = (prior.distribution_parameters(each) for each in (states, successors))
    taken = torch.rand(6, 2, **DOUBLE) * 2 - 1
    batch = Minibatch(
        observation=states,
        action=taken,
        next_observation=successors,
        reward=reward,
        terminated=torch.tensor([True, False] * 3),
        prior_parameters=parameters,
        next_prior_parameters=next_parameters,
    )
    losses, sample, _ = subject.losses(batch, noise, following)

    def terms(state: Tensor, z: Tensor, of_prior: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        law = subject.policy.family.distribution(subject.policy.distribution_parameters(state))
        action = torch.tanh(subject.policy.family.from_noise(subject.policy.distribution_parameters(state), z))
        return action, law.log_prob(action), prior.family.distribution(of_prior).log_prob(action)

    action, log_prob, prior_log_prob = terms(states, noise, parameters)
    torch.testing.assert_close(sample.action, action)
    torch.testing.assert_close(sample.log_prob, log_prob)
    q = subject.critic(states, action).amin(0)
    torch.testing.assert_close(losses["actor"], (0.7 * log_prob - 0.4 * prior_log_prob - q).mean())
    action, log_prob, prior_log_prob = terms(successors, following, next_parameters)
    value = subject.target_critic(successors, action).amin(0) + 0.4 * prior_log_prob - 0.7 * log_prob
    target = (reward + 0.9 * value * torch.tensor([0.0, 1.0] * 3, **DOUBLE)).detach()
    expected = 0.5 * (subject.critic(states, taken) - target).square().mean(-1).sum()
    torch.testing.assert_close(losses["critic"], expected)


def test_starting_at_the_prior_is_starting_at_the_solution_for_no_wish(detach, tmp_path):
    prior = prior_at(tmp_path / "prior.ckpt")
    subject = learner(detach, prior, 0.7, 0.7, start_at_prior=True)
    states, actions = torch.rand(9, 3, **DOUBLE), torch.rand(9, 2, **DOUBLE)
    found, expected = (
        each.family.log_prob(each.distribution_parameters(states), actions) for each in (subject.policy, prior)
    )
    torch.testing.assert_close(found, expected)
    assert subject.critic(states, actions).abs().max() == 0
    other = learner(detach, prior, 0.7, 0.7).policy
    assert not torch.allclose(other.family.log_prob(other.distribution_parameters(states), actions), expected)


def test_it_starts_at_a_prior_with_its_statistics_of_observations(detach, tmp_path):
    space = gym.spaces.Box(-np.inf, np.inf, (3,))
    encoder = Encoder.scaled_of(space, normalize=True)
    encoder.observe(500.0 + 3.0 * torch.randn(40, 3))
    prior = prior_at(tmp_path / "prior.ckpt", (space, ACTIONS), encoder=encoder)
    settings: Any = {"hidden_sizes": [8], "start_at_prior": True, "normalize_observations": True}
    subject = detach(ResidualFlowSAC, space, ACTIONS, prior, 0.7, 0.7, **settings)
    states = 500.0 + 3.0 * torch.randn(9, 3, **DOUBLE)
    found, expected = (each.distribution_parameters(states) for each in (subject.policy, prior))
    torch.testing.assert_close(found, expected)
    assert subject.policy.encoder.count == 40 and len(found.unique(dim=0)) == 9


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"family": "squashed_normal"}, "SquashedNormal"),
        ({"family": "mixture"}, "SquashedNormalMixture"),
        ({"hidden_sizes": [4]}, r"'hidden_sizes': \[4\]"),
        ({"context": 5}, "'size': 5"),
        ({"rows": 3}, "'rows': 3"),
    ],
)
def test_a_start_at_another_architecture_is_refused(detach, tmp_path, settings, message):
    prior = prior_at(tmp_path / "prior.ckpt", **settings)
    with pytest.raises(ConfigurationError, match=f"start_at_prior: found True, expected a policy of .*Flow.*{message}"):
        learner(detach, prior, 0.7, 0.7, start_at_prior=True)


def test_a_start_at_a_function_is_refused(detach):
    prior = FunctionPrior(lambda observation, action: -action.square().sum(-1))
    with pytest.raises(ConfigurationError, match=r"start_at_prior: found True.*'Density'"):
        learner(detach, prior, 0.7, 0.7, start_at_prior=True)


def test_it_trains_all_of_the_actor_and_none_of_the_prior_and_comes_back_from_a_file(fit, tmp_path):
    env = gym.make(MOUNTAIN_CAR)
    prior = prior_at(tmp_path / "prior.ckpt", (env.observation_space, env.action_space))
    before = {name: each.clone() for name, each in prior.state_dict().items()}
    algorithm = ResidualFlowSAC(prior, 0.1, "auto", hidden_sizes=[8], prior_frames=16, target_entropy=-1.0)
    small = {"num_envs": 4, "total_frames": 96, "frames_per_batch": 16, "updates_per_batch": 2, "batch_size": 8}
    untrained: dict[str, Tensor] = {}
    inner = algorithm.configure_optimizers
    algorithm.configure_optimizers = lambda: (  # type: ignore[method-assign]
        untrained.update({name: each.clone() for name, each in algorithm.policy.named_parameters()}),
        inner(),
    )[1]
    trainer = fit(algorithm, ReplayDataModule(env=MOUNTAIN_CAR, warm_up_frames=0, **small))
    assert algorithm.updates == 12
    assert all(torch.equal(each, before[name]) for name, each in prior.state_dict().items())
    own = {name: each for name, each in algorithm.policy.named_parameters() if not name.startswith("prior.")}
    assert any(name.startswith("flow.") for name in own)
    assert [name for name, each in own.items() if torch.equal(each, untrained[name])] == []
    trainer.save_checkpoint(tmp_path / "policy.ckpt")
    loaded, observation = load_policy(tmp_path / "policy.ckpt"), np.zeros((3, 2), np.float32)
    found, expected = loaded.decide(observation), algorithm.policy.decide(observation)
    assert loaded.temperature == algorithm.log_alpha.exp().item()
    assert np.array_equal(found.action, expected.action) and np.array_equal(found.kl_to_prior, expected.kl_to_prior)


class Choice(gym.Env):
    """One step; nothing depends on the state."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (1,))
    action_space = gym.spaces.Box(-1.0, 1.0, (1,))

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Any:
        return np.zeros(1, np.float32), 0.0, True, False, {}


def two_modes(observation: Tensor, action: Tensor) -> Tensor:
    """Normal modes at ±0.5 of scale 0.15; less than 1e-3 of their mass lies outside of [−1, 1]."""
    centres = torch.tensor([-0.5, 0.5])
    each = torch.distributions.Normal(centres, 0.15).log_prob(action)
    return torch.logsumexp(each, dim=-1) - np.log(2.0)


@pytest.mark.slow
def test_both_modes_are_kept_and_weighted_by_the_wish(fit):
    """π̂ ∝ π exp(r/α̂), by quadrature: with r = −0.2 a and α̂ = 0.3, 66 % of the actions are on the left."""
    gym.register("unit/Choice-v0", entry_point=Choice)
    try:
        wish = Customization(lambda observation, action, following, info: -0.2 * action[..., 0], vectorized=True)
        register_task("unit/ChoiceLeft-v0", base="unit/Choice-v0", customization=wish)
        settings = {"hidden_sizes": [16], "gamma": 0.0, "learning_rate": 3e-3, "learning_rate_schedule": "linear"}
        algorithm = ResidualFlowSAC(FunctionPrior(two_modes), 0.3, 0.3, **settings)
        small = {"num_envs": 8, "frames_per_batch": 64, "updates_per_batch": 16, "batch_size": 64}
        fit(algorithm, ReplayDataModule(env="unit/ChoiceLeft-v0", total_frames=6_000, warm_up_frames=0, **small))
    finally:
        for name in ("unit/Choice-v0", "unit/ChoiceLeft-v0"):
            gym.registry.pop(name, None)
    grid = torch.linspace(-1.0, 1.0, 2001)
    exact = (two_modes(torch.zeros(1), grid.unsqueeze(-1)) - 0.2 * grid / 0.3).exp()
    share = exact[grid < 0].sum() / exact.sum()
    torch.manual_seed(0)
    actions = algorithm.policy.act(torch.zeros(4000, 1), deterministic=False)
    assert (actions < 0).float().mean() == pytest.approx(share.item(), abs=0.1)
    assert (actions.abs() < 0.15).float().mean() < 0.1, "few between the modes"
