"""Running episodes of vector environments, stored and continued."""

import pickle
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.classic_control import CartPoleEnv
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from rql_lightning.envs import Customization, Metric, VectorCustomizationWrapper
from rql_lightning.envs.vector import StatefulSyncVectorEnv

STORABLE = ["CartPole-v1", "MountainCarContinuous-v0", "MountainCar-v0", "Acrobot-v1", "Pendulum-v1"]


@pytest.mark.parametrize("base", STORABLE)
def test_stored_episodes_continue_bit_for_bit(base, movement, register, record, sample_actions):
    metric = Metric("distance", movement, "mean")
    task = register(base, Customization(movement, metric=metric, is_success=lambda *step: step[3]["step"] > 9))
    env, other, fresh = (gym.make_vec(task, num_envs=12, max_episode_steps=25) for _ in range(3))
    actions = sample_actions(env, 110)
    record(env, actions[:10], seed=13)
    env.reset(options={"reset_mask": np.arange(12) % 3 == 1})  # from here on they end at different times
    record(env, actions[10:20], start=env.get_state()["observation"])
    state = pickle.dumps(env.get_state())
    start = pickle.loads(state)["observation"]
    went_on = record(env, actions[20:], start=start)
    assert (went_on.done.sum(0) >= 2).all()
    record(other, actions[::-1][:33], seed=99)
    for resumed in (env, other, fresh):
        resumed.set_state(pickle.loads(state))
        record(resumed, actions[20:], start=start).assert_equal(went_on)


def test_a_stored_state_is_a_copy_and_storing_does_not_disturb(movement, register, record, sample_actions):
    task = register("CartPole-v1", Customization(movement, is_success=lambda *step: step[3]["step"] > 9))
    env = gym.make_vec(task, num_envs=3)
    actions = sample_actions(env, 40)
    undisturbed = record(env, actions, seed=1)
    first = record(env, actions[:5], seed=1)
    state = env.get_state()
    rest = record(env, actions[5:], start=np.array(state["observation"]))
    np.testing.assert_array_equal(np.concatenate([first.reward, rest.reward]), undisturbed.reward)
    for _ in range(2):
        env.set_state(state)
        record(env, actions[5:], start=np.array(state["observation"])).assert_equal(rest)


def test_some_environments_may_be_reset_right_after_resuming(movement, register, record, sample_actions):
    task = register("CartPole-v1", movement)
    env, other = (gym.make_vec(task, num_envs=3) for _ in range(2))
    record(env, sample_actions(env, 15), seed=1)
    state = env.get_state()
    other.set_state(state)
    observation, _ = other.reset(options={"reset_mask": np.array([True, False, False])})
    np.testing.assert_array_equal(observation[1:], state["observation"][1:])
    assert (observation[0] != state["observation"][0]).all()


def test_environments_that_cannot_be_stored_say_so(movement):
    unknown = VectorCustomizationWrapper(StatefulSyncVectorEnv([lambda: gym.make("FrozenLake-v1")]), movement)
    unable = SyncVectorEnv([lambda: gym.make("CartPole-v1")], autoreset_mode=AutoresetMode.DISABLED)
    unknown.reset(seed=0)
    with pytest.raises(NotImplementedError, match="FrozenLake"):
        unknown.get_state()
    with pytest.raises(NotImplementedError, match="SyncVectorEnv"):
        VectorCustomizationWrapper(unable, movement).get_state()


class Windy(CartPoleEnv):
    """Has more state than its class."""


@pytest.mark.parametrize("wrapped", ["subclass", "wrapper"])
def test_what_may_hide_a_state_is_not_stored(wrapped):
    def make() -> gym.Env[Any, Any]:
        return Windy() if wrapped == "subclass" else gym.wrappers.TimeAwareObservation(gym.make("CartPole-v1"))

    env = StatefulSyncVectorEnv([make, make])
    env.reset(seed=0)
    with pytest.raises(NotImplementedError, match="cannot be stored"):
        env.get_state()
