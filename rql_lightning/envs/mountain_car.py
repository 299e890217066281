"""MountainCarContinuous: reach the flag with little effort (basic) and without pushing to the left (add-on)."""

from __future__ import annotations

from typing import Any

import numpy as np

from rql_lightning.envs.customization import Customization, Metric
from rql_lightning.envs.registration import task_on

NEGATIVE_REWARD = -0.1  # of a step whose action is negative


def is_negative(observation: Any, action: Any, next_observation: Any, info: dict[str, Any]) -> Any:
    """Return 1 where the given action is negative, else 0; ``[..., 1]`` → ``[...]``."""
    return np.asarray(np.asarray(action)[..., 0] < 0, dtype=np.float64)


def add_on_reward(observation: Any, action: Any, next_observation: Any, info: dict[str, Any]) -> Any:
    """Return −0.1 where the action is negative, else 0; ``[..., 1]`` → ``[...]``."""
    return NEGATIVE_REWARD * is_negative(observation, action, next_observation, info)


def is_success(observation: Any, action: Any, next_observation: Any, info: dict[str, Any]) -> Any:
    """Return whether the flag was reached, the only way an episode terminates."""
    return info["terminated"]


def applied_force(observation: Any, action: Any, next_observation: Any, info: dict[str, Any]) -> Any:
    """Return the action clipped to its bounds; ``[..., 1]`` → ``[...]``."""
    return np.clip(np.asarray(action)[..., 0], -1.0, 1.0)


MOUNTAIN_CAR = Customization(
    add_on_reward=add_on_reward,
    metric=Metric("negative_actions", is_negative, "sum"),
    is_success=is_success,
    vectorized=True,
    read_only=True,
    pictured=("action", applied_force),
)
TASK = task_on("MountainCarContinuous-v0", MOUNTAIN_CAR)
make, make_vec = TASK.make, TASK.make_vec
