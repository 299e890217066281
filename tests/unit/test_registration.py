"""Customised tasks as Gymnasium ids, and ``make_vector_env``."""

import sys
from collections.abc import Iterator

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from rql_lightning.envs import Customization, make_vector_env, register_task
from rql_lightning.errors import ConfigurationError, EnvironmentContractError


def push_right(observation, action, next_observation, info):
    return 0.5 * action


# Tasks as ids


@pytest.mark.parametrize("base", ["Acrobot-v1", "MountainCarContinuous-v0", "Pendulum-v1", "CartPole-v1"])
def test_any_environment_becomes_a_task(base, movement, register, record, sample_actions):
    task = register(base, Customization(movement, vectorized=True))
    single, plain = gym.make(task, reward="add_on"), gym.make(base)
    actions = sample_actions(plain, 40)
    ours, theirs = record(single, actions, seed=11), record(plain, actions, seed=11)
    np.testing.assert_array_equal(ours.next_observation, theirs.next_observation)
    np.testing.assert_array_equal(ours.info["basic_reward"], theirs.reward)
    np.testing.assert_array_equal(ours.reward, (ours.next_observation - ours.observation)[:, 0])
    vector = gym.make_vec(task, num_envs=2, reward="total", omega=2.0)
    both = record(vector, np.stack([actions, actions], axis=1), seed=11)
    assert vector.customization.add_on_reward is movement
    np.testing.assert_array_equal(both.next_observation[:, 0], theirs.next_observation)
    np.testing.assert_array_equal(both.reward, 2 * both.info["basic_reward"] + both.info["add_on_reward"])


def test_arguments_reach_the_environment_beneath(register):
    task = register("MountainCarContinuous-v0", push_right)
    assert gym.make(task, goal_velocity=0.01).unwrapped.goal_velocity == 0.01
    vector = gym.make_vec(task, num_envs=2, goal_velocity=0.01)
    assert [env.unwrapped.goal_velocity for env in vector.unwrapped.envs] == [0.01, 0.01]


# make_vector_env


@pytest.fixture
def wishes(tmp_path, monkeypatch) -> Iterator[str]:
    """The name of a user's module with a wish in it, and an environment id of its own."""
    (tmp_path / "users_wishes.py").write_text(
        "import gymnasium as gym\n"
        "def wish(observation, action, next_observation, info):\n"
        "    assert observation.shape == (4,), 'called row by row'\n"
        "    return -abs(next_observation[0])\n"
        "gym.register('users/Own-v0', 'gymnasium.envs.classic_control:CartPoleEnv', max_episode_steps=7)\n"
        "not_a_function = 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield "users_wishes"
    gym.registry.pop("users/Own-v0", None)
    sys.modules.pop("users_wishes", None)


def test_any_id_with_the_path_of_a_wish(wishes, record, sample_actions):
    env = make_vector_env("CartPole-v1", 2, "add_on", add_on_reward=f"{wishes}.wish")
    steps = record(env, sample_actions(env, 20), seed=0)
    np.testing.assert_array_equal(steps.reward, -np.abs(steps.next_observation[..., 0]))


def test_an_id_of_a_module_and_no_wish(wishes, record, sample_actions):
    env = make_vector_env(f"{wishes}:users/Own-v0", 2, "total")
    steps = record(env, sample_actions(env, 20), seed=0)
    assert steps.truncated.sum(0).tolist() == [2, 2], "the id's own time limit of 7 steps"
    assert (steps.reward == 1).all() and (steps.info["add_on_reward"] == 0).all()


def test_a_task_with_its_arguments(register):
    env = make_vector_env(register("Acrobot-v1", push_right), 2, "total", 0.5, env_kwargs={"max_episode_steps": 5})
    env.reset(seed=0)
    for _ in range(5):
        _, reward, _, truncated, info = env.step(np.array([0, 2]))
    assert truncated.all() and env.metadata["autoreset_mode"] == AutoresetMode.DISABLED
    assert reward.tolist() == [-0.5, 0.5] and info["basic_reward"].tolist() == [-1, -1]


UNKNOWN_IDS = ["NoSuchEnv-v0", "CartPole-v7", "nobody/CartPole-v1", "no_such_module:CartPole-v1", "not an id!"]


@pytest.mark.parametrize("env", UNKNOWN_IDS)
def test_unknown_ids_are_refused(env):
    with pytest.raises(EnvironmentContractError, match=f"^env: found '{env}'"):
        make_vector_env(env, 2, "total")


@pytest.mark.parametrize("task", [False, True])
def test_arguments_that_the_environment_does_not_take_are_refused(task, register):
    env = register("CartPole-v1", push_right) if task else "CartPole-v1"
    with pytest.raises(EnvironmentContractError, match=f"{env}.*gravitas"):
        make_vector_env(env, 2, "total", env_kwargs={"gravitas": 1.6})


@pytest.mark.parametrize(
    "path", ["no_such_module.wish", "users_wishes.no_such_wish", "users_wishes.not_a_function", "wish", "", "a..b"]
)
def test_wishes_that_cannot_be_imported_are_refused(path, wishes):
    with pytest.raises(ConfigurationError, match=f"^add_on_reward: found '{path}'"):
        make_vector_env("CartPole-v1", 2, "total", add_on_reward=path)


def test_a_second_wish_for_a_task_is_refused(register, wishes):
    task = register("CartPole-v1", push_right)
    with pytest.raises(ConfigurationError, match=f"^add_on_reward: found '{wishes}.wish', but {task}"):
        make_vector_env(task, 2, "total", add_on_reward=f"{wishes}.wish")


@pytest.mark.parametrize("task", [False, True])
def test_make_vector_env_refuses_unknown_rewards(task, register):
    with pytest.raises(ConfigurationError, match=r"^reward: found 'bonus'"):
        make_vector_env(register("CartPole-v1", push_right) if task else "CartPole-v1", 2, "bonus")


def test_a_base_that_is_registered_anew_is_what_is_made():
    """As in a notebook, whose cells run again."""
    from gymnasium.envs.classic_control import CartPoleEnv, PendulumEnv

    try:
        gym.register("tests/Base-v0", entry_point=PendulumEnv)
        register_task("tests/OnBase-v0", "tests/Base-v0", lambda *transition: 0.0)
        del gym.registry["tests/Base-v0"]
        gym.register("tests/Base-v0", entry_point=CartPoleEnv)
        assert isinstance(gym.make("tests/OnBase-v0").unwrapped, CartPoleEnv)
    finally:
        for id in ("tests/Base-v0", "tests/OnBase-v0"):
            gym.registry.pop(id, None)
