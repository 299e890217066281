"""What networks see of an observation, the same in every environment that a policy is loaded into."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import torch
from torch import Tensor, nn

from rql_lightning.errors import require
from rql_lightning.spaces import observation_scale


class Encoder(nn.Module):
    """Numbers that have finite bounds are brought to [−1, 1]; differences to a goal are appended.

    Its numbers are buffers, so that they come with the weights of a checkpoint: they are the policy's, not those of the
    environment at hand.

    Args:
        middle: What is subtracted from each number of a flat observation, ``[D]``.
        half_width: What the result is divided by, ``[D]``.
        goal_scales: For observations that begin with a goal g and then what is achieved of it, g′, of G numbers each:
            asinh(scale · (g′ − g)) is appended, fine near the goal and coarse far from it.
        raw: Whether observations are handed on as they are; ``middle`` and ``half_width`` are then 0 and 1.

    Attributes:
        size: Numbers that the networks see, D + G.
    """

    middle: Tensor
    half_width: Tensor
    goal_scale: Tensor

    def __init__(self, middle: Tensor, half_width: Tensor, goal_scales: list[float], raw: bool = False) -> None:
        super().__init__()
        self.raw, self.goal_scales = raw, list(goal_scales)
        self.size = len(middle) + len(self.goal_scales)
        self.register_buffer("middle", middle)
        self.register_buffer("half_width", half_width)
        self.register_buffer("goal_scale", torch.tensor(self.goal_scales))

    @classmethod
    def raw_of(cls, space: gym.Space[Any]) -> Encoder:
        """Observations of the space as they are."""
        size = math.prod(space.shape or ())
        return cls(torch.zeros(size), torch.ones(size), [], raw=True)

    @classmethod
    def scaled_of(cls, space: gym.Space[Any], goal_scales: list[float] | None = None) -> Encoder:
        """Observations of the space within its finite bounds, and the differences to a goal.

        Raises:
            ConfigurationError: for more goal scales than half of the observation's numbers.
        """
        middle, half_width = observation_scale(space)
        expected = f"at most half as many scales as the observation has numbers, {len(middle)}"
        require(2 * len(goal_scales or []) <= len(middle), "model.goal_scales", goal_scales, expected)
        return cls(middle, half_width, goal_scales or [])

    @classmethod
    def from_description(cls, description: dict[str, Any]) -> Encoder:
        """The encoder that :meth:`describe` described.

        Raises:
            KeyError, TypeError, ValueError: if the description is not one.
        """
        middle, half_width = (torch.tensor(description[key], dtype=torch.float32) for key in ("middle", "half_width"))
        if middle.dim() != 1 or middle.shape != half_width.shape:
            raise ValueError(f"an encoder of shapes {tuple(middle.shape)} and {tuple(half_width.shape)}")
        return cls(middle, half_width, description["goal_scales"], bool(description["raw"]))

    def describe(self) -> dict[str, Any]:
        """Its numbers as plain data."""
        numbers = {"middle": self.middle.tolist(), "half_width": self.half_width.tolist()}
        return {"raw": self.raw, **numbers, "goal_scales": self.goal_scales}

    def forward(self, observation: Tensor) -> Tensor:
        """Flat observations ``[..., D]`` → ``[..., D + G]``."""
        code = observation if self.raw else (observation - self.middle) / self.half_width
        if not self.goal_scales:
            return code
        size = len(self.goal_scales)
        difference = observation[..., size : 2 * size] - observation[..., :size]
        return torch.cat([code, torch.asinh(difference * self.goal_scale)], dim=-1)
