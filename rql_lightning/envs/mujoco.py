"""Four of Gymnasium's MuJoCo tasks, each with an add-on reward; their own reward is the basic one.

MuJoCo is optional (``pip install 'rql-lightning[mujoco]'``) and is imported when the first environment is made.
"""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np

from rql_lightning.envs.customization import Customization, Metric
from rql_lightning.envs.registration import Task, task_on
from rql_lightning.errors import ConfigurationError, require

POSITIONS = "exclude_current_positions_from_observation"
FRONT_FOOT, HEIGHT, FIRST_ROTOR, Y_VELOCITY = 7, 0, 1, 14  # numbers of the observations without positions
NORMAL_HEIGHT = 1.0  # of the hopper's torso, in metres


def survived(observation: Any, action: Any, next_observation: Any, info: dict[str, Any]) -> Any:
    """Return whether the time limit was reached without termination."""
    return info["truncated"] & ~np.asarray(info["terminated"])


def front_foot_angle(observation: Any, action: Any, next_observation: Any, info: dict[str, Any]) -> Any:
    """Return the angle of HalfCheetah's front foot in the state reached, in radians; ``[..., 17]`` → ``[...]``."""
    return next_observation[..., FRONT_FOOT]


def absolute_front_foot_angle(observation: Any, action: Any, next_observation: Any, info: dict[str, Any]) -> Any:
    """|angle of the front foot|; ``[..., 17]`` → ``[...]``."""
    return np.abs(next_observation[..., FRONT_FOOT])


def steady_front_foot(observation: Any, action: Any, next_observation: Any, info: dict[str, Any]) -> Any:
    """−10 |angle of the front foot|; ``[..., 17]`` → ``[...]``."""
    return -10.0 * absolute_front_foot_angle(observation, action, next_observation, info)


def height(observation: Any, action: Any, next_observation: Any, info: dict[str, Any]) -> Any:
    """Return the height of Hopper's torso in the state reached, in metres; ``[..., 11]`` → ``[...]``."""
    return next_observation[..., HEIGHT]


def high_torso(observation: Any, action: Any, next_observation: Any, info: dict[str, Any]) -> Any:
    """10 (height of the torso − 1 m); ``[..., 11]`` → ``[...]``."""
    return 10.0 * (next_observation[..., HEIGHT] - NORMAL_HEIGHT)


def first_rotor_angle(observation: Any, action: Any, next_observation: Any, info: dict[str, Any]) -> Any:
    """Return the angle of Swimmer's first rotor in the state reached, in radians; ``[..., 8]`` → ``[...]``."""
    return next_observation[..., FIRST_ROTOR]


def absolute_first_rotor_angle(observation: Any, action: Any, next_observation: Any, info: dict[str, Any]) -> Any:
    """|angle of the first rotor|; ``[..., 8]`` → ``[...]``."""
    return np.abs(next_observation[..., FIRST_ROTOR])


def straight_first_rotor(observation: Any, action: Any, next_observation: Any, info: dict[str, Any]) -> Any:
    """−|angle of the first rotor|; ``[..., 8]`` → ``[...]``."""
    return -absolute_first_rotor_angle(observation, action, next_observation, info)


def y_velocity(observation: Any, action: Any, next_observation: Any, info: dict[str, Any]) -> Any:
    """Return the velocity of Ant's torso along y in the state reached, in m/s; ``[..., 105]`` → ``[...]``."""
    return next_observation[..., Y_VELOCITY]


def towards_negative_y(observation: Any, action: Any, next_observation: Any, info: dict[str, Any]) -> Any:
    """−velocity of the torso along y; ``[..., 105]`` → ``[...]``."""
    return -next_observation[..., Y_VELOCITY]


def _make(name: str, base: str, **settings: Any) -> gym.Env[Any, Any]:
    """Make an environment without a time limit, which is the task's.

    Raises:
        ConfigurationError: If MuJoCo is not installed, or if observations are to start with positions: all numbers
            that rewards and metrics read would be shifted.
    """
    if importlib.util.find_spec("mujoco") is None:
        expected = "pip install 'rql-lightning[mujoco]', which brings it"
        raise ConfigurationError(f"env: found {name} and no installation of mujoco, expected {expected}")
    without = settings.get(POSITIONS, True)
    require(without is True, POSITIONS, without, "True: the add-on reward reads observations without positions")
    if not {"camera_id", "camera_name", "default_camera_config"} & settings.keys():
        settings["camera_name"] = "track"  # Gymnasium's default stands still, and what runs leaves the picture
    return gym.make(base, max_episode_steps=-1, disable_env_checker=True, **settings)


def _task(base: str, customization: Customization) -> Task:
    name = f"rql_lightning/{base.replace('-v5', '-v0')}"
    return replace(task_on(base, customization), make_reference=partial(_make, name, base))


COMMON: dict[str, Any] = {"is_success": survived, "vectorized": True, "read_only": True}
HALF_CHEETAH = Customization(
    add_on_reward=steady_front_foot,
    metric=Metric("mean_abs_foot_angle", absolute_front_foot_angle, "mean"),
    pictured=("angle of the front foot", front_foot_angle),
    **COMMON,
)
HOPPER = Customization(
    add_on_reward=high_torso,
    metric=Metric("mean_height", height, "mean"),
    pictured=("height of the torso", height),
    **COMMON,
)
SWIMMER = Customization(
    add_on_reward=straight_first_rotor,
    metric=Metric("mean_abs_rotor_angle", absolute_first_rotor_angle, "mean"),
    pictured=("angle of the first rotor", first_rotor_angle),
    **COMMON,
)
ANT = Customization(
    add_on_reward=towards_negative_y,
    metric=Metric("mean_y_velocity", y_velocity, "mean"),
    pictured=("velocity along y", y_velocity),
    **COMMON,
)
HALF_CHEETAH_TASK, HOPPER_TASK = _task("HalfCheetah-v5", HALF_CHEETAH), _task("Hopper-v5", HOPPER)
SWIMMER_TASK, ANT_TASK = _task("Swimmer-v5", SWIMMER), _task("Ant-v5", ANT)
make_half_cheetah, make_vec_half_cheetah = HALF_CHEETAH_TASK.make, HALF_CHEETAH_TASK.make_vec
make_hopper, make_vec_hopper = HOPPER_TASK.make, HOPPER_TASK.make_vec
make_swimmer, make_vec_swimmer = SWIMMER_TASK.make, SWIMMER_TASK.make_vec
make_ant, make_vec_ant = ANT_TASK.make, ANT_TASK.make_vec
