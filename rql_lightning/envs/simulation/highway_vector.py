"""highway-env's Highway as a compiled vector environment."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from rql_lightning.envs.reference import is_number
from rql_lightning.envs.simulation import highway
from rql_lightning.envs.simulation.configuration import Model
from rql_lightning.envs.simulation.vector import CompiledVectorEnv
from rql_lightning.envs.simulation.vehicles import VEHICLE
from rql_lightning.errors import EnvironmentContractError, require

SPEED_LIMIT = 30.0

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
_DYNAMIC = {
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
MODEL = Model(
    name="Highway",
    reference="highway_env:highway-v0",
    dynamic=_DYNAMIC,
    fixed={
        "controlled_vehicles": 1,
        "other_vehicles_type": "highway_env.vehicle.behavior.IDMVehicle",
        "manual_control": False,
    },
    observation=_OBSERVATION,
    action=_ACTION,
    free=frozenset(
        {
            "observation.vehicles_count",
            "observation.see_behind",
            "observation.observe_intentions",  # no feature shows them
            "observation.include_obstacles",  # there are none
            "action.target_speeds",
        }
    ),
)
"""highway-env's own configuration of ``highway-v0``."""


class HighwayVectorEnv(CompiledVectorEnv):
    """N highways: straight lanes, traffic that follows IDM and MOBIL, and an ego vehicle with five meta-actions.

    Observations are highway-env's ``Kinematics`` rows, flattened: float32 ``[5 · vehicles]``. The reward is
    highway-env's own; its terms are in ``info["rewards"]``, beside ``speed`` (m/s) and ``crashed``.

    Arguments and errors are those of :class:`~rql_lightning.envs.simulation.vector.CompiledVectorEnv`; ``config`` is
    over highway-env's own defaults for ``highway-v0``.
    """

    model = MODEL

    def _check_config(self) -> None:
        config = self.config
        for key, least in (("lanes_count", 1), ("vehicles_count", 0)):
            require(isinstance(config[key], int) and config[key] >= least, key, config[key], f"an integer >= {least}")
        for key in ("vehicles_density", "ego_spacing"):
            require(is_number(config[key]) and config[key] > 0, key, config[key], "a number > 0")
        lane, lanes = config["initial_lane_id"], config["lanes_count"]
        require(lane is None or lane in range(lanes), "initial_lane_id", lane, f"a lane in [0, {lanes}) or None")
        limits = config["reward_speed_range"]
        two = isinstance(limits, list) and len(limits) == 2 and all(map(is_number, limits)) and limits[0] < limits[1]
        require(two, "reward_speed_range", limits, "two speeds, the lower first")
        rows = config["observation"]["vehicles_count"]
        require(isinstance(rows, int) and rows >= 2, "observation.vehicles_count", rows, "an integer >= 2")
        speeds = config["action"]["target_speeds"]
        several = isinstance(speeds, list) and len(speeds) >= 2 and all(map(is_number, speeds))
        even = speeds is None or (several and np.ptp(np.diff(speeds)) < 1e-9 and speeds[1] > speeds[0])
        require(even, "action.target_speeds", speeds, "at least two evenly spaced, increasing speeds, or None")

    def _spaces(self) -> tuple[gym.spaces.Box, gym.Space[Any]]:
        size = self.config["observation"]["vehicles_count"] * highway.FEATURES
        return gym.spaces.Box(-np.inf, np.inf, (size,), np.float32), gym.spaces.Discrete(5)

    def _allocate(self) -> None:
        config = self.config
        self.vehicles = np.zeros((self.num_envs, config["vehicles_count"] + 1), VEHICLE)
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

    def _allocate_outcome(self) -> None:
        self._rewards = np.zeros((self.num_envs, len(highway.REWARDS)))

    @property
    def compiled_settings(self) -> tuple[highway.Scene, np.ndarray, bool]:
        """What the functions of :mod:`~rql_lightning.envs.simulation.highway` take as settings."""
        return self._scene, self._target_speeds, self._see_behind

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

    # -- the reference -----------------------------------------------------------------------------------------------

    def _check_vehicles(self, env: Any) -> None:
        """The number and the kinds of the vehicles on a reference's road."""
        from highway_env.vehicle.behavior import IDMVehicle
        from highway_env.vehicle.controller import MDPVehicle

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
        self._check_vehicles(env)
        for own, vehicle in zip(self.vehicles[index], env.road.vehicles, strict=True):
            own["x"], own["y"] = vehicle.position
            own["heading"], own["speed"] = vehicle.heading, vehicle.speed
            own["lane"], own["target_lane"] = vehicle.lane_index[2], vehicle.target_lane_index[2]
            own["target_speed"] = vehicle.target_speed
            own["exponent"], own["timer"] = getattr(vehicle, "DELTA", 0.0), getattr(vehicle, "timer", 0.0)
            own["crashed"], own["has_impact"] = vehicle.crashed, vehicle.impact is not None
            own["impact_x"], own["impact_y"] = (0.0, 0.0) if vehicle.impact is None else vehicle.impact

    def _store(self, index: int, env: Any) -> None:
        self._check_vehicles(env)
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
