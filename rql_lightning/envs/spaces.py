"""Gymnasium spaces as plain data, for checkpoints, and compared, for priors."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

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


def check_supported(observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> None:
    """Refuse what no network of ours takes.

    Raises:
        SpaceMismatchError: unless observations are a ``Box`` and actions ``Discrete`` from 0.
    """
    if not isinstance(observation_space, gym.spaces.Box):
        raise SpaceMismatchError(
            f"observation space: found {observation_space}, expected a Box (wrap the environment in "
            "gymnasium.wrappers.FlattenObservation)"
        )
    if not isinstance(action_space, gym.spaces.Discrete) or action_space.start != 0:
        raise SpaceMismatchError(
            f"action space: found {action_space}, expected Discrete actions that start at 0 (soft Q-learning and its "
            "residual form sum over actions)"
        )


def check_same(what: str, found: gym.Space[Any], expected: gym.Space[Any]) -> None:
    """Refuse a policy for other observations or actions than the environment's.

    Shapes, types and numbers of actions must agree; the bounds of observations need not.

    Args:
        what: Whose space it is, for the message.
        found: The policy's.
        expected: The environment's.

    Raises:
        SpaceMismatchError: with both spaces in the message.
    """
    same_kind = type(found) is type(expected) and found.shape == expected.shape
    if isinstance(found, gym.spaces.Discrete) and same_kind:
        same_kind = found == expected
    if not same_kind:
        raise SpaceMismatchError(f"{what}: found {found}, expected the environment's {expected}")
