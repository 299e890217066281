"""CartPole: balance the pole (basic) and keep the cart at the centre of the track (add-on)."""

from __future__ import annotations

from typing import Any

import numpy as np

from rql_lightning.envs.customization import Customization, Metric
from rql_lightning.envs.registration import task_on

ANGLE_LIMIT = 0.2095  # radians, about 12 degrees: the episode terminates beyond
EPISODE_STEPS = 500
POSITION_LIMIT = 2.4  # units of the track: the episode terminates beyond


def basic_reward(observation: Any, action: Any, next_observation: Any, info: dict[str, Any]) -> Any:
    """1 − 10 |θ′| / 0.2095, θ′ the pole's angle in the state reached; ``[..., 4]`` → ``[...]``."""
    return 1.0 - 10.0 * np.abs(next_observation[..., 2]) / ANGLE_LIMIT


def add_on_reward(observation: Any, action: Any, next_observation: Any, info: dict[str, Any]) -> Any:
    """−|x′| / 2.4, x′ the cart's position in the state reached; ``[..., 4]`` → ``[...]``."""
    return -np.abs(next_observation[..., 0]) / POSITION_LIMIT


def absolute_position(observation: Any, action: Any, next_observation: Any, info: dict[str, Any]) -> Any:
    """|x′|."""
    return np.abs(next_observation[..., 0])


def position(observation: Any, action: Any, next_observation: Any, info: dict[str, Any]) -> Any:
    """x′."""
    return next_observation[..., 0]


def is_success(observation: Any, action: Any, next_observation: Any, info: dict[str, Any]) -> Any:
    """Return whether all 500 steps were reached, regardless of other time limits."""
    return np.greater_equal(info["step"], EPISODE_STEPS)


CARTPOLE = Customization(
    add_on_reward=add_on_reward,
    basic_reward=basic_reward,
    metric=Metric("mean_abs_position", absolute_position, "mean"),
    is_success=is_success,
    vectorized=True,
    read_only=True,
    pictured=("cart position x", position),
    action_names=("left", "right"),
)
TASK = task_on("CartPole-v1", CARTPOLE)
make, make_vec = TASK.make, TASK.make_vec
