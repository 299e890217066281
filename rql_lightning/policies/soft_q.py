"""Boltzmann policies over discrete actions."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
from torch import Tensor

from rql_lightning import functional
from rql_lightning.networks import mlp
from rql_lightning.policies.base import Policy
from rql_lightning.policies.encoders import Encoder
from rql_lightning.policies.families import Categorical
from rql_lightning.spaces import check_discrete


class SoftQPolicy(Policy):
    """The policy of Eq. 6 with a Q-network; without a prior, the soft-optimal policy of Eq. 1.

    With λ for ω′ and α̂ + λ for α̂ it is the policy of Eq. 17.

    Args:
        observation_space: Observation space, a ``Box``.
        action_space: Action space, ``Discrete``.
        hidden_sizes: Width of each hidden layer of the Q-network.
        alpha_hat: Temperature α̂.
        prior: Frozen prior that the policy customises, or ``None``.
        omega_prime: Weight ω′ of the prior's log-likelihood.
        task: Gymnasium id of the task.
        encoder: Encoder of observations; by default observations are passed on unchanged.
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
        encoder: Encoder | None = None,
    ) -> None:
        super().__init__()
        check_discrete(observation_space, action_space)
        self.observation_space, self.action_space, self.task = observation_space, action_space, task
        self.family = Categorical(int(action_space.n))
        self.hidden_sizes, self.alpha_hat, self.omega_prime = list(hidden_sizes), alpha_hat, omega_prime
        self.encoder = encoder or Encoder.raw_of(observation_space)
        self.q_network = mlp(self.encoder.size, self.hidden_sizes, self.family.size)
        self.prior, self.temperature = prior, alpha_hat

    def q_values(self, observation: Tensor) -> Tensor:
        """Return Q (or Q_R) of all actions, ``[..., A]``."""
        return self.q_network(self.encoder(self.flatten(observation)))

    def distribution_parameters(self, observation: Tensor) -> Tensor:
        """Return the log-probabilities of Eq. 6, ``[..., A]``."""
        return self.with_prior(observation)[0]

    def with_prior(self, observation: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the log-probabilities of Eq. 6 and those of the prior, which is evaluated once."""
        prior_log_prob = None if self.prior is None else self.prior.distribution_parameters(observation)
        return self.from_prior(observation, prior_log_prob), prior_log_prob

    def from_prior(self, observation: Tensor, prior_log_prob: Tensor | None) -> Tensor:
        """Return the log-probabilities of Eq. 6 from known log-probabilities of the prior; both ``[..., A]``."""
        return functional.policy_log_prob(self.q_values(observation), prior_log_prob, self.omega_prime, self.alpha_hat)

    def describe(self) -> dict[str, Any]:
        """Return the description from which :func:`rql_lightning.load_policy` rebuilds the policy."""
        own = {key: getattr(self, key) for key in ("hidden_sizes", "alpha_hat", "omega_prime")}
        prior = None if self.prior is None else self.prior.describe()
        return {**super().describe(), **own, "encoder": self.encoder.describe(), "prior": prior}
