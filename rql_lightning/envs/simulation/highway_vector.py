"""highway-env's Highway as a compiled vector environment."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from rql_lightning.envs.rendering import OffscreenRendering
from rql_lightning.envs.simulation import highway
from rql_lightning.envs.simulation.configuration import COSMETIC, check_same, check_timing, merge
from rql_lightning.envs.simulation.vector import CompiledVectorEnv
from rql_lightning.envs.simulation.vehicles import VEHICLE
from rql_lightning.errors import EnvironmentContractError, require

NAME = "Highway"
SPEED_LIMIT = 30.0
TRAFFIC = "highway_env.vehicle.behavior.IDMVehicle"

_OBSERVATION: dict[str, Any] = {
    "type": "Kinematics",
    "features": ["presence", "x", "y", "vx", "vy"],
    "vehicles_count": 5,
    "features_range": None,
    "absolute": False,
    "order": "sorted",
    "normalize": True,
    "clip": True,
    "see_behind": False,
    "observe_intentions": False,
    "include_obstacles": True,
}
_ACTION: dict[str, Any] = {"type": "DiscreteMetaAction", "longitudinal": True, "lateral": True, "target_speeds": None}
_MODELLED_VALUES = {
    "simulation_frequency": 15,
    "policy_frequency": 1,
    "lanes_count": 4,
    "vehicles_count": 50,
    "initial_lane_id": None,
    "duration": 40,
    "ego_spacing": 2,
    "vehicles_density": 1,
    "collision_reward": -1,
    "right_lane_reward": 0.1,
    "high_speed_reward": 0.4,
    "lane_change_reward": 0,
    "reward_speed_range": [20, 30],
    "normalize_reward": True,
    "offroad_terminal": False,
    "neighbour_vehicles_connected_lanes": False,  # one straight road has no connected lanes
}
_FIXED_VALUES = {"controlled_vehicles": 1, "other_vehicles_type": TRAFFIC, "manual_control": False}
DEFAULTS: dict[str, Any] = {
    **COSMETIC,
    **_MODELLED_VALUES,
    **_FIXED_VALUES,
    "observation": _OBSERVATION,
    "action": _ACTION,
}
"""highway-env's own configuration of ``highway-v0``."""


class HighwayVectorEnv(CompiledVectorEnv):
    """N highways: straight lanes, traffic that follows IDM and MOBIL, and an ego vehicle with five meta-actions.

    Observations are highway-env's ``Kinematics`` rows, flattened: float32 ``[5 · vehicles]``. The reward is
    highway-env's own; its terms are in ``info["rewards"]``, beside ``speed`` (m/s) and ``crashed``.

    Args:
        num_envs: N.
        config: highway-env's keys, over its own defaults for ``highway-v0``.
        max_episode_steps: See :class:`~rql_lightning.envs.simulation.vector.CompiledVectorEnv`.
        threads: Of a step.

    Raises:
        ConfigurationError: for what the simulator does not model, by name.
    """

    def __init__(
        self,
        num_envs: int = 1,
        config: dict[str, Any] | None = None,
        max_episode_steps: int | None = None,
        threads: int = 1,
    ) -> None:
        config = _checked_config(config)
        rows = config["observation"]["vehicles_count"]
        observation_space = gym.spaces.Box(-np.inf, np.inf, (rows * highway.FEATURES,), np.float32)
        super().__init__(num_envs, observation_space, gym.spaces.Discrete(5), config, max_episode_steps, threads)
        self.vehicles = np.zeros((num_envs, config["vehicles_count"] + 1), VEHICLE)
        self._rewards = np.zeros((num_envs, len(highway.REWARDS)))
        self._see_behind = bool(config["observation"]["see_behind"])
        speeds = config["action"]["target_speeds"]
        self._target_speeds = np.linspace(20, 30, 3) if speeds is None else np.array(speeds, dtype=np.float64)
        initial_lane = config["initial_lane_id"]
        self._scene = highway.Scene(
            lanes=config["lanes_count"],
            speed_limit=SPEED_LIMIT,
            dt=1 / config["simulation_frequency"],
            sub_steps=int(config["simulation_frequency"] // config["policy_frequency"]),
            step_seconds=1 / config["policy_frequency"],
            ego_lane=-1 if initial_lane is None else initial_lane,
            ego_spacing=float(config["ego_spacing"]),
            traffic_spacing=1 / config["vehicles_density"],
            least_speed=float(config["reward_speed_range"][0]),
            most_speed=float(config["reward_speed_range"][1]),
        )

    def _reset(self, mask: np.ndarray) -> None:
        state = (self.vehicles, self.generators, self.times, mask)
        highway.reset(*state, self._scene, self._target_speeds, self._see_behind, self._observations, self._rewards)

    def _advance(self, actions: np.ndarray) -> None:
        state = (self.vehicles, self.times, actions)
        step = self._chosen(highway.step, highway.step_parallel)
        step(*state, self._scene, self._target_speeds, self._see_behind, self._observations, self._rewards)

    def _observe(self) -> None:
        highway.observe(self.vehicles, self._scene, self._see_behind, self._observations, self._rewards)

    def _outcome(self) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
        terms = dict(zip(highway.REWARDS, self._rewards.T.copy(), strict=True))
        crashed, on_road = terms["collision_reward"] > 0, terms["on_road_reward"]
        weight = self.config
        reward = sum(weight[name] * terms[name] for name in highway.REWARDS[:3])
        if weight["normalize_reward"]:
            most = weight["high_speed_reward"] + weight["right_lane_reward"]
            reward = (reward - weight["collision_reward"]) / (most - weight["collision_reward"])
        terminated = crashed | (on_road == 0) if weight["offroad_terminal"] else crashed
        info = {"speed": self.vehicles["speed"][:, 0].copy(), "crashed": crashed, "rewards": terms}
        return reward * on_road, terminated.copy(), info

    def _checked(self, actions: np.ndarray) -> np.ndarray:
        count = int(self.single_action_space.n)
        expected = f"expected {self.num_envs} integers in [0, {count})"
        if actions.shape != (self.num_envs,) or not np.issubdtype(actions.dtype, np.integer):
            found = f"found an array of shape {actions.shape} and type {actions.dtype}"
            raise EnvironmentContractError(f"{type(self).__name__}.step, actions: {found}, {expected}")
        if ((actions < 0) | (actions >= count)).any():
            index = int(np.argmax((actions < 0) | (actions >= count)))
            found = f"found {actions[index]} for environment {index}"
            raise EnvironmentContractError(f"{type(self).__name__}.step, actions: {found}, {expected}")
        return actions.astype(np.int64)

    def _make_reference(self) -> gym.Env[Any, Any]:
        env = gym.make("highway_env:highway-v0", config=self.config, render_mode="rgb_array", disable_env_checker=True)
        return OffscreenRendering(env)

    # -- the reference -----------------------------------------------------------------------------------------------

    def _check_reference(self, env: Any) -> None:
        from highway_env.envs import HighwayEnv
        from highway_env.vehicle.behavior import IDMVehicle
        from highway_env.vehicle.controller import MDPVehicle

        if not isinstance(env, HighwayEnv):
            found = f"found {type(env).__name__}"
            raise EnvironmentContractError(f"reference environment: {found}, expected highway-env's HighwayEnv")
        check_same(env.config, self.config, set(_MODELLED_VALUES) | set(_FIXED_VALUES))
        _checked_config({key: env.config[key] for key in ("observation", "action")})
        for key in ("observation", "action"):
            check_same({**DEFAULTS[key], **env.config[key]}, self.config[key], set(DEFAULTS[key]))
        vehicles = env.road.vehicles
        if len(vehicles) != self.vehicles.shape[1] or env.road.objects:
            found = f"found {len(vehicles)} vehicles and {len(env.road.objects)} objects"
            raise EnvironmentContractError(
                f"reference environment: {found}, expected {self.vehicles.shape[1]} and none"
            )
        for index, vehicle in enumerate(vehicles):
            kind = MDPVehicle if index == 0 else IDMVehicle
            if type(vehicle) is not kind:
                found = f"found a {type(vehicle).__name__} as vehicle {index}"
                raise EnvironmentContractError(f"reference environment: {found}, expected a {kind.__name__}")

    def _load(self, index: int, env: Any) -> None:
        self._check_reference(env)
        for own, vehicle in zip(self.vehicles[index], env.road.vehicles, strict=True):
            own["x"], own["y"] = vehicle.position
            own["heading"], own["speed"] = vehicle.heading, vehicle.speed
            own["lane"], own["target_lane"] = vehicle.lane_index[2], vehicle.target_lane_index[2]
            own["target_speed"] = vehicle.target_speed
            own["exponent"], own["timer"] = getattr(vehicle, "DELTA", 0.0), getattr(vehicle, "timer", 0.0)
            own["crashed"], own["has_impact"] = vehicle.crashed, vehicle.impact is not None
            own["impact_x"], own["impact_y"] = (0.0, 0.0) if vehicle.impact is None else vehicle.impact

    def _store(self, index: int, env: Any) -> None:
        self._check_reference(env)
        for position, (own, vehicle) in enumerate(zip(self.vehicles[index], env.road.vehicles, strict=True)):
            vehicle.position = np.array([own["x"], own["y"]])
            vehicle.heading, vehicle.speed = float(own["heading"]), float(own["speed"])
            vehicle.lane_index = ("0", "1", int(own["lane"]))
            vehicle.lane = env.road.network.get_lane(vehicle.lane_index)
            vehicle.target_lane_index = ("0", "1", int(own["target_lane"]))
            vehicle.target_speed = float(own["target_speed"])
            if position == 0:
                vehicle.speed_index = vehicle.speed_to_index(vehicle.target_speed)
            else:
                vehicle.DELTA, vehicle.timer = float(own["exponent"]), float(own["timer"])
            vehicle.crashed = bool(own["crashed"])
            vehicle.impact = np.array([own["impact_x"], own["impact_y"]]) if own["has_impact"] else None


def _checked_config(config: dict[str, Any] | None) -> dict[str, Any]:
    """A whole configuration that the simulator models."""
    modelled = {*COSMETIC, *_MODELLED_VALUES, "observation", "action"}
    merged = merge(NAME, DEFAULTS, modelled, config)
    seen = {"vehicles_count", "see_behind", "observe_intentions", "include_obstacles"}
    merged["observation"] = merge(NAME, _OBSERVATION, seen, merged["observation"], "observation.")
    merged["action"] = merge(NAME, _ACTION, {"target_speeds"}, merged["action"], "action.")
    check_timing(merged)
    for key, least in (("lanes_count", 1), ("vehicles_count", 0)):
        require(isinstance(merged[key], int) and merged[key] >= least, key, merged[key], f"an integer >= {least}")
    for key in ("vehicles_density", "ego_spacing"):
        require(0 < merged[key] < np.inf, key, merged[key], "a number > 0")
    lane, lanes = merged["initial_lane_id"], merged["lanes_count"]
    require(lane is None or lane in range(lanes), "initial_lane_id", lane, f"a lane in [0, {lanes}) or None")
    low, high = merged["reward_speed_range"]
    require(low < high, "reward_speed_range", [low, high], "two speeds, the lower first")
    rows = merged["observation"]["vehicles_count"]
    require(isinstance(rows, int) and rows >= 2, "observation.vehicles_count", rows, "an integer >= 2")
    speeds = merged["action"]["target_speeds"]
    even = speeds is None or (len(speeds) >= 2 and np.ptp(np.diff(speeds)) < 1e-9 and speeds[1] > speeds[0])
    require(even, "action.target_speeds", speeds, "at least two evenly spaced, increasing speeds, or None")
    return merged
