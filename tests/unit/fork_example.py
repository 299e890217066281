"""A task whose prior has two modes, its exact solution by quadrature, and the law of a resampled action."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

GAMMA, ALPHA_HAT, STEPS = 0.9, 0.3, 2
POINTS = 801
UNIFORM = np.linspace(-1.0, 1.0, 2 * POINTS + 1)[1::2]  # midpoints of the actions
WIDTH = 2.0 / POINTS


def moved(position: Any, action: Any) -> Any:
    return np.clip(position + 0.5 * action, -1.0, 1.0)


def reward(position: Any, action: Any) -> Any:
    return -((moved(position, action) - 0.4) ** 2)


class Fork(gym.Env):
    """Two steps to the left or to the right; the prior takes either, and the wish is the right."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (2,))
    action_space = gym.spaces.Box(-1.0, 1.0, (1,))

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.position, self.time = self.np_random.uniform(-0.3, 0.3), 0
        return self._observation(), {}

    def _observation(self) -> np.ndarray:
        return np.array([self.position, self.time - 1.0], np.float32)

    def step(self, action: Any) -> Any:
        self.position, self.time = float(moved(self.position, action[0])), self.time + 1
        return self._observation(), 0.0, self.time == STEPS, False, {}


def add_on_reward(observation: Any, action: Any, next_observation: Any, info: Any) -> Any:
    return reward(observation[..., 0], action[..., 0])


def right(position: Any) -> Any:
    """The prior's probability of the mode at 0.6."""
    return 1.0 / (1.0 + np.exp(-3.0 * np.asarray(position)))


def sample(observation: Tensor) -> Tensor:
    """One action of the prior for each row, cut to the bounds by drawing again."""
    sign = torch.where(torch.rand(len(observation)) < torch.from_numpy(right(observation[:, 0].numpy())), 1.0, -1.0)
    noise = torch.nn.init.trunc_normal_(torch.empty(len(observation)), 0.0, 0.15, -0.4, 0.4)
    return (0.6 * sign + noise).unsqueeze(-1)


def prior_density(position: Any) -> np.ndarray:
    """π(a|s) at the points of ``UNIFORM``, ``[..., POINTS]``."""
    weight, position = right(position)[..., None], np.asarray(position)
    modes = [
        np.exp(-0.5 * ((UNIFORM - centre) / 0.15) ** 2) * (np.abs(UNIFORM - centre) <= 0.4) for centre in (0.6, -0.6)
    ]
    left, other = (mode / (mode.sum() * WIDTH) for mode in modes)
    return weight * left + (1 - weight) * other


def exact(position: np.ndarray, time: int) -> tuple[np.ndarray, np.ndarray]:
    """Q_R at the points of ``UNIFORM``, ``[n, POINTS]``, and V_R, ``[n]``, at positions ``[n]`` after some steps."""
    q = reward(position[:, None], UNIFORM)
    if time + 1 < STEPS:
        grid = np.linspace(-1.0, 1.0, 401)
        q = q + GAMMA * np.interp(moved(position[:, None], UNIFORM), grid, exact(grid, time + 1)[1])
    return q, ALPHA_HAT * np.log((prior_density(position) * np.exp(q / ALPHA_HAT)).sum(-1) * WIDTH)


def exact_density(position: np.ndarray, time: int) -> np.ndarray:
    """π̂(a|s) at the points of ``UNIFORM``, ``[n, POINTS]``."""
    q, v = exact(position, time)
    return prior_density(position) * np.exp((q - v[:, None]) / ALPHA_HAT)


def resampled_density(q: np.ndarray, position: np.ndarray, samples: int, draws: int = 2000) -> np.ndarray:
    """Density of the action that is drawn from K samples with weights exp(Q/α̂), ``[n, POINTS]``.

    An action is drawn with probability e(a) / (e(a) + S) if it is among the samples, where S sums e over the K − 1
    others: the density is π(a) E[K e(a) / (e(a) + S)], an expectation over the others.
    """
    rng, density, result = np.random.default_rng(0), prior_density(position), np.empty_like(q)
    weight = np.exp((q - q.max(-1, keepdims=True)) / ALPHA_HAT)
    for row in range(len(q)):
        probabilities = density[row] / density[row].sum()
        others = weight[row][rng.choice(POINTS, (draws, samples - 1), p=probabilities)].sum(-1)
        chosen = [(samples * weight[row] / (weight[row] + other)) for other in others]
        result[row] = density[row] * np.mean(chosen, axis=0)
    return result


def divergence(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """KL(first ‖ second) in nats, ``[n]``."""
    ratio = np.log(np.where(first > 0, first, 1.0)) - np.log(np.where(first > 0, second, 1.0))
    return (first * ratio).sum(-1) * WIDTH
