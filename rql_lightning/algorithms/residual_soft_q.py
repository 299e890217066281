"""Residual soft Q-learning (section 3): soft Q-learning with another target and another policy, nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium as gym
import torch
from torch import Tensor

from rql_lightning import functional
from rql_lightning.algorithms.base import Schedule, check_hyperparameters
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
        hidden_sizes: Width of each hidden layer of the residual Q-network.
        gamma: Discount, in [0, 1].
        learning_rate: Adam's, at the start.
        learning_rate_schedule: 'linear' lets the learning rate fall to 0 at the end of the budget.
        tau: How far the target network moves towards the Q-network at each of its updates; 1 copies it.
        target_update_interval: Updates between two updates of the target network.
        huber_delta: Where the loss turns from square to linear; null for squares throughout.
        max_grad_norm: Gradients are clipped to this norm; null for no clipping.
        epsilon_initial: Probability of a uniformly random action at the start; otherwise the policy is sampled.
        epsilon_final: That probability from epsilon_fraction of the budget on.
        epsilon_fraction: Part of the budget over which that probability falls.
    """

    allowed_rewards = ("add_on",)

    def __init__(
        self,
        prior: Prior,
        omega_prime: float = 1.0,
        alpha_hat: float = 1.0,
        hidden_sizes: list[int] = [64, 64],  # noqa: B006 (shown by --help; never mutated)
        gamma: float = 0.99,
        learning_rate: float = 2.3e-3,
        learning_rate_schedule: Schedule = "linear",
        tau: float = 1.0,
        target_update_interval: int = 64,
        huber_delta: float | None = 1.0,
        max_grad_norm: float | None = 10.0,
        epsilon_initial: float = 1.0,
        epsilon_final: float = 0.04,
        epsilon_fraction: float = 0.16,
    ) -> None:
        check_hyperparameters(locals())
        super().__init__(
            hidden_sizes=hidden_sizes,
            alpha=alpha_hat,
            gamma=gamma,
            learning_rate=learning_rate,
            learning_rate_schedule=learning_rate_schedule,
            tau=tau,
            target_update_interval=target_update_interval,
            huber_delta=huber_delta,
            max_grad_norm=max_grad_norm,
            epsilon_initial=epsilon_initial,
            epsilon_final=epsilon_final,
            epsilon_fraction=epsilon_fraction,
        )
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
