"""Policies that draw from samples of their prior, over continuous actions."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import torch
from torch import Tensor, nn

from rql_lightning import functional
from rql_lightning.networks import TwinCritic
from rql_lightning.policies.base import Policy
from rql_lightning.policies.encoders import Encoder
from rql_lightning.policies.samples import Resampled
from rql_lightning.spaces import ActionBounds, check_continuous

ROWS_AT_ONCE = 4096
"""Number of pairs of state and action that are evaluated at a time, so that the layers' outputs stay in the cache."""


class ResampledPolicy(Policy):
    """The policy of Eq. 6 at ω′ = α̂, which draws one of K samples of its prior with weights exp(Q_R(s, a) / α̂).

    Args:
        observation_space: Observation space, a ``Box``.
        action_space: Action space, a bounded ``Box``.
        hidden_sizes: Width of each hidden layer of each of the twin Q-networks.
        alpha_hat: Temperature α̂.
        prior: Prior that can be sampled alone; it determines K.
        task: Gymnasium id of the task.
        encoder: Encoder of observations; by default scales numbers with finite bounds to [−1, 1].
    """

    bounds: ActionBounds
    family: Resampled
    prior: Policy

    def __init__(
        self,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        hidden_sizes: list[int],
        alpha_hat: float,
        prior: Policy,
        task: str | None = None,
        encoder: Encoder | None = None,
    ) -> None:
        super().__init__()
        check_continuous(observation_space, action_space)
        self.observation_space, self.action_space, self.task = observation_space, action_space, task
        self.hidden_sizes, self.alpha_hat, self.prior = list(hidden_sizes), alpha_hat, prior
        self.temperature = alpha_hat
        self.bounds = ActionBounds(action_space)
        samples: Any = prior.family
        self.family = Resampled(self.bounds.size, samples.samples)
        self.encoder = encoder or Encoder.scaled_of(observation_space)
        self.q_network = TwinCritic(self.encoder.size + self.bounds.size, self.hidden_sizes)

    def distribution_parameters(self, observation: Tensor) -> Tensor:
        """Return samples of the prior and their log-weights, ``[..., K (A + 1)]``."""
        return self.with_prior(observation)[0]

    def with_prior(self, observation: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the parameters of the policy and those of the prior, which is sampled once."""
        samples = self.prior.distribution_parameters(observation)
        return self.from_prior(observation, samples), samples

    def from_prior(self, observation: Tensor, samples: Tensor) -> Tensor:
        """Return the parameters from known samples of the prior, ``[..., K A]``."""
        code = self.encoder(self.flatten(observation))
        log_weights = functional.resampling_log_weights(self.q_of(self.q_network, code, samples), self.alpha_hat)
        return torch.cat([samples, log_weights], dim=-1)

    def q_of(self, network: nn.Module, code: Tensor, samples: Tensor) -> Tensor:
        """Return the smaller of the twins' Q_R of the prior's samples, ``[..., K]``.

        Args:
            network: Twin Q-networks: the policy's, or a target network.
            code: Encoded observations, ``[..., D]``.
            samples: Samples of the prior, ``[..., K A]``.
        """
        actions = self.prior.family.split(samples)[0]  # type: ignore[attr-defined]
        states = code.unsqueeze(-2).expand(*actions.shape[:-1], -1)
        rows = (each.reshape(-1, each.shape[-1]).split(ROWS_AT_ONCE) for each in (states, actions))
        q = [network(*some).amin(dim=0) for some in zip(*rows, strict=True)]
        return torch.cat(q).reshape(actions.shape[:-1])

    def describe(self) -> dict[str, Any]:
        """Return the description from which :func:`rql_lightning.load_policy` rebuilds the policy."""
        own = {"hidden_sizes": self.hidden_sizes, "alpha_hat": self.alpha_hat, "prior": self.prior.describe()}
        return {**super().describe(), **own, "encoder": self.encoder.describe()}
