"""Compiled environments beside highway-env, in the same episodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from rql_lightning.envs.simulation import HighwayVectorEnv
from rql_lightning.envs.simulation.vehicles import VEHICLE

ROW = 1  # of the compiled environments: the one that plays the reference's episode


def vehicles_of(reference: gym.Env[Any, Any]) -> np.ndarray:
    """highway-env's vehicles as rows of the compiled state, float64 ``[V, fields]``."""
    rows = []
    for vehicle in reference.unwrapped.road.vehicles:
        impact = (0.0, 0.0) if vehicle.impact is None else tuple(vehicle.impact)
        lanes = (vehicle.lane_index[2], vehicle.target_lane_index[2])
        own = (getattr(vehicle, "DELTA", 0.0), getattr(vehicle, "timer", 0.0))
        motion = (*vehicle.position, vehicle.heading, vehicle.speed)
        rows.append((*motion, *lanes, vehicle.target_speed, *own, vehicle.crashed, vehicle.impact is not None, *impact))
    assert len(rows[0]) == len(VEHICLE.names)
    return np.array(rows, dtype=np.float64)


class Comparison:
    """Plays one episode on both sides and keeps the largest deviation of what it saw."""

    def __init__(self) -> None:
        self.deviation, self.steps = 0.0, 0
        self.events = {"crashes": 0, "impacts": 0, "lane changes": 0, "aborted lane changes": 0}

    def differ(self, found: Any, expected: Any) -> None:
        found, expected = np.asarray(found, dtype=np.float64), np.asarray(expected, dtype=np.float64)
        assert found.shape == expected.shape
        self.deviation = max(self.deviation, float(np.abs(found - expected).max(initial=0.0)))

    def count(self, before: np.ndarray, after: np.ndarray) -> None:
        lane, target = VEHICLE.names.index("lane"), VEHICLE.names.index("target_lane")
        impact, crashed = VEHICLE.names.index("has_impact"), VEHICLE.names.index("crashed")
        self.events["crashes"] += int(after[0, crashed])
        self.events["impacts"] += int(after[1:, impact].any())
        self.events["lane changes"] += int((before[1:, lane] != after[1:, lane]).sum())
        aborted = (before[:, lane] != before[:, target]) & (after[:, target] == before[:, lane])
        self.events["aborted lane changes"] += int((aborted & (after[:, lane] == before[:, lane]))[1:].sum())

    def play(self, id: str, actions: Callable[[gym.Env[Any, Any]], Any], seed: int, **settings: Any) -> bool:
        """One episode; whether it ends at the same step on both sides."""
        reference = gym.make(id, **settings)
        compiled = gym.make_vec(id, num_envs=3, **settings)
        self.differ(compiled.reset(seed=seed - ROW)[0][ROW], reference.reset(seed=seed)[0])
        traffic = isinstance(compiled.unwrapped, HighwayVectorEnv)
        done = False
        while not done:
            before = vehicles_of(reference) if traffic else None
            action = actions(reference)
            observation, reward, terminated, truncated, info = reference.step(action)
            own = compiled.step(np.array([action] * 3))
            self.differ(own[0][ROW], observation)
            self.differ(own[1][ROW], reward)
            for key in ("basic_reward", "add_on_reward", "is_success", "speed", "crashed"):
                self.differ(own[4][key][ROW], info[key])
            if traffic:
                self.differ(compiled.get_state([ROW])["vehicles"][0], vehicles_of(reference))
                self.differ(own[4]["lane_index"][ROW], info["lane_index"])
                self.count(before, vehicles_of(reference))
            self.steps += 1
            done = terminated or truncated
            if (own[2][ROW], own[3][ROW]) != (terminated, truncated):
                return False
        reference.close()
        return True


@pytest.fixture(name="vehicles_of")
def _vehicles_of() -> Callable[..., np.ndarray]:
    return vehicles_of


@pytest.fixture
def comparison() -> Comparison:
    return Comparison()
