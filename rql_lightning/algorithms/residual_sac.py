"""Residual soft actor-critic (section 3): soft actor-critic with the prior in its target and its actor's loss."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import torch
from torch import Tensor, nn

from rql_lightning import functional
from rql_lightning.algorithms.base import Schedule, check_hyperparameters
from rql_lightning.algorithms.sac import Minibatch, Sample, SoftActorCritic, Temperature
from rql_lightning.errors import require
from rql_lightning.policies import SquashedGaussianPolicy
from rql_lightning.priors import Prior

if TYPE_CHECKING:
    from tensordict import TensorDictBase


class ResidualSAC(SoftActorCritic):
    """Customise a frozen prior to an add-on reward (Eq. 7, 9, 10), for bounded continuous actions.

    omega_prime = alpha_hat is KL-regularised reinforcement learning towards the prior; omega_prime = 0 forgets it.

    Args:
        prior: The frozen policy to customise.
        omega_prime: ω′ = ωα: the weight of the prior's log-likelihood. Large stays close to the prior. null stands for
            alpha_hat, if that is a number.
        alpha_hat: Temperature of the customised policy: a number, or 'auto' to keep its entropy at target_entropy.
        initial_alpha: Where an automatic temperature starts.
        target_entropy: In nats, of actions in the coordinate [-1, 1]; null for minus the number of action dimensions.
        hidden_sizes: Width of each hidden layer of the actor and of each of the twin residual critics.
        goal_scales: For observations that begin with a goal and what is achieved of it, such as Parking's: the networks
            are given asinh(scale * (achieved - goal)) as well; one scale a number; null for none of that.
        gamma: Discount, in [0, 1].
        learning_rate: Adam's, at the start, of actor, critics and automatic temperature.
        learning_rate_schedule: 'linear' lets the learning rate fall to 0 at the end of the budget.
        tau: How far the target critics move towards the critics at each update.
        layer_norm: Whether the critics' hidden layers are normalised, which keeps them from extrapolating.
        max_grad_norm: Gradients of critics, actor and temperature are each clipped to this norm; null for no clipping.
        noise_correlation: Correlation time, in steps, of the noise that exploration samples actions with; 0 for white
            noise.
        start_at_prior: Whether the actor starts with the prior's weights (of the same hidden_sizes) and the residual
            critics at 0.
        prior_frames: The first so many frames are the prior's own; with data.warm_up_frames as many, the replay
            buffer is filled with them before the first update.
        critic_warm_up_updates: For the first so many updates the critics learn alone, and the actor stands still.
        omega_prime_warm_up_frames: For the first so many frames omega_prime is multiplied by the factor below.
        omega_prime_warm_up_factor: See above.
        prior_min_scale: Floor of a Gaussian prior's scale before tanh: it collapses away from its data. 0 for none.
        prior_log_prob_min: Below this log-density (< 0) the prior's is bent to stay above twice as much; null for no
            bound.
    """

    allowed_rewards = ("add_on",)

    def __init__(
        self,
        prior: Prior,
        omega_prime: float | None = None,
        alpha_hat: Temperature = 0.1,
        initial_alpha: float = 1.0,
        target_entropy: float | None = None,
        hidden_sizes: list[int] = [64, 64],  # noqa: B006 (shown by --help; never mutated)
        goal_scales: list[float] | None = None,
        gamma: float = 0.99,
        learning_rate: float = 3e-4,
        learning_rate_schedule: Schedule = "constant",
        tau: float = 0.005,
        layer_norm: bool = False,
        max_grad_norm: float | None = None,
        noise_correlation: float = 0.0,
        start_at_prior: bool = False,
        prior_frames: int = 0,
        critic_warm_up_updates: int = 0,
        omega_prime_warm_up_frames: int = 0,
        omega_prime_warm_up_factor: float = 10.0,
        prior_min_scale: float = 0.01,
        prior_log_prob_min: float | None = -100.0,
    ) -> None:
        check_hyperparameters(locals())
        unset = omega_prime is None and alpha_hat == "auto"
        expected = "a number >= 0: with model.alpha_hat auto there is no temperature to take in its place"
        require(not unset, "model.omega_prime", omega_prime, expected)
        super().__init__(
            hidden_sizes=hidden_sizes,
            goal_scales=goal_scales,
            alpha=alpha_hat,
            initial_alpha=initial_alpha,
            target_entropy=target_entropy,
            gamma=gamma,
            learning_rate=learning_rate,
            learning_rate_schedule=learning_rate_schedule,
            tau=tau,
            layer_norm=layer_norm,
            max_grad_norm=max_grad_norm,
            noise_correlation=noise_correlation,
            critic_warm_up_updates=critic_warm_up_updates,
        )
        self._prior = [prior]  # in a list: it becomes a submodule as part of the policy, not twice
        self.start_at_prior, self.prior_frames = start_at_prior, prior_frames
        self.prior_min_scale, self.prior_log_prob_min = prior_min_scale, prior_log_prob_min
        self.omega_prime = float(alpha_hat if omega_prime is None else omega_prime)
        self.omega_prime_warm_up_frames = omega_prime_warm_up_frames
        self.omega_prime_warm_up_factor = omega_prime_warm_up_factor

    @property
    def omega_prime_now(self) -> float:
        """ω′ at the frames collected so far."""
        warm = self.data.frames < self.omega_prime_warm_up_frames
        return self.omega_prime * (self.omega_prime_warm_up_factor if warm else 1.0)

    def weighted_prior(self, parameters: Tensor | None, pre_tanh: Tensor) -> Tensor | float:
        """ω′ log π(tanh u|s), ``[B]``; 0 where the prior is forgotten."""
        weight = self.omega_prime_now
        return weight * self.prior_log_prob(parameters, pre_tanh) if weight > 0 else 0.0

    def next_value(self, minibatch: Minibatch, next_q: Tensor, sample: Sample, alpha_hat: Tensor) -> Tensor:
        """The bracket of Eq. 9."""
        weighted = self.weighted_prior(minibatch.next_prior_parameters, sample.pre_tanh)
        return functional.actor_critic_value(next_q, sample.log_prob, alpha_hat, weighted)

    def actor_loss(self, minibatch: Minibatch, q: Tensor, sample: Sample, alpha_hat: Tensor) -> Tensor:
        """Eq. 10."""
        weighted = self.weighted_prior(minibatch.prior_parameters, sample.pre_tanh)
        return functional.actor_loss(sample.log_prob, q, alpha_hat, weighted)

    def _why(self, expected: str) -> str:
        return f"{expected}: who customises a prior must never see the basic reward"

    def make_policy(
        self, observation_space: gym.Space[Any], action_space: gym.Space[Any], task: str
    ) -> SquashedGaussianPolicy:
        """An actor beside the prior that it customises, at first equal to it if asked for."""
        prior = self._prior[0]
        prior.attach(observation_space, action_space)
        policy = SquashedGaussianPolicy(
            observation_space, action_space, self.hidden_sizes, self.goal_scales, prior, task
        )
        expected = "0: only a squashed Gaussian can be sampled with exploration's noise"
        require(self.prior_frames == 0 or prior.gaussian, "model.prior_frames", self.prior_frames, expected)
        return policy

    def initialize(self) -> None:
        """With ``start_at_prior``: the actor has the prior's weights, and Q_R is 0. At ω′ = α̂ that is π̂ = π."""
        if not self.start_at_prior:
            return
        self.start_actor_at(getattr(self._prior[0], "policy", self._prior[0]), "start_at_prior", True)
        for parameter in (self.critic.weights[-1], self.critic.biases[-1]):
            nn.init.zeros_(parameter)

    def prior_log_prob(self, parameters: Tensor | None, pre_tanh: Tensor) -> Tensor:
        """Log π(tanh u|s), ``[B]``, with the scale's floor and the bound from below.

        Args:
            parameters: As they were kept in the replay buffer, ``[B, P]``.
            pre_tanh: u, ``[B, A]``.
        """
        assert parameters is not None
        return self.bounded(self._prior[0].pre_tanh_log_prob(parameters, pre_tanh))

    def bounded(self, log_prob: Tensor) -> Tensor:
        """Log-densities ``[...]`` with the bound from below, if there is one."""
        return log_prob if self.prior_log_prob_min is None else bounded_below(log_prob, self.prior_log_prob_min)

    def diagnostics(self, minibatch: Minibatch, sample: Sample) -> dict[str, Tensor]:
        """What the prior thinks of the policy, and how often floor and bound had to step in."""
        parameters = minibatch.prior_parameters
        assert parameters is not None
        log_prob = self._prior[0].pre_tanh_log_prob(parameters, sample.pre_tanh.detach()).detach()
        result = {"prior_log_prob": log_prob}
        if self._prior[0].gaussian:
            floor = math.log(self.prior_min_scale) if self.prior_min_scale > 0 else -math.inf
            result["prior_scale_floored"] = (parameters.chunk(2, dim=-1)[1] <= floor).float()
        bound = -math.inf if self.prior_log_prob_min is None else self.prior_log_prob_min
        result["prior_log_prob_bounded"] = (log_prob < bound).float()
        return result

    @torch.no_grad()
    def annotate(self, frames: TensorDictBase) -> TensorDictBase:
        """Ask the prior once about each new state and its successor; its scale gets its floor here."""
        frames, prior = super().annotate(frames), self._prior[0]
        for place in (frames, frames["next"]):
            observation = place["observation"].to(self.device)
            parameters = prior.distribution_parameters(observation)
            if prior.gaussian and self.prior_min_scale > 0:
                location, log_scale = parameters.chunk(2, dim=-1)
                parameters = torch.cat([location, log_scale.clamp(min=math.log(self.prior_min_scale))], dim=-1)
            place["prior_parameters"] = parameters.to(place["observation"].device)
        return frames

    @torch.no_grad()
    def explore(self, observation: Tensor) -> dict[str, Tensor]:
        """A sample of the prior for the first ``prior_frames`` frames, of the policy from then on."""
        return self.explore_with(self._prior[0] if self.data.frames < self.prior_frames else self.policy, observation)


def bounded_below(log_prob: Tensor, bound: float) -> Tensor:
    """Log-densities that stay above 2 · ``bound``: themselves down to it, from there on ever flatter, never flat.

    A hard bound would leave an actor that has strayed without a gradient to come back by.

    Args:
        log_prob: ``[...]``.
        bound: A negative number.
    """
    excess = (bound - log_prob).clamp(min=0.0)
    return torch.where(log_prob < bound, bound * (1.0 + excess / (excess - bound)), log_prob)
