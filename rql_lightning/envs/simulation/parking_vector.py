"""highway-env's Parking as a compiled vector environment."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np

from rql_lightning.envs.reference import is_number
from rql_lightning.envs.simulation import parking
from rql_lightning.envs.simulation.configuration import COSMETIC, Model
from rql_lightning.envs.simulation.vector import CompiledVectorEnv
from rql_lightning.errors import EnvironmentContractError, require

_OBSERVATION: dict[str, Any] = {
    "type": "KinematicsGoal",
    "features": ["x", "y", "vx", "vy", "cos_h", "sin_h"],
    "scales": [100, 100, 5, 5, 1, 1],
    "normalize": False,
}
_ACTION: dict[str, Any] = {
    "type": "ContinuousAction",
    "acceleration_range": None,
    "steering_range": None,
    "speed_range": None,
    "longitudinal": True,
    "lateral": True,
    "dynamical": False,
    "clip": True,
}
_DYNAMIC = {
    "simulation_frequency": 15,
    "policy_frequency": 5,
    "duration": 100,
    "reward_weights": [1, 0.3, 0, 0, 0.02, 0.02],
    "success_goal_reward": 0.12,
    "collision_reward": -5,  # there is nothing to collide with
    "steering_range": math.radians(45),  # highway-env reads the action's own
    "neighbour_vehicles_connected_lanes": False,  # there is no traffic
    "other_vehicles_type": "highway_env.vehicle.behavior.IDMVehicle",
}
MODEL = Model(
    name="Parking",
    reference="highway_env:parking-v0",
    dynamic=_DYNAMIC,
    fixed={"controlled_vehicles": 1, "vehicles_count": 0, "add_walls": False, "manual_control": False},
    observation=_OBSERVATION,
    action=_ACTION,
    cosmetic={**COSMETIC, "screen_height": 300, "centering_position": [0.5, 0.5], "scaling": 7},
)
"""highway-env's own configuration of ``parking-v0``, without the walls."""


class ParkingVectorEnv(CompiledVectorEnv):
    """N parking lots: a car with acceleration and steering in [−1, 1], and a goal in one of 28 slots.

    Observations are the desired goal and the car, float32 ``[12]``: x, y, vx, vy, cos ψ, sin ψ of each, scaled by 100,
    100, 5, 5, 1, 1. The reward is highway-env's own. Infos: ``speed`` (m/s), ``crashed`` (never), ``is_success`` and
    ``touches_line``, whether the car touches one of the two side lines of its goal.

    Arguments and errors are those of :class:`~rql_lightning.envs.simulation.vector.CompiledVectorEnv`; ``config`` is
    over highway-env's own defaults for ``parking-v0``, but for ``add_walls``, which is False.
    """

    model = MODEL

    def _check_config(self) -> None:
        weights, success = self.config["reward_weights"], self.config["success_goal_reward"]
        numbers = isinstance(weights, list) and all(is_number(weight) and weight >= 0 for weight in weights)
        accepted = numbers and len(weights) == parking.FEATURES
        require(accepted, "reward_weights", weights, f"{parking.FEATURES} numbers >= 0")
        require(is_number(success) and success > 0, "success_goal_reward", success, "a number > 0")

    def _spaces(self) -> tuple[gym.spaces.Box, gym.Space[Any]]:
        observation_space = gym.spaces.Box(-np.inf, np.inf, (2 * parking.FEATURES,), np.float32)
        return observation_space, gym.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def _allocate(self) -> None:
        self.vehicles = np.zeros(self.num_envs, parking.CAR)
        self._weights = np.array(self.config["reward_weights"], dtype=np.float64)

    def _allocate_outcome(self) -> None:
        self._outcomes = np.zeros((self.num_envs, 2))

    def _reset(self, mask: np.ndarray) -> None:
        state = (self.vehicles, self.generators, self.times, mask)
        parking.reset(*state, self._weights, self._observations, self._outcomes)

    def _advance(self, actions: np.ndarray) -> None:
        simulation, policy = self.config["simulation_frequency"], self.config["policy_frequency"]
        # In the actions' own precision, as highway-env does it.
        acceleration = -5 + (actions[:, 0] + 1) * 10.0 / 2
        steering = -math.pi / 4 + (actions[:, 1] + 1) * (math.pi / 4 + math.pi / 4) / 2
        controls = (acceleration.astype(np.float64), steering.astype(np.float64))
        timing = (int(simulation // policy), 1 / simulation, 1 / policy)
        step = self._chosen(parking.step, parking.step_parallel)
        step(self.vehicles, self.times, *controls, *timing, self._weights, self._observations, self._outcomes)

    def _observe(self) -> None:
        parking.observe(self.vehicles, self._weights, self._observations, self._outcomes)

    def _outcome(self) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
        reward, touches = self._outcomes[:, 0].copy(), self._outcomes[:, 1] > 0
        success = reward > -self.config["success_goal_reward"]
        speed, crashed = self.vehicles["speed"].copy(), np.zeros(self.num_envs, dtype=bool)
        info = {"speed": speed, "crashed": crashed, "is_success": success, "touches_line": touches}
        return reward, success.copy(), info

    def _checked(self, actions: np.ndarray) -> np.ndarray:
        where, shape = f"{type(self).__name__}.step, actions", (self.num_envs, 2)
        if actions.shape != shape or not np.issubdtype(actions.dtype, np.floating):
            found = f"found an array of shape {actions.shape} and type {actions.dtype}"
            raise EnvironmentContractError(f"{where}: {found}, expected floating-point numbers of shape {shape}")
        if not np.isfinite(actions).all():
            index = int(np.argmin(np.isfinite(actions).all(axis=1)))
            found = f"found {actions[index].tolist()} for environment {index}"
            raise EnvironmentContractError(f"{where}: {found}, expected finite numbers in [-1, 1]")
        return np.clip(actions, -1, 1)  # as highway-env does

    # -- the reference -----------------------------------------------------------------------------------------------

    def _load(self, index: int, env: Any) -> None:
        own, car, goal = self.vehicles[index], env.vehicle, env.vehicle.goal
        own["x"], own["y"] = car.position
        own["heading"], own["speed"] = car.heading, car.speed
        own["goal_x"], own["goal_y"] = goal.position
        own["goal_heading"] = goal.heading

    def _store(self, index: int, env: Any) -> None:
        own, car, goal = self.vehicles[index], env.vehicle, env.vehicle.goal
        car.position = np.array([own["x"], own["y"]])
        car.heading, car.speed, car.crashed = float(own["heading"]), float(own["speed"]), False
        goal.position, goal.heading = np.array([own["goal_x"], own["goal_y"]]), float(own["goal_heading"])
        goal.hit = False
        for thing in (car, goal):
            thing.lane_index = env.road.network.get_closest_lane_index(thing.position, thing.heading)
            thing.lane = env.road.network.get_lane(thing.lane_index)
