"""The MuJoCo tasks are Gymnasium's, with add-on rewards of this project."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest

from rql_lightning.envs import make_vector_env
from rql_lightning.errors import ConfigurationError

WISHES = {
    "HalfCheetah": (lambda s: -10 * abs(s[7]), "mean_abs_foot_angle", lambda s: abs(s[7])),
    "Hopper": (lambda s: 10 * (s[0] - 1), "mean_height", lambda s: s[0]),
    "Swimmer": (lambda s: -abs(s[1]), "mean_abs_rotor_angle", lambda s: abs(s[1])),
    "Ant": (lambda s: -s[14], "mean_y_velocity", lambda s: s[14]),
}
"""Add-on reward and metric as functions of the state reached."""
EACH = pytest.mark.parametrize("name", WISHES)


def ours(name: str) -> str:
    return f"rql_lightning/{name}-v0"


@EACH
def test_the_camera_follows_unless_another_is_asked_for(name):
    assert gym.make(ours(name)).unwrapped.camera_name == "track"
    other = gym.make(ours(name), camera_id=0).unwrapped
    assert (other.camera_id, other.camera_name) == (0, None)
    assert gym.make(ours(name), default_camera_config={"distance": 9.0}).unwrapped.camera_name is None


@EACH
def test_episodes_are_gymnasiums_and_add_on_rewards_the_specifications(name, record, sample_actions):
    base = gym.make(f"{name}-v5")
    actions = sample_actions(base, 60)
    expected, found = record(base, actions, seed=3), record(gym.make(ours(name), omega=2.0), actions, seed=3)
    np.testing.assert_array_equal(found.next_observation, expected.next_observation)
    np.testing.assert_array_equal(found.terminated, expected.terminated)
    np.testing.assert_array_equal(found.info["basic_reward"], expected.reward)
    wish, metric, quantity = WISHES[name]
    add_on = [wish(state) for state in expected.next_observation]
    np.testing.assert_allclose(found.info["add_on_reward"], add_on)
    np.testing.assert_allclose(found.reward, 2 * expected.reward + np.array(add_on))
    values = np.array([quantity(state) for state in expected.next_observation])
    np.testing.assert_allclose(found.info[metric], expected.running(values, np.mean))
    assert not found.info["is_success"].any()


@EACH
def test_vector_environments_do_the_same(name, record, sample_actions):
    env = gym.make_vec(ours(name), num_envs=2)
    actions = sample_actions(env, 30)
    vector = record(env, actions, seed=5)
    for index in range(2):
        scalar, together = record(gym.make(ours(name)), actions[:, index], seed=5 + index), vector.environment(index)
        np.testing.assert_array_equal(together.next_observation, scalar.next_observation)
        for key in ("basic_reward", "add_on_reward", WISHES[name][1], "is_success"):
            np.testing.assert_allclose(together.info[key], scalar.info[key], err_msg=key)


def test_success_is_the_time_limit_without_a_fall(record):
    still = np.zeros((40, 2), np.float32)
    swimmer = record(gym.make(ours("Swimmer"), max_episode_steps=40), still, seed=0)
    vector = make_vector_env(ours("Swimmer"), 1, "total", env_kwargs={"max_episode_steps": 40})
    vector.reset(seed=0)
    outcomes = [vector.step(action[None])[4]["is_success"][0] for action in still]
    assert outcomes[-1] and not any(outcomes[:-1])
    assert swimmer.done[-1] and not swimmer.terminated.any()
    hopper, fallen = gym.make(ours("Hopper")), False
    hopper.reset(seed=0)
    while not fallen:
        _, _, fallen, truncated, info = hopper.step(np.ones(3, np.float32))
        assert not truncated and not info["is_success"]


def test_the_whole_episode_of_the_id_is_a_success():
    env = gym.make(ours("Swimmer"))
    env.reset(seed=0)
    for _ in range(1000):
        _, _, terminated, truncated, info = env.step(np.zeros(2, np.float32))
    assert truncated and not terminated and info["is_success"]


def test_arguments_of_gymnasium_are_passed_on_and_shifted_observations_refused():
    env = gym.make(ours("Hopper"), forward_reward_weight=0.0, healthy_reward=3.0, ctrl_cost_weight=0.0)
    env.reset(seed=0)
    assert env.step(np.zeros(3, np.float32))[4]["basic_reward"] == 3.0
    shifted = {"exclude_current_positions_from_observation": False}
    with pytest.raises(ConfigurationError, match=r"^env_kwargs\.exclude_current_positions.*found False, expected True"):
        make_vector_env(ours("Hopper"), 1, "add_on", env_kwargs=shifted)


def test_without_mujoco_the_error_says_what_to_install(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "mujoco" else find(name, *rest)
    )
    for make in (lambda: gym.make(ours("Ant")), lambda: make_vector_env(ours("Ant"), 1, "basic")):
        with pytest.raises(
            ConfigurationError, match=r"^env: found rql_lightning/Ant-v0 and.*pip install 'rql-lightning\[mujoco\]'"
        ) as error:
            make()
        assert "\n" not in str(error.value)


def test_mujoco_is_not_imported_with_the_library():
    code = "import sys, rql_lightning; sys.exit('mujoco' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
