"""Parking: park in the marked slot (basic) without touching its side lines (add-on), on highway-env's ``parking-v0``.

``gym.make`` gives highway-env itself, ``gym.make_vec`` the compiled simulator.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv
from gymnasium.wrappers import TimeLimit

from rql_lightning.envs.customization import Customization, Metric
from rql_lightning.envs.maps import Map, Scene, State
from rql_lightning.envs.reference import configured, episode_steps, follow_camera, make_highway_env
from rql_lightning.envs.registration import Task

LINE_LENGTH, LINE_WIDTH, LINE_OFFSET = 8.0, 0.1, 2.0  # metres
LENGTH, WIDTH = 5.0, 2.0  # metres, of the car
SLOTS, AISLE = 14, 10.0  # slots on each side, which begin so many metres from y = 0


def parking_config(
    duration: float = 20,
    policy_frequency: int = 5,
    simulation_frequency: int = 15,
    reward_weights: Sequence[float] = (1, 0.3, 0, 0, 0.02, 0.02),
    success_goal_reward: float = 0.12,
    add_walls: bool = False,
    vehicles_count: int = 0,
    line_reward: float = -1.0,
    config: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The paper's Parking in highway-env's keys: the keyword arguments of ``gym.make`` and ``gym.make_vec``.

    Args:
        duration: Seconds of an episode.
        policy_frequency: Actions per second.
        simulation_frequency: Sub-steps per second.
        reward_weights: Of the distances in x, y, vx, vy, cos ψ and sin ψ (scaled) in the basic reward.
        success_goal_reward: The episode ends in success where the basic reward is above the negative of this.
        add_walls: Whether walls surround the lot (``gym.make`` only).
        vehicles_count: Parked vehicles (``gym.make`` only).
        line_reward: Add-on reward of a step that touches a side line (no key of highway-env).
        config: Any other key of highway-env.

    Raises:
        ConfigurationError: for a section that is no mapping, and a frequency or duration that makes no sense, by name.
    """
    settings = {
        "duration": duration,
        "policy_frequency": policy_frequency,
        "simulation_frequency": simulation_frequency,
        "reward_weights": reward_weights,
        "success_goal_reward": success_goal_reward,
        "add_walls": add_walls,
        "vehicles_count": vehicles_count,
    }
    return configured(settings, config)


def add_on_reward(observation: Any, action: Any, next_observation: Any, info: dict[str, Any], line: float) -> Any:
    """Return ``line`` (by default −1) where the car touches one of the two side lines of its goal, else 0."""
    return line * np.asarray(info["touches_line"], dtype=np.float64)


def clear_of_lines(observation: Any, action: Any, next_observation: Any, info: dict[str, Any]) -> Any:
    """1 where no line is touched, else 0; its minimum is 1 for an episode without a violation."""
    return 1.0 - np.asarray(info["touches_line"], dtype=np.float64)


def distance_to_goal(observation: Any, action: Any, next_observation: Any, info: dict[str, Any]) -> Any:
    """Metres from the centre of the car to that of its goal."""
    return 100.0 * np.hypot(
        next_observation[..., 6] - next_observation[..., 0], next_observation[..., 7] - next_observation[..., 1]
    )


def is_success(observation: Any, action: Any, next_observation: Any, info: dict[str, Any]) -> Any:
    """Whether the car is parked."""
    return info["is_success"]


def car_positions(state: State) -> np.ndarray:
    """Return x and y in metres of the car in n states, ``[n, 2]``."""
    return state["vehicles"][:, :2]


def lot_scene(state: State) -> Scene:
    """Return the lines of all slots, the car and its goal in the first of n states."""
    x, y, heading, _, goal_x, goal_y, goal_heading = state["vehicles"][0]
    places = (np.arange(SLOTS + 1) - SLOTS / 2) * 2 * LINE_OFFSET
    lines = [[[place, side * AISLE], [place, side * (AISLE + LINE_LENGTH)]] for side in (-1, 1) for place in places]
    return Scene(
        np.array(lines),
        np.zeros(len(lines), dtype=bool),
        np.array([[x, y, heading, LENGTH, WIDTH]]),
        np.array([[goal_x, goal_y, goal_heading, LENGTH, WIDTH]]),
    )


def customization(line_reward: float = -1.0, **settings: Any) -> Customization:
    """Return the customization of a Parking with these settings (:func:`parking_config`)."""
    camera = follow_camera(parking_config(**settings), scaling=7, centering=(0.5, 0.5))
    return Customization(
        add_on_reward=partial(add_on_reward, line=line_reward),
        metric=Metric("no_violation", clear_of_lines, "min"),
        is_success=is_success,
        vectorized=True,
        read_only=True,
        pictured=("distance to the goal (m)", distance_to_goal),
        map=Map(("vehicles",), car_positions, lot_scene, camera),
    )


class ParkingObservation(gym.Wrapper[Any, Any, Any, Any]):
    """Observations as one float32 vector ``[12]``, the desired goal and the car; ``info["touches_line"]``."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (12,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset the environment."""
        observation, info = self.env.reset(seed=seed, options=options)
        return _flat(observation), {**info, "touches_line": self.touches_line()}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """See :class:`gymnasium.Env`."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        info = {**info, "touches_line": self.touches_line()}
        return _flat(observation), reward, terminated, truncated, info

    def touches_line(self) -> bool:
        """Whether the car's polygon and that of a side line of its goal have a point in common."""
        from highway_env import utils

        car = self.unwrapped.vehicle
        for side in (-LINE_OFFSET, LINE_OFFSET):
            center = car.goal.position + np.array([side, 0.0])
            corners = utils.rect_corners(center, LINE_LENGTH, LINE_WIDTH, car.goal.heading)
            line = np.vstack([corners, corners[:1]])
            if utils.are_polygons_intersecting(car.polygon(), line, np.zeros(2), np.zeros(2))[0]:
                return True
        return False


def _flat(observation: dict[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([observation["desired_goal"], observation["observation"]]).astype(np.float32)


def make_reference(render_mode: str | None = None, **settings: Any) -> gym.Env[Any, Any]:
    """highway-env's ``parking-v0`` with flat observations."""
    config = parking_config(**settings)
    env = make_highway_env("highway_env:parking-v0", config, render_mode)
    return TimeLimit(ParkingObservation(env), episode_steps(config))


def make_compiled(
    num_envs: int,
    threads: int = 1,
    max_episode_steps: int | None = None,
    render_mode: str | None = "rgb_array",
    **settings: Any,
) -> VectorEnv:
    """Create the compiled simulator of Parking."""
    from rql_lightning.envs.simulation import ParkingVectorEnv  # here: Numba takes half a second to import

    config = parking_config(**settings)
    steps = min(episode_steps(config), max_episode_steps or episode_steps(config))
    return ParkingVectorEnv(num_envs, config, steps, threads, render_mode)


TASK = Task(customization, make_reference, make_compiled)
make, make_vec = TASK.make, TASK.make_vec
