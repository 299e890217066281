"""Encoders that turn observations into network inputs, independently of the environment a policy is loaded into."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import torch
from torch import Tensor, nn

from rql_lightning.errors import require
from rql_lightning.spaces import observation_scale, unbounded

CLIP, EPSILON = 10.0, 1e-8
"""Largest absolute value of a normalised number, and the number added to variances: those of ``VecNormalize``."""


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
        running: For each of the D numbers whether it is normalised by what was observed; ``None`` if none is.
    """

    running: list[bool] | None = None

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

    @staticmethod
    def scaled_of(space: gym.Space[Any], goal_scales: list[float] | None = None, normalize: bool = False) -> Encoder:
        """Create an encoder that scales observations by their finite bounds and appends differences to a goal.

        Args:
            space: Observation space, a ``Box``.
            goal_scales: Scales of the numbers of a goal, or ``None``.
            normalize: Whether numbers without finite bounds are normalised (:class:`RunningEncoder`).

        Raises:
            ConfigurationError: If there are more goal scales than half of the observation's numbers.
        """
        middle, half_width = observation_scale(space)
        expected = f"at most half as many scales as the observation has numbers, {len(middle)}"
        require(2 * len(goal_scales or []) <= len(middle), "model.goal_scales", goal_scales, expected)
        running = unbounded(space)
        if normalize and any(running):
            return RunningEncoder(middle, half_width, goal_scales or [], running)
        return Encoder(middle, half_width, goal_scales or [])

    @staticmethod
    def from_description(description: dict[str, Any]) -> Encoder:
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
        running = description.get("running")
        if running is None:
            return Encoder(middle, half_width, goal_scales, bool(description["raw"]))
        if [type(each) for each in running] != [bool] * len(middle):
            raise ValueError(f"an encoder of {len(middle)} numbers with running statistics of {running!r}")
        return RunningEncoder(middle, half_width, goal_scales, running)

    @property
    def is_affine(self) -> bool:
        """Whether network inputs are an affine function of observations, number by number."""
        return not self.goal_scales

    @property
    def fixed(self) -> dict[str, Any]:
        """The description without the numbers that were observed: what two encoders share that are trained alike."""
        return self.describe()

    def observe(self, observation: Tensor, average: Callable[[Tensor], Tensor] | None = None, ranks: int = 1) -> None:
        """Take in collected observations; without effect on constants that come from bounds.

        Args:
            observation: Flat observations, ``[..., D]``.
            average: Function that averages a tensor over the ranks; ``None`` for one rank.
            ranks: Number of ranks, with equally many observations each.
        """

    def describe(self) -> dict[str, Any]:
        """Return the encoder's constants as plain data."""
        numbers = {"middle": self.middle.tolist(), "half_width": self.half_width.tolist()}
        return {"raw": self.raw, **numbers, "goal_scales": self.goal_scales}

    def forward(self, observation: Tensor) -> Tensor:
        """Encode flat observations, ``[..., D]`` → ``[..., D + G]``."""
        code = self.scaled(observation)
        if not self.goal_scales:
            return code
        size = len(self.goal_scales)
        difference = observation[..., size : 2 * size] - observation[..., :size]
        return torch.cat([code, torch.asinh(difference * self.goal_scale)], dim=-1)

    def scaled(self, observation: Tensor) -> Tensor:
        """Scale flat observations, ``[..., D]``."""
        return observation if self.raw else (observation - self.middle) / self.half_width


class RunningEncoder(Encoder):
    """An encoder that also normalises numbers without finite bounds, by mean and variance of all that it observed.

    Such a number x becomes clip((x − mean) / √(variance + 1e-8), −10, 10), as with Stable-Baselines3's
    ``VecNormalize``. Mean and variance of a stream are those of Chan, Golub & LeVeque (1979). They change in
    :meth:`observe` alone, which training calls for collected frames, and are saved with the weights. Observations are
    normalised where they are used: replay buffers hold them as they came.

    Args:
        middle: Offsets of numbers with bounds, ``[D]``; those of other numbers before the first observation.
        half_width: Divisors of the result, ``[D]``.
        goal_scales: As for :class:`Encoder`.
        running: For each number whether it is normalised.
    """

    count: Tensor
    mean: Tensor
    variance: Tensor
    limit: Tensor
    chosen: Tensor

    def __init__(self, middle: Tensor, half_width: Tensor, goal_scales: list[float], running: list[bool]) -> None:
        super().__init__(middle, half_width, goal_scales)
        self.running = list(running)
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(len(middle), dtype=torch.float64))
        self.register_buffer("variance", torch.ones(len(middle), dtype=torch.float64))
        limits = torch.tensor([CLIP if each else math.inf for each in running], dtype=middle.dtype)
        self.register_buffer("limit", limits, persistent=False)
        self.register_buffer("chosen", torch.tensor(self.running), persistent=False)

    @property
    def is_affine(self) -> bool:
        """Numbers are clipped."""
        return False

    @property
    def fixed(self) -> dict[str, Any]:
        """The description with ``None`` for the numbers that were observed."""
        description = self.describe()
        for key in ("middle", "half_width"):
            pairs = zip(description[key], self.running or [], strict=True)
            description[key] = [None if running else number for number, running in pairs]
        return description

    def describe(self) -> dict[str, Any]:
        """Return the encoder's constants as plain data; :attr:`count` and moments are among the weights."""
        return {**super().describe(), "running": self.running}

    @torch.no_grad()
    def observe(self, observation: Tensor, average: Callable[[Tensor], Tensor] | None = None, ranks: int = 1) -> None:
        """Take in collected observations of all ranks; arguments as for :meth:`Encoder.observe`."""
        rows = observation.to(self.mean).flatten(0, -2)
        new, old = len(rows) * ranks, self.count
        reduce = average or (lambda tensor: tensor)
        difference = reduce((rows - self.mean).mean(dim=0))
        variance = reduce((rows - self.mean - difference).square().mean(dim=0))
        total = old + new
        self.variance.copy_((old * self.variance + new * variance) / total + difference.square() * old * new / total**2)
        self.mean.add_(difference * new / total)
        self.count.copy_(total)
        self.middle.copy_(torch.where(self.chosen, self.mean, self.middle))
        self.half_width.copy_(torch.where(self.chosen, (self.variance + EPSILON).sqrt(), self.half_width))

    def scaled(self, observation: Tensor) -> Tensor:
        """Scale and clip flat observations, ``[..., D]``."""
        return super().scaled(observation).clamp(-self.limit, self.limit)
