"""Squashed Gaussian policies over bounded continuous actions: a = tanh(u), u ~ N(location, scale²)."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal, TanhTransform, TransformedDistribution

from rql_lightning import functional
from rql_lightning.errors import require
from rql_lightning.networks import mlp
from rql_lightning.policies.base import Policy
from rql_lightning.spaces import ActionBounds, check_continuous, observation_scale

LOG_SCALE_RANGE = (-5.0, 2.0)
DIVERGENCE_SAMPLES = 64
EDGE = 1.0 - 2.0**-24
"""The largest float32 below 1: an action given from outside that lies on the bound is taken to be this close to it."""


class ContinuousPolicy(Policy):
    """A policy with a density over bounded continuous actions, asked at the *pre-tanh* action u (``[..., A]``).

    Density and actions are in the coordinate [−1, 1]; only :meth:`mode`, :meth:`sample`, :meth:`act` and
    :meth:`log_prob` speak in the environment's units.
    """

    bounds: ActionBounds

    def pre_tanh_log_prob(self, parameters: Tensor, pre_tanh: Tensor) -> Tensor:
        """Log π(tanh u|s) in the coordinate [−1, 1], ``[...]``, differentiable in u.

        Args:
            parameters: :meth:`distribution_parameters` at s, ``[..., P]``.
            pre_tanh: u, ``[..., A]``; finite numbers of any size.
        """
        raise NotImplementedError

    def log_prob_of(self, observation: Tensor, action: Tensor) -> Tensor:
        """Density per unit of the environment's actions, at actions ``[..., *action_shape]`` in those units.

        An action on a bound, where the density of a squashed Gaussian is 0 or infinite, counts as the next float32.
        """
        unit = self.bounds.from_environment(action.to(torch.float32)).clamp(-EDGE, EDGE)
        parameters = self.distribution_parameters(observation)
        return self.pre_tanh_log_prob(parameters, torch.atanh(unit)) - self.bounds.log_half_widths


class GaussianPolicy(ContinuousPolicy):
    """A squashed Gaussian: its parameters are location and log-scale of u, ``[..., 2 A]``."""

    def make_distribution(self, parameters: Tensor) -> Distribution:
        """See :meth:`Policy.make_distribution`; for log-densities near the bounds use :meth:`pre_tanh_log_prob`."""
        location, log_scale = parameters.chunk(2, dim=-1)
        normal = Independent(Normal(location, log_scale.exp(), validate_args=False), 1)
        return TransformedDistribution(normal, [TanhTransform()], validate_args=False)

    def mode(self, parameters: Tensor) -> Tensor:
        """Tanh of the mean, ``[..., *action_shape]`` (the protocol's deterministic action)."""
        return self.bounds.to_environment(torch.tanh(parameters.chunk(2, dim=-1)[0]))

    def sample(self, parameters: Tensor) -> Tensor:
        """See :meth:`Policy.sample`; ``[..., *action_shape]``."""
        location, log_scale = parameters.chunk(2, dim=-1)
        return self.bounds.to_environment(torch.tanh(location + log_scale.exp() * torch.randn_like(location)))

    def pre_tanh_log_prob(self, parameters: Tensor, pre_tanh: Tensor) -> Tensor:
        """See :meth:`ContinuousPolicy.pre_tanh_log_prob`."""
        return functional.squashed_gaussian_log_prob(pre_tanh, *parameters.chunk(2, dim=-1))


class SquashedGaussianPolicy(GaussianPolicy):
    """The actor of soft actor-critic: a network that gives location and log-scale.

    Args:
        observation_space: ``Box``.
        action_space: Bounded ``Box``.
        hidden_sizes: Hidden layers of the network.
        goal_scales: For observations that begin with a goal g and then what is achieved of it, g′, of G numbers each:
            the networks are given asinh(scale · (g′ − g)) as well, fine near the goal and coarse far from it; ``None``
            for none of that.
        prior: The frozen prior that it customises, or ``None``.
        task: Gymnasium id.
    """

    observation_middle: Tensor
    observation_half_width: Tensor
    goal_scale: Tensor

    def __init__(
        self,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        hidden_sizes: list[int],
        goal_scales: list[float] | None = None,
        prior: Policy | None = None,
        task: str | None = None,
    ) -> None:
        super().__init__()
        check_continuous(observation_space, action_space)
        self.observation_space, self.action_space, self.task = observation_space, action_space, task
        self.hidden_sizes, self.bounds = list(hidden_sizes), ActionBounds(action_space)
        self.goal_scales = list(goal_scales or [])
        size = math.prod(observation_space.shape or ())
        expected = f"at most half as many scales as the observation has numbers, {size}"
        require(2 * len(self.goal_scales) <= size, "model.goal_scales", goal_scales, expected)
        self.code_size = size + len(self.goal_scales)
        self.network = mlp(self.code_size, self.hidden_sizes, 2 * self.bounds.size)
        middle, half_width = observation_scale(observation_space)
        self.register_buffer("observation_middle", middle, persistent=False)
        self.register_buffer("observation_half_width", half_width, persistent=False)
        self.register_buffer("goal_scale", torch.tensor(self.goal_scales), persistent=False)
        self.prior = prior

    def distribution_parameters(self, observation: Tensor) -> Tensor:
        """Location and log-scale, ``[..., 2 A]``."""
        return torch.cat(self.location_and_log_scale(self.encode(self.flatten(observation))), dim=-1)

    def encode(self, observation: Tensor) -> Tensor:
        """What the networks take of flat observations ``[..., D]``; ``[..., D + G]``.

        Numbers that have finite bounds are brought to [−1, 1]; differences to the goal are appended (``goal_scales``).
        """
        code = (observation - self.observation_middle) / self.observation_half_width
        if not self.goal_scales:
            return code
        size = len(self.goal_scales)
        difference = observation[..., size : 2 * size] - observation[..., :size]
        return torch.cat([code, torch.asinh(difference * self.goal_scale)], dim=-1)

    def location_and_log_scale(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """``[..., A]`` each, at encoded observations (:meth:`encode`)."""
        location, log_scale = self.network(observation).chunk(2, dim=-1)
        return location, log_scale.clamp(*LOG_SCALE_RANGE)

    def divergence(self, parameters: Tensor, prior_parameters: Tensor) -> Tensor:
        """KL(policy ‖ prior): in closed form for a Gaussian prior (tanh changes no KL), otherwise estimated."""
        try:
            return super().divergence(parameters, prior_parameters)
        except NotImplementedError:  # a prior of which only the density is known
            return self._estimated_divergence(parameters, prior_parameters)

    def _estimated_divergence(self, parameters: Tensor, prior_parameters: Tensor) -> Tensor:
        """Mean of log π̂(u) − log π(u) over the same samples of u for every state, so that it repeats.

        Their first three moments are those of a Gaussian, which makes it exact for Gaussian priors.
        """
        generator = torch.Generator().manual_seed(0)
        half = torch.randn(DIVERGENCE_SAMPLES // 2, self.bounds.size, generator=generator).to(parameters.device)
        half = half / half.square().mean(dim=0).sqrt()
        location, log_scale = parameters.unsqueeze(-2).chunk(2, dim=-1)
        pre_tanh = location + log_scale.exp() * torch.cat([half, -half])
        of_prior = prior_parameters.unsqueeze(-2).expand(*pre_tanh.shape[:-1], -1)
        theirs = self.prior.pre_tanh_log_prob(of_prior, pre_tanh)  # type: ignore[union-attr,operator]
        ours = functional.squashed_gaussian_log_prob(pre_tanh, location, log_scale)
        return (ours - theirs).mean(dim=-1)

    def describe(self) -> dict[str, Any]:
        """See :meth:`Policy.describe`."""
        prior = None if self.prior is None else self.prior.describe()
        return {
            **super().describe(),
            "hidden_sizes": self.hidden_sizes,
            "goal_scales": self.goal_scales,
            "prior": prior,
        }
