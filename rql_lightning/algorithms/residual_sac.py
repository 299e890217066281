"""Residual soft actor-critic (section 3): soft actor-critic with the prior in its target and its actor's loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium as gym
import torch
from torch import Tensor, nn

from rql_lightning import functional
from rql_lightning.algorithms.base import Minibatch
from rql_lightning.algorithms.customization import CustomizesPrior
from rql_lightning.algorithms.hyperparameters import Temperature, check_hyperparameters
from rql_lightning.algorithms.sac import Sample, SoftActorCritic
from rql_lightning.errors import require
from rql_lightning.policies import SquashedGaussianPolicy
from rql_lightning.priors import Guard, Prior

if TYPE_CHECKING:
    pass


class ResidualSAC(CustomizesPrior, SoftActorCritic):
    """Customise a frozen prior to an add-on reward (Eq. 7, 9, 10), for bounded continuous actions.

    omega_prime = alpha_hat is KL-regularised reinforcement learning towards the prior; omega_prime = 0 forgets it.

    Args:
        prior: The frozen policy to customise.
        omega_prime: Weight ω′ = ωα of the prior's log-likelihood, >= 0: a large one stays close to the prior. null
            stands for alpha_hat, which must then be a number.
        alpha_hat: Temperature of the customised policy: a number, or 'auto' to keep its entropy at target_entropy.
        start_at_prior: Whether the actor starts with the prior's weights (of the same hidden_sizes) and the residual
            critics at 0.
        prior_frames: Number of frames at the start in which the prior acts; with data.warm_up_frames as many, the
            replay buffer is filled with them before the first update.
        omega_prime_warm_up_frames: Number of frames at the start in which omega_prime is multiplied by
            omega_prime_warm_up_factor.
        omega_prime_warm_up_factor: Factor of omega_prime during the first omega_prime_warm_up_frames frames.
        prior_min_scale: Floor of a Gaussian prior's scale before tanh, which collapses away from the prior's data; 0
            for no floor.
        prior_log_prob_min: Log-density (< 0) below which the prior's is bent so that it stays above twice as much; null
            for no bound.
        **settings: Those of SoftActorCritic, but for alpha and start_at.
    """

    def __init__(
        self,
        prior: Prior,
        omega_prime: float | None = None,
        alpha_hat: Temperature = 1.0,
        start_at_prior: bool = False,
        prior_frames: int = 0,
        omega_prime_warm_up_frames: int = 0,
        omega_prime_warm_up_factor: float = 10.0,
        prior_min_scale: float = 0.01,
        prior_log_prob_min: float | None = -100.0,
        **settings: Any,
    ) -> None:
        check_hyperparameters(locals())
        unset = omega_prime is None and alpha_hat == "auto"
        expected = "a number >= 0: with model.alpha_hat auto there is no temperature to take in its place"
        require(not unset, "model.omega_prime", omega_prime, expected)
        super().__init__(alpha=alpha_hat, start_at=None, **settings)
        self._prior = [prior]
        self.start_at_prior, self.prior_frames = start_at_prior, prior_frames
        self.guard = Guard(prior_min_scale, prior_log_prob_min)
        self.omega_prime = float(alpha_hat if omega_prime is None else omega_prime)
        self.omega_prime_warm_up_frames = omega_prime_warm_up_frames
        self.omega_prime_warm_up_factor = omega_prime_warm_up_factor

    @property
    def omega_prime_now(self) -> float:
        """ω′ at the frames collected so far."""
        warm = self.data.frames < self.omega_prime_warm_up_frames
        return self.omega_prime * (self.omega_prime_warm_up_factor if warm else 1.0)

    def weighted_prior(self, parameters: Tensor | None, pre_tanh: Tensor) -> Tensor | float:
        """ω′ log π(tanh u|s), ``[...]``; 0 where the prior is forgotten."""
        weight = self.omega_prime_now
        forgotten = not isinstance(weight, Tensor) and weight == 0
        return functional.weighted_log_prob(None if forgotten else self.prior_log_prob(parameters, pre_tanh), weight)

    def next_value(self, minibatch: Minibatch, next_q: Tensor, sample: Sample, alpha_hat: Tensor) -> Tensor:
        """The bracket of Eq. 9."""
        weighted = self.weighted_prior(minibatch.next_prior_parameters, sample.pre_tanh)
        return functional.actor_critic_value(next_q, sample.log_prob, alpha_hat, weighted)

    def actor_loss(self, minibatch: Minibatch, q: Tensor, sample: Sample, alpha_hat: Tensor) -> Tensor:
        """Eq. 10."""
        weighted = self.weighted_prior(minibatch.prior_parameters, sample.pre_tanh)
        return functional.actor_loss(sample.log_prob, q, alpha_hat, weighted)

    def make_policy(
        self, observation_space: gym.Space[Any], action_space: gym.Space[Any], task: str
    ) -> SquashedGaussianPolicy:
        """An actor beside the prior that it customises, at first equal to it if asked for."""
        self.prior.attach(observation_space, action_space)
        policy = super().make_policy(observation_space, action_space, task)
        policy.prior = self.prior
        expected = "0: the prior is not of a family that can be sampled with exploration's noise"
        explorable = self.prior_frames == 0 or self.prior.family.explorable
        require(explorable, "model.prior_frames", self.prior_frames, expected)
        return policy

    def initialize(self) -> None:
        """With ``start_at_prior``: the actor has the prior's weights, and Q_R is 0. At ω′ = α̂ that is π̂ = π."""
        if not self.start_at_prior:
            return
        self.policy.start_at(getattr(self.prior, "policy", self.prior), "model.start_at_prior: found True")
        for parameter in (self.critic.weights[-1], self.critic.biases[-1]):
            nn.init.zeros_(parameter)

    def prior_log_prob(self, parameters: Tensor | None, pre_tanh: Tensor) -> Tensor:
        """Log π(tanh u|s), ``[...]``, guarded.

        Args:
            parameters: As they were kept in the replay buffer, ``[..., P]``.
            pre_tanh: u, ``[..., A]``.
        """
        assert parameters is not None
        return self.guard.log_prob(self.prior.family, parameters, pre_tanh)

    def diagnostics(self, minibatch: Minibatch, sample: Sample) -> dict[str, Tensor]:
        """What the prior thinks of the policy, and how often floor and bound had to step in."""
        assert minibatch.prior_parameters is not None
        return self.guard.diagnostics(self.prior.family, minibatch.prior_parameters, sample.pre_tanh)

    def probe(self, observation: Tensor) -> None:
        """Try the prior, and its density."""
        super().probe(observation)
        pre_tanh = torch.zeros(len(observation), self.policy.bounds.size, device=self.device)
        self.prior.family.pre_tanh_log_prob(self.prior_parameters(observation).to(self.device), pre_tanh)

    def prior_parameters(self, observation: Tensor) -> Tensor:
        """The prior's law at observations ``[..., *observation_shape]``, its scale with the floor; ``[..., P]``."""
        return self.guard.floored(self.prior.family, super().prior_parameters(observation))

    @torch.no_grad()
    def explore(self, observation: Tensor) -> dict[str, Tensor]:
        """A sample of the prior for the first ``prior_frames`` frames, of the policy from then on."""
        return self.explore_with(self.prior if self.data.frames < self.prior_frames else self.policy, observation)
