"""Residual soft actor-critic (section 3): soft actor-critic with the prior in the target and in the actor's loss."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import torch
from torch import Tensor, nn

from rql_lightning import functional
from rql_lightning.algorithms.base import Minibatch
from rql_lightning.algorithms.customization import CustomizesPrior
from rql_lightning.algorithms.hyperparameters import Temperature, check_hyperparameters
from rql_lightning.algorithms.sac import SoftActorCritic
from rql_lightning.algorithms.sac_terms import Coefficients, Sample
from rql_lightning.errors import require
from rql_lightning.policies import SquashedGaussianPolicy
from rql_lightning.priors import Guard, Prior


class ResidualSAC(CustomizesPrior, SoftActorCritic):
    """Customise a frozen prior to an add-on reward (Eq. 7, 9, 10), for bounded continuous actions.

    With omega_prime = alpha_hat this is KL-regularised reinforcement learning towards the prior; with omega_prime = 0
    the prior is ignored.

    Args:
        prior: Frozen policy to customise.
        omega_prime: Weight ω′ = ωα of the prior's log-likelihood, >= 0; a larger weight keeps the policy closer to the
            prior. null stands for the temperature that the prior was trained at, if its file has it, else alpha_hat,
            which must then be a number.
        alpha_hat: Temperature of the customised policy: a number, or 'auto' to keep its entropy at target_entropy.
        start_at_prior: Whether the actor starts from the prior's weights (which requires a checkpoint, or a model of
            Stable-Baselines3's SAC or TQC, with equal hidden_sizes and goal_scales) and the residual critics start at
            0.
        prior_frames: Number of frames at the start of training in which the prior acts; set data.warm_up_frames to the
            same number to fill the replay buffer with them before the first update.
        omega_prime_warm_up_frames: Number of frames at the start of training in which omega_prime is multiplied by
            omega_prime_warm_up_factor.
        omega_prime_warm_up_factor: Factor of omega_prime during the first omega_prime_warm_up_frames frames.
        prior_min_scale: Lower bound of a Gaussian prior's scale before tanh, which may collapse far from the prior's
            training data; 0 for no bound.
        prior_log_prob_min: Log-density (< 0) below which the prior's log-density is compressed, so that it stays above
            2 * prior_log_prob_min; null for no bound.
        **settings: Arguments of SoftActorCritic except alpha and start_at.
    """

    closed_form: tuple[tuple[str, ...], ...] = (
        ("gradients", "losses", "sample"),
        ("critic_gradient", "critic_loss"),
        ("coefficients", "next_value", "actor_loss", "weighted_prior"),
        ("prior_log_prob_and_gradient", "prior_log_prob"),
    )

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
        super().__init__(alpha=alpha_hat, start_at=None, **settings)
        self._prior = [prior]
        weight = self.weight_of(omega_prime, alpha_hat)
        expected = "a number >= 0: neither the prior's file nor model.alpha_hat auto has a fixed temperature"
        require(weight != "auto", "model.omega_prime", omega_prime, expected)
        self.start_at_prior, self.prior_frames = start_at_prior, prior_frames
        self.guard = Guard(prior_min_scale, prior_log_prob_min)
        self.annotation = {"prior_min_scale": prior_min_scale}
        self.omega_prime = float(weight)
        self.omega_prime_warm_up_frames = omega_prime_warm_up_frames
        self.omega_prime_warm_up_factor = omega_prime_warm_up_factor

    @property
    def omega_prime_now(self) -> functional.Weight:
        """Current ω′, which depends on the number of frames collected so far; an override may return a tensor."""
        warm = self.data.frames < self.omega_prime_warm_up_frames
        return self.omega_prime * (self.omega_prime_warm_up_factor if warm else 1.0)

    def weighted_prior(self, parameters: Tensor | None, pre_tanh: Tensor) -> Tensor | float:
        """Return ω′ log π(tanh u|s), ``[...]``, or 0 if ω′ is the number 0."""
        weight = self.omega_prime_now
        forgotten = not isinstance(weight, Tensor) and weight == 0
        return functional.weighted_log_prob(None if forgotten else self.prior_log_prob(parameters, pre_tanh), weight)

    def next_value(self, minibatch: Minibatch, next_q: Tensor, sample: Sample, alpha_hat: Tensor) -> Tensor:
        """Return the bracket of Eq. 9, ``[B]``."""
        weighted = self.weighted_prior(minibatch.next_prior_parameters, sample.pre_tanh)
        return functional.actor_critic_value(next_q, sample.log_prob, alpha_hat, weighted)

    def actor_loss(self, minibatch: Minibatch, q: Tensor, sample: Sample, alpha_hat: Tensor) -> Tensor:
        """Return the loss of Eq. 10, scalar."""
        weighted = self.weighted_prior(minibatch.prior_parameters, sample.pre_tanh)
        return functional.actor_loss(sample.log_prob, q, alpha_hat, weighted)

    def coefficients(self, alpha_hat: Tensor) -> Coefficients:
        """Return those of Eq. 9 and 10."""
        weight = self.omega_prime_now
        return Coefficients(alpha_hat, target_prior=weight, actor_prior=weight)

    def prior_log_prob_and_gradient(
        self, parameters: Tensor | None, squashed: functional.Squashed
    ) -> tuple[Tensor, Tensor]:
        """Return the bounded log π(tanh u|s), ``[...]``, and its gradient with respect to u, ``[..., A]``."""
        assert parameters is not None
        return self.guard.log_prob_and_gradient(self.prior.family, parameters, squashed)

    def make_policy(
        self, observation_space: gym.Space[Any], action_space: gym.Space[Any], task: str
    ) -> SquashedGaussianPolicy:
        """Build the actor that customises the prior.

        Raises:
            ConfigurationError: If ``prior_frames`` is set and the prior cannot explore.
        """
        self.prior.attach(observation_space, action_space)
        policy = super().make_policy(observation_space, action_space, task)
        policy.prior = self.prior
        expected = "0: the prior cannot be sampled with exploration noise"
        explorable = self.prior_frames == 0 or self.prior.family.explorable
        require(explorable, "model.prior_frames", self.prior_frames, expected)
        return policy

    def initialize(self) -> None:
        """Copy the prior's weights to the actor and set Q_R to 0 if ``start_at_prior``; at ω′ = α̂ then π̂ = π."""
        if not self.start_at_prior:
            return
        self.policy.start_at(self.prior.as_actor(), "model.start_at_prior: found True")
        for parameter in (self.critic.weights[-1], self.critic.biases[-1]):
            nn.init.zeros_(parameter)

    @property
    def started(self) -> bool:
        """Whether the actor starts with the prior's weights and statistics."""
        return self.start_at_prior

    def prior_log_prob(self, parameters: Tensor | None, pre_tanh: Tensor) -> Tensor:
        """Return log π(tanh u|s), ``[...]``, with the bound ``prior_log_prob_min``.

        Args:
            parameters: Distribution parameters of the prior from the replay buffer, ``[..., P]``.
            pre_tanh: Pre-tanh actions u, ``[..., A]``.
        """
        assert parameters is not None
        return self.guard.log_prob(self.prior.family, parameters, pre_tanh)

    def diagnostics(self, minibatch: Minibatch, sample: Sample) -> dict[str, Tensor]:
        """Return the prior's log-density of the policy's actions, and how often its floor and bound take effect."""
        assert minibatch.prior_parameters is not None
        return self.guard.diagnostics(self.prior.family, minibatch.prior_parameters, sample.pre_tanh)

    def probe(self, observation: Tensor) -> None:
        """Check the prior and its log-density at observations returned by the environment."""
        super().probe(observation)
        pre_tanh = torch.zeros(len(observation), self.policy.bounds.size, device=self.device)
        self.prior.family.pre_tanh_log_prob(self.prior_parameters(observation).to(self.device), pre_tanh)

    def prior_parameters(self, observation: Tensor) -> Tensor:
        """Return the prior's distribution parameters ``[..., P]``, with the lower bound ``prior_min_scale``."""
        return self.guard.floored(self.prior.family, super().prior_parameters(observation))

    @torch.no_grad()
    def explore(self, observation: Tensor) -> dict[str, Tensor]:
        """Sample actions from the prior during the first ``prior_frames`` frames, and from the policy afterwards."""
        return self.explore_with(self.prior if self.data.frames < self.prior_frames else self.policy, observation)
