"""Highway: drive fast without a crash (basic) and keep to the right (add-on), on highway-env's ``highway-v0``.

``gym.make`` gives highway-env itself, ``gym.make_vec`` the compiled simulator. Both rewards are computed from the
terms of highway-env's own, which its ``normalize_reward`` rescales.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv
from gymnasium.wrappers import FlattenObservation, TimeLimit

from rql_lightning.envs.customization import Customization, Metric
from rql_lightning.envs.maps import Map, Scene, State
from rql_lightning.envs.reference import configured, episode_steps, follow_camera, make_highway_env
from rql_lightning.envs.registration import Task

LANE_WIDTH = 4.0  # metres
LENGTH, WIDTH = 5.0, 2.0  # metres, of every vehicle
VIEW = 500.0  # metres of road before and behind the ego vehicle on the map
ACTIONS = ("LANE_LEFT", "IDLE", "LANE_RIGHT", "FASTER", "SLOWER")  # highway-env's DiscreteMetaAction
RIGHT_LANE_REWARD, CRASH_PENALTY = 0.5, 5.0


def highway_config(
    lanes_count: int = 3,
    vehicles_count: int = 30,
    duration: float = 40,
    policy_frequency: int = 1,
    simulation_frequency: int = 5,
    ego_spacing: float = 1.5,
    vehicles_density: float = 1,
    high_speed_reward: float = 0.4,
    collision_reward: float = -0.5,
    right_lane_reward: float = RIGHT_LANE_REWARD,
    reward_speed_range: Sequence[float] = (20, 30),
    config: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The paper's Highway in highway-env's keys: the keyword arguments of ``gym.make`` and ``gym.make_vec``.

    Args:
        lanes_count: Lanes of the road.
        vehicles_count: Vehicles beside the ego vehicle.
        duration: Seconds of an episode.
        policy_frequency: Actions per second.
        simulation_frequency: Sub-steps per second.
        ego_spacing: Gap in front of the ego vehicle at the start, relative to the usual one.
        vehicles_density: Density of the traffic at the start.
        high_speed_reward: Weight of speed in the basic reward.
        collision_reward: Weight of a crash in the basic reward.
        right_lane_reward: Weight of the lane in the add-on reward.
        reward_speed_range: Speeds in m/s at which the reward for speed is 0 and 1.
        config: Any other key of highway-env.

    Raises:
        ConfigurationError: for a section that is no mapping, and a frequency or duration that makes no sense, by name.
    """
    settings = {
        "lanes_count": lanes_count,
        "vehicles_count": vehicles_count,
        "duration": duration,
        "policy_frequency": policy_frequency,
        "simulation_frequency": simulation_frequency,
        "ego_spacing": ego_spacing,
        "vehicles_density": vehicles_density,
        "high_speed_reward": high_speed_reward,
        "collision_reward": collision_reward,
        "right_lane_reward": right_lane_reward,
        "reward_speed_range": reward_speed_range,
    }
    return configured(settings, config)


def basic_reward(
    observation: Any, action: Any, next_observation: Any, info: dict[str, Any], speed: float, collision: float
) -> Any:
    """Return 1 + speed · clip((v cos ψ − low) / (high − low), 0, 1) + collision · crashed, and 0 off the road."""
    terms = info["rewards"]
    reward = 1.0 + speed * terms["high_speed_reward"] + collision * terms["collision_reward"]
    return reward * terms["on_road_reward"]


def add_on_reward(observation: Any, action: Any, next_observation: Any, info: dict[str, Any], right_lane: float) -> Any:
    """Return right_lane · lane / (lanes − 1), with the target lane's index from the left, and 0 off the road."""
    return right_lane * info["rewards"]["right_lane_reward"] * info["rewards"]["on_road_reward"]


def careful_add_on_reward(observation: Any, action: Any, next_observation: Any, info: dict[str, Any]) -> Any:
    """Return the add-on reward with weight 0.5, minus 5 for a crash: for planners, which foresee crashes.

    A prior may crash now and then; this adds the common sense that nobody wants to.
    """
    wish = add_on_reward(observation, action, next_observation, info, RIGHT_LANE_REWARD)
    return wish - CRASH_PENALTY * info["crashed"]


def observed_add_on_reward(
    observation: Any, action: Any, next_observation: Any, info: dict[str, Any], right_lane: float = 0.5, lanes: int = 3
) -> Any:
    """Return right_lane · lane / (lanes − 1), with the index of the lane that the ego vehicle is nearest to.

    It needs observations alone. :func:`add_on_reward` takes the lane that the vehicle is steering to, which is another
    one while it changes lanes.
    """
    lane = np.clip(np.rint(next_observation[..., 2] * lanes), 0.0, lanes - 1)  # y / (4 m · lanes) is seen
    return right_lane * lane / max(lanes - 1, 1)


def observed_careful_add_on_reward(observation: Any, action: Any, next_observation: Any, info: dict[str, Any]) -> Any:
    """Return :func:`observed_add_on_reward` of three lanes, minus 5 at the end of an episode, for learned models."""
    wish = observed_add_on_reward(observation, action, next_observation, info)
    return wish - CRASH_PENALTY * info["terminated"]


def lane_index(observation: Any, action: Any, next_observation: Any, info: dict[str, Any]) -> Any:
    """Return the target lane's index / (lanes − 1): 0 for the leftmost lane, 1 for the rightmost."""
    return info["rewards"]["right_lane_reward"]


def lateral_position(observation: Any, action: Any, next_observation: Any, info: dict[str, Any], lanes: int) -> Any:
    """Metres to the right of the leftmost lane's centre."""
    return LANE_WIDTH * lanes * next_observation[..., 2]


def is_success(observation: Any, action: Any, next_observation: Any, info: dict[str, Any], steps: int) -> Any:
    """Return whether all steps of an episode were reached without a crash, regardless of other time limits."""
    return np.greater_equal(info["step"], steps) & np.logical_not(info["crashed"])


def ego_positions(state: State) -> np.ndarray:
    """Return x along the road and y across it, in metres, of the ego vehicle in n states, ``[n, 2]``."""
    return state["vehicles"][:, 0, :2]


def road_scene(state: State, lanes: int) -> Scene:
    """Return lanes and vehicles in the first of n states, the ego vehicle first."""
    vehicles = state["vehicles"][0]
    borders = LANE_WIDTH * (np.arange(lanes + 1) - 0.5)
    lines = np.empty((lanes + 1, 2, 2))
    lines[:, :, 0] = vehicles[0, 0] + np.array([-VIEW, VIEW])
    lines[:, :, 1] = borders[:, np.newaxis]
    dashed = (borders > borders[0]) & (borders < borders[-1])
    return Scene(lines, dashed, np.insert(vehicles[:, :3], 3, [[LENGTH], [WIDTH]], axis=1))


def customization(**settings: Any) -> Customization:
    """Return the customization of a Highway with these settings (:func:`highway_config`)."""
    config = highway_config(**settings)
    weights = {"speed": config["high_speed_reward"], "collision": config["collision_reward"]}
    weight, lanes = config["right_lane_reward"], config["lanes_count"]
    return Customization(
        add_on_reward=partial(add_on_reward, right_lane=weight),
        basic_reward=partial(basic_reward, **weights),
        metric=Metric("lane_index", lane_index, "mean"),
        is_success=partial(is_success, steps=episode_steps(config)),
        vectorized=True,
        read_only=True,
        pictured=("lateral position y (m), one lane every 4 m", partial(lateral_position, lanes=lanes)),
        action_names=ACTIONS,
        map=Map(
            needs=("vehicles",),
            positions=ego_positions,
            scene=partial(road_scene, lanes=lanes),
            camera=follow_camera(config, scaling=5.5, centering=(0.3, 0.5)),
        ),
        observed_add_on_reward=partial(observed_add_on_reward, right_lane=weight, lanes=lanes),
    )


def make_reference(render_mode: str | None = None, **settings: Any) -> gym.Env[Any, Any]:
    """highway-env's ``highway-v0`` with flat observations."""
    config = highway_config(**settings)
    env = make_highway_env("highway_env:highway-v0", config, render_mode)
    return TimeLimit(FlattenObservation(env), episode_steps(config))


def make_compiled(
    num_envs: int,
    threads: int = 1,
    max_episode_steps: int | None = None,
    render_mode: str | None = "rgb_array",
    **settings: Any,
) -> VectorEnv:
    """Create the compiled simulator of Highway."""
    from rql_lightning.envs.simulation import HighwayVectorEnv  # here: Numba takes half a second to import

    config = highway_config(**settings)
    steps = min(episode_steps(config), max_episode_steps or episode_steps(config))
    return HighwayVectorEnv(num_envs, config, steps, threads, render_mode)


TASK = Task(customization, make_reference, make_compiled)
make, make_vec = TASK.make, TASK.make_vec
