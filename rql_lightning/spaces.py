"""Gymnasium spaces as plain data, for checkpoints, and compared, for priors."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from rql_lightning.errors import SpaceMismatchError


def space_to_data(space: gym.Space[Any]) -> dict[str, Any]:
    """A ``Box`` or ``Discrete`` space as strings, numbers and lists."""
    if isinstance(space, gym.spaces.Discrete):
        return {"type": "Discrete", "n": int(space.n), "start": int(space.start)}
    if isinstance(space, gym.spaces.Box):
        return {
            "type": "Box",
            "shape": list(space.shape),
            "dtype": str(space.dtype),
            "low": space.low.astype(np.float64).ravel().tolist(),
            "high": space.high.astype(np.float64).ravel().tolist(),
        }
    raise SpaceMismatchError(f"found a space of type {type(space).__name__}, expected Box or Discrete: {space}")


def space_from_data(data: dict[str, Any]) -> gym.Space[Any]:
    """The space that :func:`space_to_data` stored.

    Raises:
        KeyError, ValueError: if the data is no such space.
    """
    if data["type"] == "Discrete":
        return gym.spaces.Discrete(data["n"], start=data["start"])
    if data["type"] == "Box":
        shape, dtype = tuple(data["shape"]), np.dtype(data["dtype"])
        low, high = (np.array(data[key], dtype=np.float64).reshape(shape).astype(dtype) for key in ("low", "high"))
        return gym.spaces.Box(low, high, dtype=dtype.type)
    raise ValueError(f"a space of type {data['type']!r}")


def check_discrete(observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> None:
    """Refuse what soft Q-learning does not take.

    Raises:
        SpaceMismatchError: unless observations are a ``Box`` of at least one dimension and actions ``Discrete`` from 0.
    """
    _check_observations(observation_space)
    if not isinstance(action_space, gym.spaces.Discrete):
        raise SpaceMismatchError(
            f"action space: found {action_space}, expected Discrete actions that start at 0 (soft Q-learning and its "
            "residual form sum over actions; for a bounded Box there are SoftActorCritic and ResidualSAC)"
        )
    if action_space.start != 0:
        raise SpaceMismatchError(
            f"action space: found {action_space}, expected Discrete actions that start at 0 "
            f"(gymnasium.wrappers.TransformAction that adds {action_space.start}, with Discrete({action_space.n}) as "
            "action_space, gives them)"
        )


def check_continuous(observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> None:
    """Refuse what soft actor-critic does not take.

    Raises:
        SpaceMismatchError: unless observations are a ``Box`` of at least one dimension and actions a ``Box`` of floats
            with at least one dimension and finite bounds.
    """
    _check_observations(observation_space)
    expected = "expected a Box of floats with finite bounds, low < high"
    if not isinstance(action_space, gym.spaces.Box):
        raise SpaceMismatchError(
            f"action space: found {action_space}, {expected} (soft actor-critic and its residual form; for Discrete "
            "there are SoftQLearning and ResidualSoftQLearning)"
        )
    _check_dimensions("action space", action_space, "gymnasium.wrappers.TransformAction with a Box of shape (1,)")
    proper = np.issubdtype(action_space.dtype, np.floating) and _has_bounds(action_space.low, action_space.high).all()
    if not proper:
        raise SpaceMismatchError(
            f"action space: found {action_space}, {expected} (soft actor-critic and its residual form; "
            "gymnasium.wrappers.TransformAction, with such a Box as action_space and a function from it to the "
            "environment's actions, gives it)"
        )


def _check_observations(observation_space: gym.Space[Any]) -> None:
    if not isinstance(observation_space, gym.spaces.Box):
        wrapper = "gymnasium.wrappers.FlattenObservation"
        if not observation_space.is_np_flattenable:
            wrapper = "gymnasium.wrappers.TransformObservation with a Box as observation_space: no FlattenObservation, "
            wrapper += "as these have no fixed size"
        raise SpaceMismatchError(
            f"observation space: found {observation_space}, expected a Box (wrap the environment in {wrapper})"
        )
    _check_dimensions("observation space", observation_space, "gymnasium.wrappers.FlattenObservation")


def _check_dimensions(name: str, space: gym.spaces.Box, wrapper: str) -> None:
    if space.shape == ():
        raise SpaceMismatchError(f"{name}: found {space} of shape (), expected at least one dimension ({wrapper})")
    if np.prod(space.shape) == 0:
        raise SpaceMismatchError(f"{name}: found {space} of shape {space.shape}, expected at least one number")


class ActionBounds:
    """The one place where actions in the coordinate [−1, 1] become the environment's, and back.

    Args:
        space: A bounded ``Box``.

    Attributes:
        size: Number of action dimensions A.
        log_half_widths: Σ log((high − low) / 2): what a log-density in the coordinate [−1, 1] has more than one in the
            environment's units.
    """

    def __init__(self, space: gym.spaces.Box) -> None:
        low, high = (torch.from_numpy(np.asarray(bound, np.float32).ravel()) for bound in (space.low, space.high))
        self.shape, self.size = space.shape, len(low)
        self.low, self.high = low, high
        self.middle, self.half_width = (high + low) / 2, (high - low) / 2
        self.log_half_widths = float(self.half_width.log().sum())

    def to_environment(self, unit: Tensor) -> Tensor:
        """``[..., A]`` in [−1, 1] → ``[..., *action_shape]`` within the bounds."""
        low, high, middle, half = (x.to(unit.device) for x in (self.low, self.high, self.middle, self.half_width))
        return (middle + half * unit).clamp(low, high).unflatten(-1, self.shape)

    def from_environment(self, action: Tensor) -> Tensor:
        """``[..., *action_shape]`` in the environment's units → ``[..., A]`` in [−1, 1]."""
        flat = action.flatten(start_dim=action.dim() - len(self.shape))
        return (flat - self.middle.to(action.device)) / self.half_width.to(action.device)


def as_elements(space: gym.Space[Any], actions: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Actions as elements of the space: cast to its type, then clipped to its bounds in that type.

    Args:
        space: Of one environment: ``Discrete`` or ``Box``.
        actions: ``[..., *space.shape]``, numbers of any type.
    """
    cast = np.asarray(actions).astype(space.dtype)
    return np.clip(cast, space.low, space.high) if isinstance(space, gym.spaces.Box) else cast


def observation_scale(space: gym.Space[Any]) -> tuple[Tensor, Tensor]:
    """Middle and half width of each number of a ``Box``, ``[D]``; 0 and 1 where it has no finite bounds."""
    low, high = (np.asarray(bound, np.float64).ravel() for bound in (space.low, space.high))
    bounded = _has_bounds(low, high)
    low, high = np.where(bounded, low, -1.0), np.where(bounded, high, 1.0)
    middle, half_width = (high + low) / 2, (high - low) / 2
    return torch.from_numpy(middle.astype(np.float32)), torch.from_numpy(half_width.astype(np.float32))


def _has_bounds(low: np.ndarray[Any, Any], high: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    largest = np.maximum(np.abs(low), np.abs(high)).astype(np.float64)
    return (largest < 1e30) & (low < high)  # some spaces have the largest float32 where they have no bound


def check_same(what: str, found: gym.Space[Any], expected: gym.Space[Any], bounds: bool) -> None:
    """Refuse a policy for other observations or actions than the environment's.

    Args:
        what: Whose space it is, for the message.
        found: The policy's.
        expected: The environment's.
        bounds: Whether the bounds of a ``Box`` must agree beside types and shapes: those of actions must, as they say
            what an action in [−1, 1] stands for.

    Raises:
        SpaceMismatchError: with both spaces in the message.
    """
    same = type(found) is type(expected) and found.shape == expected.shape
    if isinstance(found, gym.spaces.Discrete) and same:
        same = found == expected
    if isinstance(found, gym.spaces.Box) and same and bounds:
        same = np.allclose(found.low, expected.low) and np.allclose(found.high, expected.high)
    if not same:
        raise SpaceMismatchError(f"{what}: found {found}, expected the environment's {expected}")
