"""Policies over bounded continuous actions."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
from torch import Tensor

from rql_lightning.policies.base import Policy
from rql_lightning.policies.encoders import Encoder
from rql_lightning.policies.families import LOG_SCALE_RANGE
from rql_lightning.policies.network import NetworkPolicy
from rql_lightning.spaces import ActionBounds, check_continuous


class SquashedGaussianPolicy(NetworkPolicy):
    """The actor of soft actor-critic: a network returns the location and log-scale of u, and the action is tanh(u).

    Args:
        observation_space: Observation space, a ``Box``.
        action_space: Action space, a bounded ``Box``.
        hidden_sizes: Width of each hidden layer of the network.
        encoder: Encoder of observations; by default scales numbers with finite bounds to [−1, 1].
        prior: Frozen prior that the policy customises, or ``None``.
        task: Gymnasium id of the task.
        temperature: Temperature at which the actor was trained, or ``None`` if it is unknown.
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
        temperature: float | None = None,
    ) -> None:
        check_continuous(observation_space, action_space)
        spaces = (observation_space, action_space)
        settings: Any = {"encoder": encoder, "prior": prior, "task": task, "temperature": temperature}
        super().__init__(*spaces, hidden_sizes, "squashed_normal", **settings)

    def location_and_log_scale(self, code: Tensor) -> tuple[Tensor, Tensor]:
        """Return location and log-scale of u at encoded observations ``[..., D]``, ``[..., A]`` each."""
        location, log_scale = self.network(code).chunk(2, dim=-1)
        return location, log_scale.clamp(*LOG_SCALE_RANGE)

    def describe(self) -> dict[str, Any]:
        """Return the description from which :func:`rql_lightning.load_policy` rebuilds the policy."""
        options = {"components", "context", "rows", "family"}  # not this policy's
        return {key: value for key, value in super().describe().items() if key not in options}
