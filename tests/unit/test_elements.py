"""Environments that assert that actions are elements of their space, and rewards and observations of many types."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from rql_lightning.envs import CustomizationWrapper, VectorCustomizationWrapper
from rql_lightning.envs.simulation import HighwayVectorEnv, ParkingVectorEnv
from rql_lightning.envs.vector import StatefulSyncVectorEnv
from rql_lightning.errors import EnvironmentContractError
from rql_lightning.spaces import as_elements

N = 3
THIRD = 1 / 3  # no float32 is this number
ACTIONS = {
    "float64": spaces.Box(-2, 2, (2,), np.float64),
    "float32": spaces.Box(-2, 2, (2,), np.float32),
    "float16": spaces.Box(-2, 2, (2,), np.float16),
    "bounds that float32 cannot hold": spaces.Box(-THIRD, THIRD, (2,), np.float64),
    "one number": spaces.Box(-THIRD, THIRD, (), np.float64),
    "int32": spaces.Discrete(3, dtype=np.int32),
    "int64": spaces.Discrete(3),
}


class Strict(gym.Env):
    """Returns what it is told to."""

    def __init__(self, action_space: spaces.Space[Any] = ACTIONS["int64"], observation: Any = None, reward: Any = 1.0):
        self.action_space, self.reward = action_space, reward
        self.observation = np.zeros(2, np.float64) if observation is None else observation
        shape = np.shape(self.observation)
        self.observation_space = spaces.Box(-np.inf, np.inf, shape, np.asarray(self.observation).dtype.type)
        self.steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros_like(self.observation)[()], {}

    def step(self, action):
        assert self.action_space.contains(action), (action, type(action))
        self.steps += 1
        following = self.observation if self.steps == 2 else np.zeros_like(self.observation)[()]
        return following, self.reward, False, False, {}


def make(kind: str, **settings: Any):
    if kind == "scalar":
        return CustomizationWrapper(Strict(**settings), lambda *_: 0.0)
    return VectorCustomizationWrapper(StatefulSyncVectorEnv([lambda: Strict(**settings)] * N), lambda *_: 0.0)


KINDS = pytest.mark.parametrize("kind", ["scalar", "vector"])


@KINDS
@pytest.mark.parametrize("name", ACTIONS)
@pytest.mark.parametrize("value", [-9.0, 0.1, THIRD, np.float32(THIRD), 9.0])
def test_elements_arrive_as_elements(kind, name, value):
    space = ACTIONS[name]
    number = int(abs(value)) % 3 if isinstance(space, spaces.Discrete) else value
    batch = () if kind == "scalar" else (N,)
    actions = as_elements(space, np.full((*batch, *space.shape), number))
    env = make(kind, action_space=space)
    env.reset(seed=0)
    _, reward, *_, info = env.step(actions)  # the environment asserts that its action space contains the action
    np.testing.assert_array_equal(info["basic_reward"], reward)
    assert np.shape(reward) == batch


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_compiled_parking_takes_floats_of_any_type(dtype):
    env = ParkingVectorEnv(2)
    env.reset(seed=0)
    assert np.isfinite(env.step(np.full((2, 2), 0.5, dtype))[0]).all()


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8])
def test_compiled_highway_takes_integers_of_any_type(dtype):
    observations = []
    for actions in (np.array([0, 3], dtype), np.array([0, 3])):
        env = HighwayVectorEnv(2, {"vehicles_count": 2})
        env.reset(seed=0)
        observations.append(env.step(actions)[0])
    np.testing.assert_array_equal(*observations)


@KINDS
@pytest.mark.parametrize("reward", [1, 1.0, True, np.float32(1), np.array(1.0), np.array([1.0]), np.ones((1, 1)), [1]])
def test_a_reward_is_a_number_in_whatever_it_comes(kind, reward):
    env = make(kind, reward=reward)
    env.reset(seed=0)
    _, total, *_, info = env.step(np.zeros(N, int) if kind == "vector" else 0)
    np.testing.assert_array_equal(info["basic_reward"], np.ones(N) if kind == "vector" else 1.0)
    np.testing.assert_array_equal(total, info["basic_reward"])


@KINDS
@pytest.mark.parametrize("reward", [np.ones(2), [], None, "much", {"r": 1}, np.nan, np.inf, 1e300, np.array([-1e39])])
def test_anything_else_is_refused_in_one_line(kind, reward):
    env = make(kind, reward=reward)
    env.reset(seed=0)
    with pytest.raises(EnvironmentContractError, match=r"^reward\b.*found .*expected .*number") as raised:
        env.step(np.zeros(N, int) if kind == "vector" else 0)
    assert "\n" not in str(raised.value)


LARGE = [
    (np.array([0.0, 1e300]), r"1e\+300"),
    (np.array([0.0, -1e39]), r"-1e\+39"),
    (np.array([np.nan, 0.0]), "nan"),
    (np.array([np.inf, 0.0], np.float32), "inf"),
    (np.array([np.inf, 0.0], np.float16), "inf"),
    (np.float64(1e300), r"1e\+300"),
    (np.float32(np.nan), "nan"),
    (np.full((2, 2), 1e300), r"1e\+300"),
]


@KINDS
@pytest.mark.parametrize(("observation", "said"), LARGE)
def test_observations_that_float32_cannot_hold_are_refused_with_environment_and_step(kind, observation, said):
    env = make(kind, observation=observation)
    env.reset(seed=0)
    env.step(np.zeros(N, int) if kind == "vector" else 0)
    with pytest.raises(
        EnvironmentContractError, match=rf"^observation: found {said} in environment 0 at step 2 .*float32"
    ):
        env.step(np.zeros(N, int) if kind == "vector" else 0)


@KINDS
@pytest.mark.parametrize("observation", [np.float64(1.5), np.array([3e38, -3e38]), np.array([2**60])])
def test_others_are_handed_on_as_they_are(kind, observation):
    env = make(kind, observation=observation)
    env.reset(seed=0)
    for _ in range(2):
        found, *_ = env.step(np.zeros(N, int) if kind == "vector" else 0)
    np.testing.assert_array_equal(found, np.stack([observation] * N) if kind == "vector" else observation)
    assert np.asarray(found).dtype == np.asarray(observation).dtype


def test_numbers_within_composite_observations_are_looked_at():
    class Composite(Strict):
        def __init__(self) -> None:
            super().__init__()
            self.observation_space = spaces.Dict(a=spaces.Tuple([spaces.Discrete(2), spaces.Box(-1, 1, (1,))]))

        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
            return {"a": (0, np.zeros(1, np.float32))}, {}

        def step(self, action):
            return {"a": (0, np.full(1, np.nan, np.float32))}, 0.0, False, False, {}

    for env in (
        CustomizationWrapper(Composite(), lambda *_: 0.0),
        VectorCustomizationWrapper(StatefulSyncVectorEnv([Composite] * N), lambda *_: 0.0),
    ):
        env.reset()
        with pytest.raises(EnvironmentContractError, match=r"^observation: found nan in environment 0 at step 1"):
            env.step(env.action_space.sample())
