"""Residual soft Q-learning (section 3): soft Q-learning with another target and another policy, nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium as gym
import torch
from torch import Tensor

from rql_lightning import functional
from rql_lightning.algorithms.base import check_hyperparameters
from rql_lightning.algorithms.soft_q import SoftQLearning
from rql_lightning.policies import SoftQPolicy
from rql_lightning.priors import Prior

if TYPE_CHECKING:
    from tensordict import TensorDictBase


class ResidualSoftQLearning(SoftQLearning):
    """Customise a frozen prior to an add-on reward (Eq. 6, 7, 8), for discrete actions.

    omega_prime = alpha_hat is KL-regularised reinforcement learning towards the prior; omega_prime = 0 forgets it.

    Args:
        prior: The frozen policy to customise.
        omega_prime: ω′ = ωα: the weight of the prior's log-likelihood. Large stays close to the prior.
        alpha_hat: Temperature of the customised policy.
        **settings: The others of :class:`~rql_lightning.algorithms.SoftQLearning`: networks, discount, optimization,
            exploration.
    """

    allowed_rewards = ("add_on",)

    def __init__(
        self,
        prior: Prior,
        omega_prime: float = 1.0,
        alpha_hat: float = 1.0,
        **settings: Any,
    ) -> None:
        check_hyperparameters({"omega_prime": omega_prime, "alpha_hat": alpha_hat})
        super().__init__(alpha=alpha_hat, **settings)
        self.omega_prime = omega_prime
        self._prior = [prior]  # in a list: it becomes a submodule as part of the policy, not twice

    def _why(self, expected: str) -> str:
        return f"{expected}: a residual learner must never see the basic reward"

    def make_policy(self, observation_space: gym.Space[Any], action_space: gym.Space[Any], task: str) -> SoftQPolicy:
        """The policy of Eq. 6."""
        prior = self._prior[0]
        prior.attach(observation_space, action_space)
        return SoftQPolicy(
            observation_space, action_space, self.hidden_sizes, self.alpha_hat, prior, self.omega_prime, task
        )

    def next_value(self, next_q: Tensor, batch: TensorDictBase) -> Tensor:
        """V_R(s′) (Eq. 8), with the prior's log-probabilities as they were kept in the replay buffer."""
        return functional.residual_value(next_q, batch["next", "prior_parameters"], self.omega_prime, self.alpha_hat)

    @torch.no_grad()
    def annotate(self, frames: TensorDictBase) -> TensorDictBase:
        """Ask the prior once about each new state and its successor."""
        prior = self._prior[0]
        for place in (frames, frames["next"]):
            observation = place["observation"].to(self.device)
            place["prior_parameters"] = prior.distribution_parameters(observation).to(place["observation"].device)
        return frames
