"""Boltzmann policies over discrete actions."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from torch import Tensor
from torch.distributions import Categorical, Distribution

from rql_lightning import functional
from rql_lightning.networks import mlp
from rql_lightning.policies.base import Policy
from rql_lightning.spaces import check_discrete


class CategoricalPolicy(Policy):
    """A policy over discrete actions: its parameters are their log-probabilities ``[..., A]``."""

    def make_distribution(self, parameters: Tensor) -> Distribution:
        """See :meth:`Policy.make_distribution`."""
        return Categorical(logits=parameters, validate_args=False)

    def mode(self, parameters: Tensor) -> Tensor:
        """The most probable action, ``[...]``."""
        return parameters.argmax(dim=-1)

    def sample(self, parameters: Tensor) -> Tensor:
        """See :meth:`Policy.sample`; ``[...]``."""
        return self.make_distribution(parameters).sample()


class SoftQPolicy(CategoricalPolicy):
    """Eq. 6 over a Q-network; without a prior, the soft-optimal policy of Eq. 1.

    Args:
        observation_space: ``Box``.
        action_space: ``Discrete``.
        hidden_sizes: Hidden layers of the Q-network.
        alpha_hat: Temperature.
        prior: Frozen prior, or ``None``.
        omega_prime: ω′, the weight of the prior's log-likelihood.
        task: Gymnasium id.
    """

    def __init__(
        self,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        hidden_sizes: list[int],
        alpha_hat: float,
        prior: Policy | None = None,
        omega_prime: float = 0.0,
        task: str | None = None,
    ) -> None:
        super().__init__()
        check_discrete(observation_space, action_space)
        self.observation_space, self.action_space, self.task = observation_space, action_space, task
        self.hidden_sizes, self.alpha_hat, self.omega_prime = list(hidden_sizes), alpha_hat, omega_prime
        self.q_network = mlp(int(np.prod(observation_space.shape)), self.hidden_sizes, int(action_space.n))
        self.prior = prior

    def q_values(self, observation: Tensor) -> Tensor:
        """Q (or Q_R) of all actions, ``[..., A]``."""
        return self.q_network(self.flatten(observation))

    def distribution_parameters(self, observation: Tensor) -> Tensor:
        """Eq. 6, ``[..., A]``."""
        prior_log_prob = None if self.prior is None else self.prior.distribution_parameters(observation)
        return functional.policy_log_prob(self.q_values(observation), prior_log_prob, self.omega_prime, self.alpha_hat)

    def describe(self) -> dict[str, Any]:
        """See :meth:`Policy.describe`."""
        own = {key: getattr(self, key) for key in ("hidden_sizes", "alpha_hat", "omega_prime")}
        return {**super().describe(), **own, "prior": None if self.prior is None else self.prior.describe()}
