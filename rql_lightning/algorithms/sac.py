"""Soft actor-critic (Haarnoja et al. 2018): the RL prior, and the full policy on the total reward."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import torch
from torch import Tensor, nn

from rql_lightning import functional
from rql_lightning.algorithms.base import Algorithm, Minibatch
from rql_lightning.algorithms.hyperparameters import Schedule, Temperature, check_hyperparameters
from rql_lightning.algorithms.optimization import VectorOptimizer, share_memory
from rql_lightning.errors import require
from rql_lightning.exploration import CorrelatedNoise
from rql_lightning.loading import load_policy
from rql_lightning.networks import TwinCritic
from rql_lightning.policies import Encoder, Policy, SquashedGaussianPolicy
from rql_lightning.spaces import check_continuous

if TYPE_CHECKING:
    from tensordict import TensorDictBase


@dataclass(frozen=True)
class Sample:
    """a ~ π̂(·|s).

    Attributes:
        pre_tanh: u, ``[B, A]``.
        action: tanh(u), ``[B, A]``.
        log_prob: log π̂(a|s), ``[B]``.
    """

    pre_tanh: Tensor
    action: Tensor
    log_prob: Tensor


class SoftActorCritic(Algorithm):
    """Learn a maximum-entropy policy of the environment's reward over bounded continuous actions.

    Args:
        hidden_sizes: Width of each hidden layer of the actor and of each of the twin critics.
        alpha: Temperature: a number, or 'auto' to keep the policy's entropy at target_entropy.
        initial_alpha: Initial value of an automatic temperature.
        target_entropy: Entropy that an automatic temperature aims at, in nats, of actions in the coordinate [-1, 1];
            null for minus the number of action dimensions.
        goal_scales: For observations that begin with a goal and what is achieved of it, such as Parking's: one scale
            per number of the goal; the networks also see asinh(scale * (achieved - goal)). null for none.
        gamma: Discount factor, in [0, 1].
        learning_rate: Learning rate of Adam at the start, for actor, critics and automatic temperature.
        learning_rate_schedule: Learning rate over the budget: 'constant', or 'linear' to let it fall to 0 at the end.
        tau: Step of the target critics towards the critics at each update.
        layer_norm: Whether the critics' hidden layers are normalised, which keeps them from extrapolating.
        max_grad_norm: Norm to which the gradients of critics, actor and temperature are each clipped; null for no
            clipping.
        noise_correlation: Correlation time, in environment steps, of the noise that exploration samples actions with; 0
            for white noise.
        start_at: Checkpoint, or name of a shipped one, of an actor of the same sizes whose weights the actor starts
            with; null for random weights.
        critic_warm_up_updates: Number of updates at the start in which the critics learn and the actor stands still.
    """

    policy: SquashedGaussianPolicy
    log_alpha: Tensor
    explored = ("action", "pre_tanh")

    def __init__(
        self,
        hidden_sizes: list[int] = [64, 64],  # noqa: B006 (shown by --help; never mutated)
        goal_scales: list[float] | None = None,
        alpha: Temperature = "auto",
        initial_alpha: float = 1.0,
        target_entropy: float | None = None,
        gamma: float = 0.99,
        learning_rate: float = 3e-4,
        learning_rate_schedule: Schedule = "constant",
        tau: float = 0.005,
        layer_norm: bool = False,
        max_grad_norm: float | None = None,
        noise_correlation: float = 0.0,
        start_at: str | None = None,
        critic_warm_up_updates: int = 0,
    ) -> None:
        check_hyperparameters(locals())
        super().__init__()
        self.start_at, self.critic_warm_up_updates = start_at, critic_warm_up_updates
        self.hidden_sizes, self.goal_scales = list(hidden_sizes), goal_scales
        self.alpha, self.initial_alpha = alpha, initial_alpha
        self.target_entropy, self.gamma, self.tau = target_entropy, gamma, tau
        self.learning_rate, self.learning_rate_schedule = learning_rate, learning_rate_schedule
        self.layer_norm, self.max_grad_norm = layer_norm, max_grad_norm
        self.noise = CorrelatedNoise(noise_correlation)

    # -- what residual algorithms and ablations override -------------------------------------------------------------

    def make_policy(
        self, observation_space: gym.Space[Any], action_space: gym.Space[Any], task: str
    ) -> SquashedGaussianPolicy:
        """The actor."""
        encoder = Encoder.scaled_of(observation_space, self.goal_scales)
        return SquashedGaussianPolicy(observation_space, action_space, self.hidden_sizes, encoder, task=task)

    def next_value(self, minibatch: Minibatch, next_q: Tensor, sample: Sample, alpha_hat: Tensor) -> Tensor:
        """V(s′), ``[B]``: the smaller target critic at a′ ~ π̂(·|s′), and the entropy of a′."""
        return functional.actor_critic_value(next_q, sample.log_prob, alpha_hat)

    def actor_loss(self, minibatch: Minibatch, q: Tensor, sample: Sample, alpha_hat: Tensor) -> Tensor:
        """Eq. 10 without a prior; scalar."""
        return functional.actor_loss(sample.log_prob, q, alpha_hat)

    # ----------------------------------------------------------------------------------------------------------------

    def build(self, observation_space: gym.Space[Any], action_space: gym.Space[Any], task: str) -> None:
        """Allocate actor, twin critics, their targets and the automatic temperature."""
        check_continuous(observation_space, action_space)
        self.policy = self.make_policy(observation_space, action_space, task)
        size, actions = self.policy.encoder.size, self.policy.bounds.size
        self.critic, self.target_critic = (
            TwinCritic(size + actions, self.hidden_sizes, self.layer_norm) for _ in range(2)
        )
        self.initialize()
        self.target_critic.load_state_dict(self.critic.state_dict())
        self.target_critic.requires_grad_(False)
        initial = self.initial_alpha if self.alpha == "auto" else self.alpha
        log_alpha = torch.tensor(math.log(initial))
        if self.alpha == "auto":
            self.log_alpha = nn.Parameter(log_alpha)
        else:  # the config's number, whatever a checkpoint was trained with
            self.register_buffer("log_alpha", log_alpha, persistent=False)
        self.entropy_goal = -float(actions) if self.target_entropy is None else self.target_entropy
        most = actions * math.log(2.0)  # of the uniform policy on [−1, 1]^A
        expected = f"less than {most:.3f} nats, the most that {actions} action dimensions can have"
        require(self.entropy_goal < most, "model.target_entropy", self.target_entropy, expected)

    def initialize(self) -> None:
        """Where actor and critics start, if not at random."""
        if self.start_at is not None:
            self.policy.start_at(load_policy(self.start_at), f"model.start_at: found {self.start_at!r}")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """One Adam on critics, actor, and the temperature if it is automatic."""
        groups: list[list[Tensor]] = [list(self.critic.parameters()), list(self.policy.network.parameters())]
        groups += [[self.log_alpha]] if self.alpha == "auto" else []
        self._critic_parameters, self._learnt = groups[0], [parameter for group in groups for parameter in group]
        optimizer = VectorOptimizer(groups, self.learning_rate, self.learning_rate_schedule, self.max_grad_norm)
        self._target_vector = share_memory(list(self.target_critic.parameters())).detach()
        self._critic_vector = optimizer.vectors[0].detach()
        return optimizer

    def update(self, batch: TensorDictBase) -> dict[str, float]:
        """K updates of critics, actor and temperature, each from the parameters before it (``[K, B]``)."""
        optimizer = self.main_optimizer
        noise = torch.randn(2, *batch["action"].shape, device=self.device).unbind(1)
        history: list[dict[str, Tensor]] = []
        minibatches = self.minibatches(batch).split()
        for index, (minibatch, (own, following)) in enumerate(zip(minibatches, noise, strict=True), start=1):
            losses, sample, diagnostics = self.losses(minibatch, own, following)
            last = index == len(minibatches)
            if self.updates < self.critic_warm_up_updates:
                self.descend(losses["critic"], self._critic_parameters, optimizer, last)
            else:
                critic_loss, *others = losses.values()
                self.descend(sum(others, critic_loss), self._learnt, optimizer, last)
            self.updates += 1
            self._target_vector.lerp_(self._critic_vector, self.tau)
            history.append(diagnostics)
        means = {key: torch.stack([row[key] for row in history]).mean().item() for key in history[0]}
        means |= {key: value.mean().item() for key, value in self.diagnostics(minibatches[-1], sample).items()}
        return {**means, "learning_rate": optimizer.param_groups[0]["lr"]}

    def losses(
        self, minibatch: Minibatch, noise: Tensor, next_noise: Tensor
    ) -> tuple[dict[str, Tensor], Sample, dict[str, Tensor]]:
        """The losses of critics, actor and automatic temperature, each with a gradient for its own parameters alone.

        Args:
            minibatch: ``[B]``.
            noise: Standard normal, ``[B, A]``: chooses a ~ π̂(·|s).
            next_noise: The same for a′ ~ π̂(·|s′).

        Returns:
            The losses by name, scalars: ``critic``, ``actor`` and, if the temperature is automatic, ``alpha``; the
            actions chosen at s; and what is worth logging, without gradient, of any shape.
        """
        alpha_hat = self.log_alpha.detach().exp()
        with torch.no_grad():
            following = self.sample(minibatch.next_observation, next_noise)
            next_q = self.target_critic(minibatch.next_observation, following.action).amin(dim=0)
            v_next = self.next_value(minibatch, next_q, following, alpha_hat)
            q_target = functional.residual_target(minibatch.reward, minibatch.terminated, v_next, self.gamma)
        q_taken = self.critic(minibatch.observation, minibatch.action)
        critic_loss = 2.0 * functional.td_loss(q_taken, q_target.expand_as(q_taken))  # the sum of both critics' Eq. 7
        sample = self.sample(minibatch.observation, noise)
        q = self.critic(minibatch.observation, sample.action, frozen=True).amin(dim=0)
        losses = {"critic": critic_loss, "actor": self.actor_loss(minibatch, q, sample, alpha_hat)}
        if self.alpha == "auto":
            losses["alpha"] = functional.temperature_loss(self.log_alpha, sample.log_prob, self.entropy_goal)
        diagnostics = {"critic_loss": critic_loss.detach(), "actor_loss": losses["actor"].detach(), "alpha": alpha_hat}
        diagnostics |= {"q_mean": q_taken.detach(), "log_prob": sample.log_prob.detach()}
        return losses, sample, diagnostics

    def diagnostics(self, minibatch: Minibatch, sample: Sample) -> dict[str, Tensor]:
        """More that is worth logging of the last minibatch, without gradient; each is averaged over its elements."""
        return {}

    def sample(self, observation: Tensor, noise: Tensor) -> Sample:
        """A ~ π̂(·|s) at observations ``[B, D]``, reparameterised by standard normal noise ``[B, A]``."""
        location, log_scale = self.policy.location_and_log_scale(observation)
        pre_tanh = torch.addcmul(location, log_scale.exp(), noise)
        log_prob = functional.reparameterised_log_prob(noise, pre_tanh, log_scale)
        return Sample(pre_tanh, torch.tanh(pre_tanh), log_prob)

    # -- data --------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def explore(self, observation: Tensor) -> dict[str, Tensor]:
        """A sample of the policy, ``[N, *action_shape]``, and its pre-tanh action, ``[N, A]``."""
        return self.explore_with(self.policy, observation)

    def explore_with(self, policy: Policy, observation: Tensor) -> dict[str, Tensor]:
        """The same with the exploration noise of any policy whose family is explorable."""
        parameters = policy.distribution_parameters(observation)
        self.noise.state = self.noise_state
        shape = torch.Size([len(observation), self.policy.bounds.size])
        noise = self.noise.sample(shape, parameters.device)
        self.noise_state = self.noise.state
        pre_tanh = policy.family.from_noise(parameters, noise)
        return {"action": self.policy.bounds.to_environment(torch.tanh(pre_tanh)), "pre_tanh": pre_tanh}

    def annotate(self, frames: TensorDictBase) -> TensorDictBase:
        """From here on actions are in the coordinate [−1, 1]."""
        frames["action"] = torch.tanh(frames["pre_tanh"])
        return frames
