"""Soft actor-critic (Haarnoja et al. 2018), for RL priors and for policies of the total reward."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import torch
from torch import Tensor, nn

from rql_lightning import functional
from rql_lightning.algorithms import sac_gradients
from rql_lightning.algorithms.base import Algorithm, Minibatch
from rql_lightning.algorithms.hyperparameters import Schedule, Temperature, check_hyperparameters
from rql_lightning.algorithms.optimization import VectorOptimizer, share_memory
from rql_lightning.algorithms.sac_terms import Coefficients, Inputs, Sample, prepared, sampled
from rql_lightning.errors import require
from rql_lightning.exploration import CorrelatedNoise
from rql_lightning.loading import load_policy
from rql_lightning.networks import Perceptron, TwinCritic
from rql_lightning.policies import Encoder, Policy, SquashedGaussianPolicy
from rql_lightning.spaces import check_continuous

if TYPE_CHECKING:
    from tensordict import TensorDictBase


class SoftActorCritic(Algorithm):
    """Learn a maximum-entropy policy over bounded continuous actions from the environment's reward.

    Args:
        hidden_sizes: Width of each hidden layer of the actor and of each of the twin critics.
        alpha: Temperature: a number, or 'auto' to keep the policy's entropy at target_entropy.
        initial_alpha: Initial value of an automatic temperature.
        target_entropy: Target of the policy's entropy with an automatic temperature, in nats, for actions scaled to
            [-1, 1]; null for minus the number of action dimensions.
        goal_scales: One scale per number of the goal, for observations that start with the desired and the achieved
            goal, as in Parking; the networks also get asinh(scale * (achieved - desired)). null for no such inputs.
        gamma: Discount factor, in [0, 1].
        learning_rate: Initial learning rate of Adam, for the actor, the critics and an automatic temperature.
        learning_rate_schedule: Learning rate schedule: 'constant', or 'linear' to decrease it to 0 over the budget.
        tau: Interpolation factor of the target critics towards the critics at each update.
        layer_norm: Whether to use layer normalisation in the critics, which limits their extrapolation.
        max_grad_norm: Norm to which the gradients of the critics, the actor and the temperature are each clipped; null
            for no clipping.
        noise_correlation: Correlation time of the exploration noise, in environment steps; 0 for white noise.
        start_at: Checkpoint, or name of a shipped policy, from whose actor of the same architecture the weights are
            copied before training; null for random initial weights.
        critic_warm_up_updates: Number of updates at the start of training in which only the critics learn.
        normalize_observations: Whether numbers of an observation without finite bounds are normalised by running mean
            and variance over the collected frames, and clipped to [-10, 10]; those with bounds are scaled by them. An
            actor that starts at another one keeps the mean and variance of that one.
    """

    policy: SquashedGaussianPolicy
    log_alpha: Tensor
    explored = ("action", "pre_tanh")
    closed_form: tuple[tuple[str, ...], ...] = (
        ("gradients", "losses", "sample"),
        ("critic_gradient", "critic_loss"),
        ("coefficients", "next_value", "actor_loss"),
    )

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
        normalize_observations: bool = False,
    ) -> None:
        check_hyperparameters(locals())
        super().__init__()
        self.start_at, self.critic_warm_up_updates = start_at, critic_warm_up_updates
        self.hidden_sizes, self.goal_scales = list(hidden_sizes), goal_scales
        self.normalize_observations = normalize_observations
        self.alpha, self.initial_alpha = alpha, initial_alpha
        self.target_entropy, self.gamma, self.tau = target_entropy, gamma, tau
        self.learning_rate, self.learning_rate_schedule = learning_rate, learning_rate_schedule
        self.layer_norm, self.max_grad_norm = layer_norm, max_grad_norm
        self.noise = CorrelatedNoise(noise_correlation)

    # -- overridden by residual algorithms and ablations -------------------------------------------------------------

    def make_policy(
        self, observation_space: gym.Space[Any], action_space: gym.Space[Any], task: str
    ) -> SquashedGaussianPolicy:
        """Build the actor."""
        encoder = Encoder.scaled_of(observation_space, self.goal_scales, self.normalize_observations)
        return SquashedGaussianPolicy(observation_space, action_space, self.hidden_sizes, encoder, task=task)

    def next_value(self, minibatch: Minibatch, next_q: Tensor, sample: Sample, alpha_hat: Tensor) -> Tensor:
        """Return an estimate of V(s′), ``[B]``: the smaller target critic at a′ ~ π̂(·|s′) minus α̂ log π̂(a′|s′)."""
        return functional.actor_critic_value(next_q, sample.log_prob, alpha_hat)

    def critic_loss(self, minibatch: Minibatch, q_target: Tensor, sample: Sample) -> tuple[Tensor, Tensor]:
        """Return the sum of both critics' losses (Eq. 7), scalar, and their Q-values of the actions taken, ``[2, B]``.

        Args:
            minibatch: Transitions, ``[B]``.
            q_target: Targets of Eq. 8, ``[B]``, without gradient.
            sample: Actions sampled from the policy at the same states.
        """
        q_taken = self.critic(minibatch.observation, minibatch.action)
        return 2.0 * functional.td_loss(q_taken, q_target.expand_as(q_taken)), q_taken

    def critic_gradient(self, minibatch: Minibatch, q_target: Tensor, q_taken: Tensor) -> Tensor:
        """Return the gradient of :meth:`critic_loss` with respect to the Q-values of the actions taken, ``[2, B]``."""
        return (q_taken - q_target).mul_(1.0 / len(minibatch))  # twice that of the mean over both critics

    def actor_loss(self, minibatch: Minibatch, q: Tensor, sample: Sample, alpha_hat: Tensor) -> Tensor:
        """Return the loss of Eq. 10 without a prior, scalar."""
        return functional.actor_loss(sample.log_prob, q, alpha_hat)

    def coefficients(self, alpha_hat: Tensor) -> Coefficients:
        """Return the coefficients of :meth:`next_value` and :meth:`actor_loss`, which determine their gradients."""
        return Coefficients(alpha_hat, target_prior=0.0, actor_prior=0.0)

    def prior_log_prob_and_gradient(
        self, parameters: Tensor | None, squashed: functional.Squashed
    ) -> tuple[Tensor, Tensor]:
        """Return log π(tanh u|s), ``[...]``, and its gradient with respect to u, ``[..., A]``.

        It is asked for where one of the :meth:`coefficients` of the prior is not the number 0.

        Args:
            parameters: Distribution parameters of the prior from the replay buffer, ``[..., P]``.
            squashed: Actions tanh u, ``[..., A]``.
        """
        raise NotImplementedError

    # ----------------------------------------------------------------------------------------------------------------

    def build(self, observation_space: gym.Space[Any], action_space: gym.Space[Any], task: str) -> None:
        """Allocate the actor, twin critics, their targets and the temperature."""
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
        self.policy.temperature = initial
        self.entropy_goal = -float(actions) if self.target_entropy is None else self.target_entropy
        most = actions * math.log(2.0)  # the entropy of the uniform policy on [−1, 1]^A
        expected = f"less than {most:.3f} nats, the largest entropy of {actions} action dimensions in [-1, 1]"
        require(self.entropy_goal < most, "model.target_entropy", self.target_entropy, expected)

    def initialize(self) -> None:
        """Copy initial weights to the networks, if configured."""
        if self.start_at is not None:
            self.policy.start_at(load_policy(self.start_at), f"model.start_at: found {self.start_at!r}")

    @property
    def started(self) -> bool:
        """Whether the actor starts with weights and statistics of another one."""
        return self.start_at is not None

    def actor_parameters(self) -> list[Tensor]:
        """Return the actor's weights, without those of a prior."""
        return list(self.policy.network.parameters())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Create one Adam optimizer for the critics, the actor and an automatic temperature."""
        groups: list[list[Tensor]] = [list(self.critic.parameters()), self.actor_parameters()]
        groups += [[self.log_alpha]] if self.alpha == "auto" else []
        optimizer = VectorOptimizer(groups, self.learning_rate, self.learning_rate_schedule, self.max_grad_norm)
        self._target_vector = share_memory(list(self.target_critic.parameters())).detach()
        self._critic_vector = optimizer.vectors[0].detach()
        return optimizer

    def update(self, batch: TensorDictBase) -> dict[str, float]:
        """Make K updates of critics, actor and temperature on minibatches ``[K, B]``.

        In each update, all gradients are taken at the parameters before it.
        """
        optimizer, together = self.main_optimizer, self.minibatches(batch)
        rate = float(optimizer.param_groups[0]["lr"])
        noise = torch.randn(2, *together.action.shape, device=self.device).transpose(0, 1).contiguous()
        closed, split = self._runs_in_closed_form(), together.split()
        steps: list[Any] = prepared(together, noise) if closed else list(zip(split, noise, strict=True))
        differentiate: Callable[..., tuple[Sample, dict[str, Tensor]]]
        differentiate = self.gradients if closed else self.gradients_by_autograd
        history: list[dict[str, Tensor]] = []
        for index, inputs in enumerate(steps, start=1):
            sample, diagnostics = differentiate(inputs, optimizer, self.updates < self.critic_warm_up_updates)
            self.take_step(optimizer, last=index == len(steps))
            self.updates += 1
            self._target_vector.lerp_(self._critic_vector, self.tau)
            history.append(diagnostics)
        if self.alpha == "auto":
            self.policy.temperature = self.log_alpha.exp().item()
        columns = {key: torch.stack([row[key] for row in history]) for key in history[0]}
        means = sac_gradients.summarized(self, columns) if closed else columns
        means |= self.diagnostics(split[-1], sample[: len(split[-1])])
        return {**{key: value.mean().item() for key, value in means.items()}, "learning_rate": rate}

    def _runs_in_closed_form(self) -> bool:
        """Return whether losses, networks and the actor's distribution are those that gradients are written out for."""
        read = getattr(type(self.policy), "location_and_log_scale", None)
        plain = read is SquashedGaussianPolicy.location_and_log_scale
        groups = len(self.main_optimizer.optimizer.members) == 2 + (self.alpha == "auto")
        twins: list[Any] = [self.critic, self.target_critic]
        known = type(self.policy.network) is Perceptron and all(type(each) is TwinCritic for each in twins)
        networks: list[Any] = [*twins, self.policy.network]
        return self.has_closed_form and plain and groups and known and all(each.prepare() for each in networks)

    @torch.no_grad()
    def gradients(self, inputs: Inputs, optimizer: Any, warming_up: bool) -> tuple[Sample, dict[str, Tensor]]:
        """Compute the gradients of :meth:`losses` in closed form, and assign them to the optimizer.

        Args:
            inputs: Transitions and noise.
            optimizer: Lightning's wrapper of the optimizer.
            warming_up: Whether the critics alone learn.

        Returns:
            The actions sampled at s, followed by those at s′, and terms of metrics.
        """
        return sac_gradients.gradients(self, inputs, optimizer, warming_up)

    def gradients_by_autograd(
        self, inputs: tuple[Minibatch, Tensor], optimizer: Any, warming_up: bool
    ) -> tuple[Sample, dict[str, Tensor]]:
        """Compute the gradients of :meth:`losses`, and assign them to the optimizer.

        Args:
            inputs: Transitions, ``[B]``, and standard normal noise that determines a ~ π̂(·|s) and a′ ~ π̂(·|s′),
                ``[2, B, A]``.
            optimizer: Lightning's wrapper of the optimizer.
            warming_up: Whether the critics alone learn.

        Returns:
            The actions sampled at s, and metrics to log, of any shape and without gradient.
        """
        minibatch, noise = inputs
        losses, sample, diagnostics = self.losses(minibatch, *noise)
        members = optimizer.optimizer.members[:1] if warming_up else optimizer.optimizer.members
        loss = losses["critic"] if warming_up else torch.stack(list(losses.values())).sum()
        parameters = [parameter for group in members for parameter in group]
        optimizer.optimizer.differentiate(loss, parameters, self.average)
        return sample, diagnostics

    def losses(
        self, minibatch: Minibatch, noise: Tensor, next_noise: Tensor
    ) -> tuple[dict[str, Tensor], Sample, dict[str, Tensor]]:
        """Compute the losses of the critics, the actor and an automatic temperature.

        Each loss has a gradient with respect to its own parameters only.

        Args:
            minibatch: Transitions, ``[B]``.
            noise: Standard normal noise that determines a ~ π̂(·|s), ``[B, A]``.
            next_noise: Standard normal noise that determines a′ ~ π̂(·|s′), ``[B, A]``.

        Returns:
            The scalar losses by name (``critic``, ``actor`` and, if the temperature is automatic, ``alpha``); the
            actions sampled at s; and metrics to log, of any shape and without gradient.
        """
        alpha_hat = self.log_alpha.detach().exp()
        with torch.no_grad():
            following = self.sample(minibatch.next_observation, next_noise)
            next_q = self.target_critic(minibatch.next_observation, following.action).amin(dim=0)
            v_next = self.next_value(minibatch, next_q, following, alpha_hat)
            q_target = functional.residual_target(minibatch.reward, minibatch.terminated, v_next, self.gamma)
        sample = self.sample(minibatch.observation, noise)
        critic_loss, q_taken = self.critic_loss(minibatch, q_target, sample)
        q = self.critic(minibatch.observation, sample.action, frozen=True).amin(dim=0)
        losses = {"critic": critic_loss, "actor": self.actor_loss(minibatch, q, sample, alpha_hat)}
        if self.alpha == "auto":
            losses["alpha"] = functional.temperature_loss(self.log_alpha, sample.log_prob, self.entropy_goal)
        diagnostics = {"critic_loss": critic_loss.detach(), "actor_loss": losses["actor"].detach(), "alpha": alpha_hat}
        diagnostics |= {"q_mean": q_taken.detach(), "log_prob": sample.log_prob.detach()}
        return losses, sample, diagnostics

    def diagnostics(self, minibatch: Minibatch, sample: Sample) -> dict[str, Tensor]:
        """Return further metrics of the last minibatch, without gradient; each is averaged over its elements."""
        return {}

    def sample(self, observation: Tensor, noise: Tensor) -> Sample:
        """Sample a ~ π̂(·|s) at encoded observations ``[B, D]``, reparameterised by standard normal noise ``[B, A]``."""
        return sampled(*self.policy.location_and_log_scale(observation), noise)[0]

    # -- data --------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def explore(self, observation: Tensor) -> dict[str, Tensor]:
        """Sample actions ``[N, *action_shape]`` from the policy; also returns the pre-tanh actions ``[N, A]``."""
        return self.explore_with(self.policy, observation)

    def explore_with(self, policy: Policy, observation: Tensor) -> dict[str, Tensor]:
        """Sample actions with exploration noise from any policy whose family is ``explorable``; see :meth:`explore`."""
        parameters = policy.distribution_parameters(observation)
        self.noise.state = self.noise_state
        shape = torch.Size([len(observation), self.policy.bounds.size])
        noise = self.noise.sample(shape, parameters.device)
        self.noise_state = self.noise.state
        pre_tanh = policy.family.from_noise(parameters, noise)
        return {"action": self.policy.bounds.to_environment(torch.tanh(pre_tanh)), "pre_tanh": pre_tanh}

    def annotate(self, frames: TensorDictBase) -> TensorDictBase:
        """Replace the actions of frames ``[N, T]`` by actions in [−1, 1], and observe their observations.

        An actor that started at another keeps its statistics: they would change what it does under the same weights.
        """
        if not self.started:
            observation = self.policy.flatten(frames["observation"])
            self.policy.encoder.observe(observation, self.average, self.trainer.world_size)
        frames["action"] = torch.tanh(frames["pre_tanh"])
        return frames
