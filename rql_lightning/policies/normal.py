"""Normal distributions over actions, and any other distribution over actions in the environment's units."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, distributions

from rql_lightning.policies.families import EDGE, Continuous, LocationScale
from rql_lightning.spaces import ActionBounds

WITHIN = 1.0 - 2.0**-20
"""Largest magnitude of an action at which a density from elsewhere is evaluated; it may be infinite on the bounds."""


class Normal(LocationScale):
    """Distributions of a ~ N(location, scale²) without tanh; the parameters are location and log-scale, ``[..., 2 A]``.

    The environment clips actions to their bounds. The log-density of an action, on a bound as well, is that of the
    normal distribution: what lies beyond a bound is not counted as probability of the bound.

    Args:
        dimensions: Number of action dimensions A.
    """

    def distribution(self, parameters: Tensor) -> distributions.Distribution:
        """Return an independent normal distribution of actions that are not clipped."""
        location, log_scale = parameters.chunk(2, dim=-1)
        normal = distributions.Normal(location, log_scale.exp(), validate_args=False)
        return distributions.Independent(normal, 1, validate_args=False)

    def log_prob(self, parameters: Tensor, action: Tensor) -> Tensor:
        """Return the log-density of actions ``[..., A]``."""
        location, log_scale = parameters.chunk(2, dim=-1)
        standardised = (action - location) * torch.exp(-log_scale)
        return (-0.5 * standardised.square() - log_scale - 0.5 * math.log(2.0 * math.pi)).sum(dim=-1)

    def pre_tanh_log_prob(self, parameters: Tensor, pre_tanh: Tensor) -> Tensor:
        """Return the log-density at a = tanh(u), ``[...]``."""
        return self.log_prob(parameters, torch.tanh(pre_tanh))

    def mode(self, parameters: Tensor) -> Tensor:
        """Return the location, clipped to [−1, 1], ``[..., A]``."""
        return parameters.chunk(2, dim=-1)[0].clamp(-1.0, 1.0)

    def sample(self, parameters: Tensor) -> Tensor:
        """Sample an action, clipped to [−1, 1], ``[..., A]``."""
        return self._from_noise(parameters, self._noise(parameters)).clamp(-1.0, 1.0)

    def from_noise(self, parameters: Tensor, noise: Tensor) -> Tensor:
        """Return u = atanh(location + scale · noise), of the clipped action, ``[..., A]``."""
        return torch.atanh(self._from_noise(parameters, noise).clamp(-EDGE, EDGE))

    def _from_noise(self, parameters: Tensor, noise: Tensor) -> Tensor:
        location, log_scale = parameters.chunk(2, dim=-1)
        return location + log_scale.exp() * noise


class Built(Continuous):
    """Distributions that a function builds from their parameters, over actions in the environment's units.

    Args:
        size: Number of parameters P.
        build: Function from parameters ``[..., P]`` to a PyTorch distribution over actions ``[..., *action_shape]``.
        deterministic: Function from the distribution to its deterministic action, ``[..., *action_shape]``.
        bounds: Bounds of the actions.
    """

    explorable = False

    def __init__(
        self,
        size: int,
        build: Callable[[Tensor], distributions.Distribution],
        deterministic: Callable[[distributions.Distribution], Tensor],
        bounds: ActionBounds,
    ) -> None:
        super().__init__(bounds.size)
        self.size, self.build, self.deterministic, self.bounds = size, build, deterministic, bounds

    def distribution(self, parameters: Tensor) -> distributions.Distribution:
        """Return the distribution, over actions in the environment's units."""
        return self.build(parameters)

    def log_prob(self, parameters: Tensor, action: Tensor) -> Tensor:
        """Return the log-density of actions in [−1, 1], ``[...]``, moving those on a bound inside by 1e-6."""
        inside = self.bounds.to_environment(action.clamp(-WITHIN, WITHIN))
        log_prob = self.distribution(parameters).log_prob(inside)
        return log_prob.reshape(*action.shape[:-1], -1).sum(dim=-1) + self.bounds.log_half_widths

    def pre_tanh_log_prob(self, parameters: Tensor, pre_tanh: Tensor) -> Tensor:
        """Return the log-density at a = tanh(u), ``[...]``; NaN where u is not finite, as in diverged training."""
        finite = pre_tanh.isfinite().all(dim=-1)
        log_prob = self.log_prob(parameters, torch.tanh(pre_tanh.nan_to_num(0.0)))
        return torch.where(finite, log_prob, torch.nan)

    def mode(self, parameters: Tensor) -> Tensor:
        """Return the distribution's deterministic action in [−1, 1], ``[..., A]``."""
        return self._clipped(self.deterministic(self.distribution(parameters)))

    def sample(self, parameters: Tensor) -> Tensor:
        """Sample an action, clipped to [−1, 1], ``[..., A]``."""
        return self._clipped(self.distribution(parameters).sample())

    def _clipped(self, action: Tensor) -> Tensor:
        return self.bounds.from_environment(action).clamp(-1.0, 1.0)
