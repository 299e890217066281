"""Residual SAC and greedy customization on a small MDP with one continuous action, against its solution on a grid."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from tensordict import TensorDict
from torch import Tensor

from rql_lightning.algorithms import GreedyCustomization, ResidualSAC
from rql_lightning.priors import FunctionPrior

STATES, GAMMA, OMEGA_PRIME, ALPHA_HAT = 3, 0.9, 0.4, 0.1
GRID = np.linspace(-4.0, 4.0, 401)  # pre-tanh actions u
ACTION, WIDTH = np.tanh(GRID), (GRID[1] - GRID[0]) * (1 - np.tanh(GRID) ** 2)
LOCATION, SCALE = np.array([0.6, -0.5, 0.0]), np.array([0.5, 0.4, 0.6])  # the prior's; the last state is terminal
TARGET, COST = np.array([-0.4, 0.7]), np.array([0.6, 0.05])
BOUND = 0.045  # on the mean of tanh u, and on its standard deviation, in both states


def reward(state: Any, action: Any) -> Any:
    return -COST[state] * (action - TARGET[state]) ** 2


def transition(action: np.ndarray) -> np.ndarray:
    """p(s′|a) of either state, ``[..., 3]``: the action steers between them, and both end now and then."""
    right = 0.45 * (1 + action)
    return np.stack([right, 0.9 - right, np.full_like(right, 0.1)], axis=-1)


def log_prior() -> np.ndarray:
    """Log-density of tanh u, ``[2, grid]``."""
    z = (GRID - LOCATION[:2, None]) / SCALE[:2, None]
    normal = -0.5 * z**2 - np.log(SCALE[:2, None]) - 0.5 * math.log(2 * math.pi)
    return normal - np.log1p(-(np.tanh(GRID) ** 2))


def solve(omega_prime: float, alpha_hat: float, gamma: float = GAMMA, greedy: bool = False) -> np.ndarray:
    """Means and standard deviations of tanh u under Eq. 5e and 6, or Eq. 16 and 17; ``[2, 2]``."""
    rewards = np.stack([reward(state, ACTION) for state in (0, 1)])
    temperature = alpha_hat + omega_prime if greedy else alpha_hat
    v = np.zeros(STATES)
    for _ in range(300):
        q = rewards + gamma * transition(ACTION) @ v
        exponent = (q + omega_prime * log_prior()) / temperature
        log_density = exponent - np.log((np.exp(exponent) * WIDTH).sum(-1, keepdims=True))
        density = np.exp(log_density) * WIDTH
        prior = 0.0 if greedy else omega_prime * log_prior()
        v[:2] = (density * (q + prior - alpha_hat * log_density)).sum(-1)
    mean = density @ ACTION
    return np.stack([mean, np.sqrt(density @ ACTION**2 - mean**2)])


def density_of_prior(observation: Tensor, action: Tensor) -> Tensor:
    state = observation.argmax(-1)
    u = torch.atanh(action.squeeze(-1))
    location, scale = torch.from_numpy(LOCATION).float()[state], torch.from_numpy(SCALE).float()[state]
    return torch.distributions.Normal(location, scale).log_prob(u) - torch.log1p(-(action.squeeze(-1) ** 2))


def sample_transitions(rng: np.random.Generator, updates: int, batch: int) -> TensorDict:
    """Of random states and widely random actions."""
    state, pre_tanh = rng.integers(2, size=(updates, batch)), rng.normal(0, 1.2, (updates, batch))
    action = np.tanh(pre_tanh)
    following = (rng.random((updates, batch, 1)) > transition(action).cumsum(-1)).sum(-1).clip(0, 2)

    def tensor(values: Any) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values))

    observation, next_observation = (tensor(np.eye(STATES)[states]) for states in (state, following))
    own = {"observation": observation, "action": tensor(action[..., None]), "pre_tanh": tensor(pre_tanh[..., None])}
    own["prior_parameters"] = observation
    after = {"observation": next_observation, "prior_parameters": next_observation}
    after |= {"reward": tensor(reward(state, action)), "terminated": tensor(following == 2)}
    return TensorDict({**own, "next": TensorDict(after, [updates, batch])}, [updates, batch])


def learn(detach: Any, algorithm: type) -> np.ndarray:
    """What :func:`solve` gives, of the learnt policy."""
    observation, action = gym.spaces.Box(0.0, 1.0, (STATES,)), gym.spaces.Box(-1.0, 1.0, (1,))
    settings = {"hidden_sizes": [32], "gamma": GAMMA, "tau": 0.05, "learning_rate": 1e-2}
    learner = detach(
        algorithm, observation, action, FunctionPrior(density_of_prior), OMEGA_PRIME, ALPHA_HAT, **settings
    )
    rounds = 16
    for index in range(rounds):
        learner.optimizer.param_groups[0]["lr"] = 1e-2 * (1 - index / rounds)
        learner.update(sample_transitions(np.random.default_rng(index), 50, 256))
    parameters = learner.policy.distribution_parameters(torch.eye(STATES, dtype=torch.float64)[:2]).detach().numpy()
    samples = np.tanh(parameters[:, :1] + np.exp(parameters[:, 1:]) * np.random.default_rng(0).normal(size=100_000))
    return np.stack([samples.mean(-1), samples.std(-1)])


@pytest.mark.parametrize(("algorithm", "greedy"), [(ResidualSAC, False), (GreedyCustomization, True)])
def test_learnt_policy_is_that_of_the_grid(detach, algorithm, greedy):
    exact = solve(OMEGA_PRIME, ALPHA_HAT, greedy=greedy)
    np.testing.assert_allclose(learn(detach, algorithm), exact, rtol=0, atol=BOUND)
    wrong = {
        "the prior": solve(1e6, 1e6),
        "the wish alone": solve(0.0, ALPHA_HAT),
        "the other of the two": solve(OMEGA_PRIME, ALPHA_HAT, greedy=not greedy),
    }
    if not greedy:
        wrong["another temperature"] = solve(OMEGA_PRIME, OMEGA_PRIME)
        wrong["no future"] = solve(OMEGA_PRIME, ALPHA_HAT, gamma=0.0)
    for name, policy in wrong.items():
        assert np.abs(policy - exact).max() > 2 * BOUND, name
