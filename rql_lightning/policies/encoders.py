"""Encoders that turn observations into network inputs, independently of the environment a policy is loaded into."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import torch
from torch import Tensor, nn

from rql_lightning.errors import require
from rql_lightning.spaces import observation_scale


class Encoder(nn.Module):
    """Scale numbers with finite bounds to [−1, 1], and append differences to a goal.

    The constants are buffers and are saved with the weights of a checkpoint, so a policy keeps the scales that it was
    trained with in any environment.

    Args:
        middle: Offsets to subtract from the numbers of a flat observation, ``[D]``.
        half_width: Divisors of the result, ``[D]``.
        goal_scales: Scales of the G numbers of a goal, for observations that start with the desired goal g and the
            achieved goal g′; asinh(scale · (g′ − g)) is appended, which has a high resolution near the goal and a low
            resolution far from it.
        raw: Whether observations are passed on unchanged; ``middle`` and ``half_width`` are then 0 and 1.

    Attributes:
        size: Number of network inputs, D + G.
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
        """Create an encoder that passes observations of a space on unchanged."""
        size = math.prod(space.shape or ())
        return cls(torch.zeros(size), torch.ones(size), [], raw=True)

    @classmethod
    def scaled_of(cls, space: gym.Space[Any], goal_scales: list[float] | None = None) -> Encoder:
        """Create an encoder that scales observations by their finite bounds and appends differences to a goal.

        Raises:
            ConfigurationError: If there are more goal scales than half of the observation's numbers.
        """
        middle, half_width = observation_scale(space)
        expected = f"at most half as many scales as the observation has numbers, {len(middle)}"
        require(2 * len(goal_scales or []) <= len(middle), "model.goal_scales", goal_scales, expected)
        return cls(middle, half_width, goal_scales or [])

    @classmethod
    def from_description(cls, description: dict[str, Any]) -> Encoder:
        """Create an encoder from the result of :meth:`describe`.

        Raises:
            KeyError, TypeError, ValueError: If the description is invalid.
        """
        goal_scales, constants = description["goal_scales"], [description[key] for key in ("middle", "half_width")]
        if not all(math.isfinite(number) for each in (*constants, goal_scales) for number in each):
            raise ValueError("an encoder of numbers that are not finite")
        middle, half_width = (torch.tensor(each, dtype=torch.float32) for each in constants)
        if middle.dim() != 1 or middle.shape != half_width.shape:
            raise ValueError(f"an encoder of shapes {tuple(middle.shape)} and {tuple(half_width.shape)}")
        return cls(middle, half_width, goal_scales, bool(description["raw"]))

    def describe(self) -> dict[str, Any]:
        """Return the encoder's constants as plain data."""
        numbers = {"middle": self.middle.tolist(), "half_width": self.half_width.tolist()}
        return {"raw": self.raw, **numbers, "goal_scales": self.goal_scales}

    def forward(self, observation: Tensor) -> Tensor:
        """Encode flat observations, ``[..., D]`` → ``[..., D + G]``."""
        code = observation if self.raw else (observation - self.middle) / self.half_width
        if not self.goal_scales:
            return code
        size = len(self.goal_scales)
        difference = observation[..., size : 2 * size] - observation[..., :size]
        return torch.cat([code, torch.asinh(difference * self.goal_scale)], dim=-1)
