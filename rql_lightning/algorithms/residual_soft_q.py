"""Residual soft Q-learning (section 3): soft Q-learning with a different target and a different policy."""

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

    With omega_prime = alpha_hat this is KL-regularised reinforcement learning towards the prior; with omega_prime = 0
    the prior is ignored.

    Args:
        prior: Frozen policy to customise.
        omega_prime: Weight ω′ = ωα of the prior's log-likelihood, >= 0; a larger weight keeps the policy closer to the
            prior. null stands for the temperature that the prior was trained at, if its file has it, else alpha_hat.
        alpha_hat: Temperature of the customised policy.
        epsilon_initial: Probability of a uniformly random action at the start of training; otherwise the policy is
            sampled. A large value lets customization fail in tasks whose relevant states only a skilled policy reaches.
        **settings: Arguments of SoftQLearning except alpha.
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
        self.omega_prime = float(self.weight_of(omega_prime, alpha_hat))

    def make_policy(self, observation_space: gym.Space[Any], action_space: gym.Space[Any], task: str) -> SoftQPolicy:
        """Build the policy of Eq. 6."""
        self.prior.attach(observation_space, action_space)
        spaces = (observation_space, action_space)
        return SoftQPolicy(*spaces, self.hidden_sizes, self.alpha_hat, self.prior, self.omega_prime, task)

    def next_value(self, next_q: Tensor, minibatch: Minibatch) -> Tensor:
        """Return V_R(s′) (Eq. 8), with the prior's log-probabilities from the replay buffer; ``[...]``."""
        return functional.residual_value(next_q, minibatch.next_prior_parameters, self.omega_prime, self.alpha_hat)

    def ask_prior(self, observation: Tensor) -> dict[str, Tensor]:
        """Return the prior's log-probabilities ``[N, A]``, for acting and for the replay buffer."""
        return {"prior_parameters": self.prior_parameters(observation)}
