"""Actors over bounded continuous actions."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import torch
from torch import Tensor

from rql_lightning.errors import ConfigurationError
from rql_lightning.networks import mlp
from rql_lightning.policies.base import Policy
from rql_lightning.policies.encoders import Encoder
from rql_lightning.policies.families import SquashedNormal
from rql_lightning.spaces import ActionBounds, check_continuous

LOG_SCALE_RANGE = (-5.0, 2.0)


class SquashedGaussianPolicy(Policy):
    """The actor of soft actor-critic: a network that gives location and log-scale of u, a = tanh(u).

    Args:
        observation_space: ``Box``.
        action_space: Bounded ``Box``.
        hidden_sizes: Hidden layers of the network.
        encoder: What the network sees; by default numbers with finite bounds within [−1, 1].
        prior: The frozen prior that it customises, or ``None``.
        task: Gymnasium id.
    """

    bounds: ActionBounds

    def __init__(
        self,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        hidden_sizes: list[int],
        encoder: Encoder | None = None,
        prior: Policy | None = None,
        task: str | None = None,
    ) -> None:
        super().__init__()
        check_continuous(observation_space, action_space)
        self.observation_space, self.action_space, self.task = observation_space, action_space, task
        self.hidden_sizes, self.bounds = list(hidden_sizes), ActionBounds(action_space)
        self.family = SquashedNormal(self.bounds.size)
        self.encoder = encoder or Encoder.scaled_of(observation_space)
        self.network = mlp(self.encoder.size, self.hidden_sizes, self.family.size)
        self.prior = prior

    def distribution_parameters(self, observation: Tensor) -> Tensor:
        """Location and log-scale, ``[..., 2 A]``."""
        return torch.cat(self.location_and_log_scale(self.encoder(self.flatten(observation))), dim=-1)

    def location_and_log_scale(self, code: Tensor) -> tuple[Tensor, Tensor]:
        """``[..., A]`` each, at encoded observations."""
        location, log_scale = self.network(code).chunk(2, dim=-1)
        return location, log_scale.clamp(*LOG_SCALE_RANGE)

    def start_at(self, other: Policy, option: str) -> None:
        """Copy the weights of an actor of the same sizes.

        Args:
            other: Such an actor.
            option: Who asks for it, for messages.

        Raises:
            ConfigurationError: if ``other`` is none.
        """
        expected, found = self._sizes(self), self._sizes(other)
        if found != expected:
            raise ConfigurationError(f"{option}, expected a squashed Gaussian actor of {expected}; that is {found}")
        self.network.load_state_dict(other.network.state_dict())  # type: ignore[union-attr]

    @staticmethod
    def _sizes(policy: Any) -> dict[str, Any]:
        """What two actors have in common that can have the same weights."""
        if not isinstance(policy, SquashedGaussianPolicy):
            return {"kind": type(policy).__name__}
        shapes = {"observation": policy.observation_space.shape, "encoder": policy.encoder.describe()}
        return {**shapes, "action": policy.action_space.shape, "hidden_sizes": policy.hidden_sizes}

    def describe(self) -> dict[str, Any]:
        """See :meth:`Policy.describe`."""
        prior = None if self.prior is None else self.prior.describe()
        own = {"hidden_sizes": self.hidden_sizes, "encoder": self.encoder.describe()}
        return {**super().describe(), **own, "prior": prior}
