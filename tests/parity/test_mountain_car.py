"""MountainCarContinuous is Gymnasium's, with the wish added."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

ID, BASE = "rql_lightning/MountainCarContinuous-v0", "MountainCarContinuous-v0"


def pushing(env: gym.Env, steps: int) -> np.ndarray:
    """With the velocity, which reaches the flag, but for some random steps."""
    rng = np.random.default_rng(0)
    actions, (observation, _) = [], env.reset(seed=3)
    for _ in range(steps):
        action = np.array([np.sign(observation[1]) if rng.random() < 0.9 else rng.uniform(-1, 1)], np.float32)
        actions.append(action)
        observation, _, terminated, _, _ = env.step(action)
        if terminated:
            break
    return np.array(actions)


def test_an_episode_is_gymnasiums_and_its_rewards_are_the_specifications(record):
    actions = pushing(gym.make(BASE), 999)
    base, ours = (record(gym.make(id, **kwargs), actions, seed=3) for id, kwargs in ((BASE, {}), (ID, {"omega": 2.0})))
    np.testing.assert_array_equal(ours.next_observation, base.next_observation)
    assert ours.terminated[-1] and not ours.terminated[:-1].any() and ours.info["is_success"][-1]
    assert not ours.info["is_success"][:-1].any()
    np.testing.assert_allclose(ours.info["basic_reward"], base.reward)
    assert ours.info["basic_reward"].sum() == pytest.approx(100 - 0.1 * (actions**2).sum(), rel=1e-6)
    np.testing.assert_allclose(ours.info["add_on_reward"], np.where(actions[:, 0] < 0, -0.1, 0.0))
    np.testing.assert_allclose(ours.reward, 2 * ours.info["basic_reward"] + ours.info["add_on_reward"])
    np.testing.assert_array_equal(ours.info["negative_actions"], np.cumsum(actions[:, 0] < 0))


def test_vector_environments_do_the_same(record, sample_actions):
    env = gym.make_vec(ID, num_envs=3)
    actions = sample_actions(env, 40)
    vector = record(env, actions, seed=5)
    for index in range(3):
        scalar = record(gym.make(ID), actions[:, index], seed=5 + index)
        together = vector.environment(index)
        np.testing.assert_array_equal(together.next_observation, scalar.next_observation)
        for key in ("basic_reward", "add_on_reward", "negative_actions", "is_success"):
            np.testing.assert_allclose(together.info[key], scalar.info[key], err_msg=key)


def test_the_time_limit_is_no_success():
    env = gym.make(ID)
    env.reset(seed=0)
    for _ in range(999):
        _, _, terminated, truncated, info = env.step(np.zeros(1, np.float32))
    assert truncated and not terminated and not info["is_success"] and info["negative_actions"] == 0
