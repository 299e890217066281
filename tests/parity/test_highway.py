"""The compiled Highway against highway-env, step by step."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import highway_env  # noqa: F401 (registers its ids)
import numpy as np
import pytest
from highway_env.envs import HighwayEnv

from rql_lightning.envs.simulation import HighwayVectorEnv
from rql_lightning.envs.simulation.highway_vector import MODEL

ID = "rql_lightning/Highway-v0"
TOLERANCE = 1e-9  # of states, float64; observations are float32 on both sides


def random_settings(rng: np.random.Generator, most: int) -> dict[str, Any]:
    policy, simulation = [(1, 5), (1, 15), (2, 10), (5, 15)][rng.integers(4)]
    settings = {"lanes_count": int(rng.integers(2, 6)), "vehicles_count": int(rng.integers(5, most + 1))}
    spacing = {"ego_spacing": float(rng.uniform(1, 2)), "vehicles_density": float(rng.uniform(0.8, 2))}
    return {
        **settings,
        **spacing,
        "policy_frequency": policy,
        "simulation_frequency": simulation,
        "duration": 40 / policy,
    }


def play_many(comparison: Any, episodes: int, most: int) -> list[str]:
    """Descriptions of the episodes that do not agree."""
    rng, exceptions = np.random.default_rng(0), []
    for seed in range(episodes):
        settings = random_settings(rng, most)
        same = comparison.play(ID, lambda _: int(rng.integers(5)), seed + 1, **settings)
        if not same or comparison.deviation > TOLERANCE:
            exceptions.append(f"seed {seed}, {settings}: deviation {comparison.deviation}")
            comparison.deviation = 0.0
    print(f"{episodes} episodes, {comparison.steps} steps, {comparison.events}, deviation {comparison.deviation}")
    return exceptions


def test_whole_episodes_agree(comparison):
    assert not play_many(comparison, 14, 25)
    assert comparison.events["crashes"] >= 5 and comparison.events["lane changes"] >= 5 and comparison.steps >= 120


@pytest.mark.slow
def test_many_whole_episodes_agree(comparison):
    exceptions = play_many(comparison, 200, 50)
    print("\n".join(exceptions))
    assert len(exceptions) <= 2, "99 % agree"
    assert all(count > 0 for count in comparison.events.values()), comparison.events


def play_raw(config: dict[str, Any], seed: int, steps: int = 12) -> int:
    """highway-env as it comes and the simulator as it comes: own reward and ends of episodes; how many steps agreed."""
    reference = gym.make("highway-v0", config=config)
    compiled = HighwayVectorEnv(2, config)
    observation, _ = reference.reset(seed=seed)
    np.testing.assert_allclose(compiled.reset(seed=seed)[0][0], observation.ravel(), atol=1e-6)
    rng = np.random.default_rng(seed)
    compared = 0
    while compared < steps:
        action, compared = int(rng.integers(5)), compared + 1
        observation, reward, terminated, truncated, info = reference.step(action)
        found, rewards, terminations, truncations, infos = compiled.step(np.full(2, action))
        np.testing.assert_allclose(found[0], observation.ravel(), atol=1e-6)
        assert rewards[0] == pytest.approx(reward, abs=TOLERANCE)
        assert (terminations[0], truncations[0]) == (terminated, truncated)
        for name, value in info["rewards"].items():
            assert infos["rewards"][name][0] == pytest.approx(value, abs=TOLERANCE)
        if terminated or truncated:
            break
    return compared


FEW = {"vehicles_count": 8, "simulation_frequency": 5}


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"normalize_reward": False, "collision_reward": -2, "right_lane_reward": 0.3},
        {"offroad_terminal": True, "initial_lane_id": 0, "lanes_count": 2},
        {"duration": 3, "reward_speed_range": [15, 25]},
        {"observation": {"type": "Kinematics", "vehicles_count": 7, "see_behind": True}},
        {"action": {"type": "DiscreteMetaAction", "target_speeds": [10, 15, 20, 25, 30]}},
        {"lanes_count": 1, "vehicles_count": 0},
    ],
)
def test_highway_env_as_it_comes(config):
    compared = [play_raw({**FEW, **config}, seed) for seed in (3, 4)]
    assert min(compared) >= 2 and sum(compared) >= 6, "there was something to compare"


def test_defaults_are_highway_envs():
    expected = HighwayEnv.default_config()
    assert MODEL.defaults.keys() == expected.keys()
    assert {key: MODEL.defaults[key] for key in expected if key not in ("observation", "action")} == {
        key: value for key, value in expected.items() if key not in ("observation", "action")
    }
    assert all(MODEL.defaults[key]["type"] == expected[key]["type"] for key in ("observation", "action"))


EXTREMES = {
    "overlapping": {1: {"x": 0.5, "y": 0.3}, 2: {"x": 2.0, "y": 1.0, "heading": 0.4}},
    "side by side at the same x": {1: {"x": 0.0, "y": 4.0}, 2: {"x": 0.0, "y": -4.0}, 3: {"x": 0.0, "y": 8.0}},
    "turned": {0: {"heading": 0.6}, 1: {"heading": -2.5}, 2: {"heading": 3.2, "x": 20.0}},
    "off the road": {0: {"y": 30.0}, 1: {"y": -12.0}},
    "backwards and too fast": {0: {"speed": -45.0}, 1: {"speed": 47.0}, 2: {"speed": -0.5}, 3: {"speed": 0.0}},
    "beyond the end of the road": {0: {"x": 9900.0}, 1: {"x": 9910.0}, 2: {"x": 9930.0}},
    "before its start": {0: {"x": -280.0}, 1: {"x": -270.0}},
}


@pytest.mark.parametrize("name", EXTREMES)
def test_extreme_states_agree(name, comparison, vehicles_of):
    """Along the road, positions are relative to the ego vehicle's."""
    settings = {"vehicles_count": 6, "simulation_frequency": 5}
    reference, compiled = gym.make(ID, **settings), gym.make_vec(ID, num_envs=2, **settings)
    reference.reset(seed=5)
    compiled.reset(seed=0)
    vehicles = reference.unwrapped.road.vehicles
    origin = vehicles[0].position.copy()
    for index, values in EXTREMES[name].items():
        vehicle = vehicles[index]
        along = origin[0] + values["x"] if "x" in values else vehicle.position[0]
        vehicle.position = np.array([along, values.get("y", vehicle.position[1])])
        vehicle.heading, vehicle.speed = values.get("heading", 0.0), values.get("speed", vehicle.speed)
        vehicle.on_state_update()
    compiled.load_reference(1, reference)
    for action in (3, 2, 0, 1, 4, 3):
        observation, reward, *_ = reference.step(action)
        found, rewards, *_ = compiled.step(np.full(2, action))
        comparison.differ(compiled.get_state([1])["vehicles"][0], vehicles_of(reference))
        comparison.differ(found[1], observation)
        comparison.differ(rewards[1], reward)
    assert comparison.deviation < TOLERANCE


def statistic(first: np.ndarray, second: np.ndarray) -> float:
    """Kolmogorov and Smirnov's, in units of its 1 % critical value for samples of these sizes."""
    points = np.concatenate([first, second])
    below = [np.searchsorted(np.sort(sample), points, side="right") / len(sample) for sample in (first, second)]
    critical = 1.63 * np.sqrt((len(first) + len(second)) / (len(first) * len(second)))
    return float(np.abs(below[0] - below[1]).max() / critical)


def test_initial_states_are_of_the_same_distribution_and_of_the_same_seed_the_same(vehicles_of):
    reference, compiled = gym.make(ID, vehicles_count=20), gym.make_vec(ID, num_envs=40, vehicles_count=20)
    compiled.reset(seed=500)
    ours = compiled.get_state()["vehicles"]
    theirs = []
    for seed in range(40):
        reference.reset(seed=seed)
        theirs.append(vehicles_of(reference))
    both = (np.array(theirs), ours)
    samples = {
        "speeds": [states[:, 1:, 3].ravel() for states in both],
        "gaps": [np.diff(states[:, :, 0], axis=1).ravel() for states in both],
        "first gap": [states[:, 1, 0] - states[:, 0, 0] for states in both],
        "exponents": [states[:, 1:, 7].ravel() for states in both],
        "timers": [states[:, 1:, 8].ravel() for states in both],
        "lanes": [states[:, :, 4].ravel() for states in both],
    }
    for name, (first, second) in samples.items():
        assert statistic(first, second) < 1, name
    assert (both[0][:, :, 2] == 0).all() and (ours[:, :, 2] == 0).all(), "headings"
    assert statistic(samples["speeds"][0], samples["speeds"][1] + 0.5) > 1, "the test can fail"
    compiled.reset(seed=0)
    np.testing.assert_array_equal(compiled.get_state()["vehicles"], theirs)
    compiled.reset()  # without a seed the generators go on
    reference.reset(seed=7)
    reference.reset()
    np.testing.assert_array_equal(compiled.get_state()["vehicles"][7], vehicles_of(reference))
