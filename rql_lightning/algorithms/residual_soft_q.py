"""Residual soft Q-learning (section 3): soft Q-learning with another target and another policy, nothing else."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
from torch import Tensor

from rql_lightning import functional
from rql_lightning.algorithms.base import Minibatch
from rql_lightning.algorithms.customization import CustomizesPrior
from rql_lightning.algorithms.hyperparameters import check_hyperparameters, check_number
from rql_lightning.algorithms.soft_q import SoftQLearning
from rql_lightning.policies import SoftQPolicy
from rql_lightning.priors import Prior


class ResidualSoftQLearning(CustomizesPrior, SoftQLearning):
    """Customise a frozen prior to an add-on reward (Eq. 6, 7, 8), for discrete actions.

    omega_prime = alpha_hat is KL-regularised reinforcement learning towards the prior; omega_prime = 0 forgets it.

    Args:
        prior: The frozen policy to customise.
        omega_prime: Weight ω′ = ωα of the prior's log-likelihood, >= 0: a large one stays close to the prior. null
            stands for alpha_hat.
        alpha_hat: Temperature of the customised policy.
        epsilon_initial: Probability of a uniformly random action at the start of training; the policy is sampled
            otherwise. (A large one makes customization collapse where the prior's skill is needed to see anything.)
        **settings: Those of SoftQLearning, but for alpha.
    """

    explored = ("action", "prior_parameters")

    def __init__(
        self,
        prior: Prior,
        omega_prime: float | None = None,
        alpha_hat: float = 1.0,
        epsilon_initial: float = 0.1,
        **settings: Any,
    ) -> None:
        check_hyperparameters(locals())
        check_number("alpha_hat", alpha_hat)
        super().__init__(alpha=alpha_hat, epsilon_initial=epsilon_initial, **settings)
        self._prior = [prior]
        self.omega_prime = alpha_hat if omega_prime is None else omega_prime

    def make_policy(self, observation_space: gym.Space[Any], action_space: gym.Space[Any], task: str) -> SoftQPolicy:
        """The policy of Eq. 6."""
        self.prior.attach(observation_space, action_space)
        spaces = (observation_space, action_space)
        return SoftQPolicy(*spaces, self.hidden_sizes, self.alpha_hat, self.prior, self.omega_prime, task)

    def next_value(self, next_q: Tensor, minibatch: Minibatch) -> Tensor:
        """V_R(s′) (Eq. 8), with the prior's log-probabilities as they were kept in the replay buffer."""
        return functional.residual_value(next_q, minibatch.next_prior_parameters, self.omega_prime, self.alpha_hat)

    def ask_prior(self, observation: Tensor) -> dict[str, Tensor]:
        """The prior's log-probabilities, for acting and for the replay buffer; ``[N, A]``."""
        return {"prior_parameters": self.prior_parameters(observation)}
