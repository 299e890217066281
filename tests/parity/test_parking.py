"""The compiled Parking against highway-env, step by step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from highway_env.envs import ParkingEnv

from rql_lightning.envs.simulation import ParkingVectorEnv
from rql_lightning.envs.simulation.parking_vector import MODEL

ID = "rql_lightning/Parking-v0"
TOLERANCE = 1e-9


def driver(kind: str, seed: int) -> Callable[[Any], np.ndarray]:
    """Actions of one kind; the greedy one turns towards the goal, and meets lines and slots."""
    rng = np.random.default_rng(seed)

    def act(env: Any) -> np.ndarray:
        if kind == "random":
            return rng.uniform(-1.3, 1.3, 2).astype(np.float32)
        if kind == "float64":
            return rng.uniform(-1, 1, 2)
        if kind == "full speed":
            return np.array([1.0, 0.05 * rng.normal()], dtype=np.float32)
        car = env.unwrapped.vehicle
        to_goal = car.goal.position - car.position
        turn = (math.atan2(to_goal[1], to_goal[0]) - car.heading + math.pi) % (2 * math.pi) - math.pi
        speed = min(6.0, 0.4 * float(np.linalg.norm(to_goal)))
        return np.array([speed - car.speed, 1.5 * turn], dtype=np.float32)

    return act


@pytest.mark.parametrize("kind", ["random", "float64", "full speed", "greedy"])
def test_whole_episodes_agree(kind, comparison):
    for seed in range(3):
        assert comparison.play(ID, driver(kind, seed), seed + 1)
    assert comparison.deviation < TOLERANCE and comparison.steps >= 30


@pytest.mark.slow
def test_many_whole_episodes_agree(comparison):
    rng, different = np.random.default_rng(0), 0
    for seed in range(200):
        settings = {"policy_frequency": [5, 3][rng.integers(2)], "simulation_frequency": [15, 30][rng.integers(2)]}
        kind = ["random", "greedy", "greedy", "full speed"][seed % 4]
        different += not comparison.play(ID, driver(kind, seed), seed + 1, **settings)
    print(f"{comparison.steps} steps, {different} of 200 episodes differ, deviation {comparison.deviation}")
    assert different <= 2 and comparison.deviation < TOLERANCE


def test_parked_cars_succeed_and_lines_are_touched_where_they_are():
    reference, compiled = gym.make(ID), gym.make_vec(ID, num_envs=2)
    reference.reset(seed=3)
    compiled.reset(seed=0)
    car = reference.unwrapped.vehicle
    rng, outcomes = np.random.default_rng(1), []
    for _ in range(60):
        offset = rng.uniform(-1, 1, 2) * [2.5, 8.0]
        car.position = car.goal.position + offset
        car.heading, car.speed = car.goal.heading + float(rng.normal(0, 0.3)), 0.0
        compiled.load_reference(1, reference)
        *_, terminated, _, info = reference.step(np.zeros(2, np.float32))
        _, _, terminations, _, infos = compiled.step(np.zeros((2, 2), np.float32))
        assert infos["touches_line"][1] == info["touches_line"] == touches_by_points(car)
        assert terminations[1] == terminated == info["is_success"]
        outcomes.append((terminated, info["touches_line"]))
    assert 5 < sum(touched for _, touched in outcomes) < 55
    car.position, car.heading = car.goal.position.copy(), car.goal.heading
    compiled.load_reference(0, reference)
    *_, terminated, _, info = reference.step(np.zeros(2, np.float32))
    terminations, infos = (compiled.step(np.zeros((2, 2), np.float32))[index] for index in (2, 4))
    assert terminated and info["is_success"] and terminations[0] and infos["is_success"][0]


def touches_by_points(car: Any) -> bool:
    """Whether a dense grid of points on a line's rectangle has one inside the car's."""
    along, across = np.meshgrid(np.linspace(-4, 4, 801), np.linspace(-0.05, 0.05, 11))
    for side in (-2.0, 2.0):
        points = np.stack([car.goal.position[0] + side + across, car.goal.position[1] + along], axis=-1) - car.position
        c, s = math.cos(car.heading), math.sin(car.heading)
        inside = (np.abs(points @ [c, s]) <= 2.5) & (np.abs(points @ [-s, c]) <= 1.0)
        if inside.any():
            return True
    return False


def test_an_episode_has_a_hundred_steps_at_most_though_highway_env_makes_one_more():
    compiled, raw = gym.make_vec(ID, num_envs=1), ParkingVectorEnv(1, {"duration": 20})
    plain = gym.make("highway_env:parking-v0", config={"duration": 20, "add_walls": False})
    plain.reset(seed=0)
    still = np.zeros((1, 2), np.float32)
    for env in (compiled, raw):
        env.reset(seed=0)
    lengths = {}
    for step in range(1, 102):
        lengths.setdefault("task", step) if compiled.step(still)[3][0] else None
        lengths.setdefault("raw", step) if raw.step(still)[3][0] else None
        lengths.setdefault("highway-env", step) if plain.step(still[0])[3] else None
    assert lengths == {"task": 100, "raw": 101, "highway-env": 101}


def test_goals_are_highway_envs():
    reference, compiled = gym.make(ID), gym.make_vec(ID, num_envs=60)
    observation, _ = compiled.reset(seed=0)
    for seed in range(60):
        np.testing.assert_allclose(observation[seed], reference.reset(seed=seed)[0], atol=1e-6)
    assert len(np.unique(observation[:, :2], axis=0)) > 20


def test_defaults_are_highway_envs_without_walls():
    expected = {**ParkingEnv.default_config(), "add_walls": False}
    assert MODEL.defaults.keys() == expected.keys()
    for key in expected.keys() - {"action", "observation"}:
        assert MODEL.defaults[key] == expected[key] or MODEL.defaults[key] == pytest.approx(expected[key]), key
    assert MODEL.defaults["observation"] == expected["observation"]
