"""Gymnasium spaces: conversion to plain data, comparison, checks, and the bounds of actions and observations."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from rql_lightning.errors import SpaceMismatchError


def space_to_data(space: gym.Space[Any]) -> dict[str, Any]:
    """Convert a ``Box`` or ``Discrete`` space to strings, numbers and lists.

    Raises:
        SpaceMismatchError: If the space is of another type.
    """
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
    """Create the space from the result of :func:`space_to_data`.

    Raises:
        KeyError, ValueError: If the data does not describe a space.
    """
    if data["type"] == "Discrete":
        return gym.spaces.Discrete(data["n"], start=data["start"])
    if data["type"] == "Box":
        shape, dtype = tuple(data["shape"]), np.dtype(data["dtype"])
        low, high = (np.array(data[key], dtype=np.float64).reshape(shape).astype(dtype) for key in ("low", "high"))
        return gym.spaces.Box(low, high, dtype=dtype.type)
    raise ValueError(f"a space of type {data['type']!r}")


def check_discrete(observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> None:
    """Refuse spaces that soft Q-learning does not support.

    Raises:
        SpaceMismatchError: unless observations are a ``Box`` of at least one dimension and actions ``Discrete`` from 0.
    """
    _check_observations(observation_space)
    if not isinstance(action_space, gym.spaces.Discrete):
        raise SpaceMismatchError(
            f"action space: found {action_space}, expected Discrete actions that start at 0 (soft Q-learning and its "
            "residual form sum over actions; for a bounded Box, use SoftActorCritic or ResidualSAC)"
        )
    if action_space.start != 0:
        raise SpaceMismatchError(
            f"action space: found {action_space}, expected Discrete actions that start at 0 "
            f"(gymnasium.wrappers.TransformAction that adds {action_space.start}, with Discrete({action_space.n}) as "
            "action_space, gives them)"
        )


def check_continuous(observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> None:
    """Refuse spaces that soft actor-critic does not support.

    Raises:
        SpaceMismatchError: unless observations are a ``Box`` of at least one dimension and actions a ``Box`` of floats
            with at least one dimension and finite bounds that differ in float32.
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
    low, high = (np.asarray(bound, np.float32).ravel() for bound in (action_space.low, action_space.high))
    wide = (high - low) / 2 >= _SMALLEST
    if not wide.all():
        index = int(np.argmin(wide))
        found = f"bounds {action_space.low.ravel()[index]} and {action_space.high.ravel()[index]}"
        raise SpaceMismatchError(
            f"action space: found {found}, whose difference in float32 is {high[index] - low[index]:.3g}, expected at "
            f"least {2 * _SMALLEST:.3g} (wrap the environment in gymnasium.wrappers.RescaleAction from -1.0 to 1.0)"
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


_SMALLEST = float(np.finfo(np.float32).tiny)  # training takes smaller numbers for 0


class ActionBounds:
    """Conversion between actions in [−1, 1] and actions in the environment's units.

    Args:
        space: Action space, a bounded ``Box``.

    Attributes:
        size: Number of action dimensions A.
        log_half_widths: Σ log((high − low) / 2), the log-density of an action in [−1, 1] minus the log-density of the
            same action in the environment's units.
    """

    def __init__(self, space: gym.spaces.Box) -> None:
        low, high = (torch.from_numpy(np.asarray(bound, np.float32).ravel()) for bound in (space.low, space.high))
        self.shape, self.size = space.shape, len(low)
        self.low, self.high = low, high
        self.middle, self.half_width = (high + low) / 2, (high - low) / 2
        self.log_half_widths = float(self.half_width.log().sum())

    def to_environment(self, unit: Tensor) -> Tensor:
        """Convert actions ``[..., A]`` in [−1, 1] to actions ``[..., *action_shape]`` within the bounds."""
        low, high, middle, half = (x.to(unit.device) for x in (self.low, self.high, self.middle, self.half_width))
        return (middle + half * unit).clamp(low, high).unflatten(-1, self.shape)

    def from_environment(self, action: Tensor) -> Tensor:
        """Convert actions ``[..., *action_shape]`` in the environment's units to actions ``[..., A]`` in [−1, 1]."""
        flat = action.flatten(start_dim=action.dim() - len(self.shape))
        return (flat - self.middle.to(action.device)) / self.half_width.to(action.device)

    def normal_from_environment(self, location: Tensor, log_scale: Tensor) -> tuple[Tensor, Tensor]:
        """Convert location and log-scale of a normal distribution of actions, as :meth:`from_environment` does actions.

        Args:
            location: Location in the environment's units, ``[..., *action_shape]``.
            log_scale: Logarithm of the scale in the environment's units, ``[..., *action_shape]``.
        """
        flat = log_scale.flatten(start_dim=log_scale.dim() - len(self.shape))
        return self.from_environment(location), flat - self.half_width.log().to(flat.device)


def as_elements(space: gym.Space[Any], actions: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Convert actions to elements of an action space: cast to its dtype, then clipped to its bounds in that dtype.

    Args:
        space: Action space of one environment, ``Discrete`` or ``Box``.
        actions: Actions of any dtype, ``[..., *space.shape]``.
    """
    cast = np.asarray(actions).astype(space.dtype)
    return np.clip(cast, space.low, space.high) if isinstance(space, gym.spaces.Box) else cast


def observation_scale(space: gym.Space[Any]) -> tuple[Tensor, Tensor]:
    """Return middle and half width of each number of a ``Box``, ``[D]``.

    They are 0 and 1 for numbers without finite bounds and for those whose half width is too small for float32.
    """
    low, high = (np.asarray(bound, np.float64).ravel() for bound in (space.low, space.high))
    bounded = _has_bounds(low, high) & ((high - low) / 2 >= _SMALLEST)
    low, high = np.where(bounded, low, -1.0), np.where(bounded, high, 1.0)
    middle, half_width = (high + low) / 2, (high - low) / 2
    return torch.from_numpy(middle.astype(np.float32)), torch.from_numpy(half_width.astype(np.float32))


def unbounded(space: gym.Space[Any]) -> list[bool]:
    """Return whether each number of a ``Box``, D in all, lacks finite bounds."""
    low, high = (np.asarray(bound, np.float64).ravel() for bound in (space.low, space.high))
    return (~_has_bounds(low, high)).tolist()


def _has_bounds(low: np.ndarray[Any, Any], high: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    largest = np.maximum(np.abs(low), np.abs(high)).astype(np.float64)
    return (largest < 1e30) & (low < high)  # some spaces have the largest float32 where they have no bound


def check_same(what: str, found: gym.Space[Any], expected: gym.Space[Any], bounds: bool) -> None:
    """Refuse a policy whose observations or actions differ from the environment's.

    Args:
        what: Owner and kind of the space, for the message.
        found: Space of the policy.
        expected: Space of the environment.
        bounds: Whether the bounds of a ``Box`` must be equal too, not just types and shapes. Bounds of actions must be,
            because they determine the meaning of an action in [−1, 1].

    Raises:
        SpaceMismatchError: If the spaces differ; names both.
    """
    same = type(found) is type(expected) and found.shape == expected.shape
    if isinstance(found, gym.spaces.Discrete) and same:
        same = found == expected
    if isinstance(found, gym.spaces.Box) and same and bounds:
        same = np.allclose(found.low, expected.low) and np.allclose(found.high, expected.high)
    if not same:
        raise SpaceMismatchError(f"{what}: found {found}, expected the environment's {expected}")
