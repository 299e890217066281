"""SAME_STEP autoreset beside Gymnasium's own, in the same episodes, whatever the spaces."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from rql_lightning.envs import VectorCustomizationWrapper
from rql_lightning.envs.stable_baselines import StableBaselinesVecEnv
from rql_lightning.envs.vector import SameStepAutoreset, StatefulSyncVectorEnv

N = 3
BOX = spaces.Box(-1, 1, (2,), np.float32)
SPACES = {
    "box": BOX,
    "image": spaces.Box(0, 255, (4, 3, 1), np.uint8),
    "a box of one number": spaces.Box(-1, 1, (), np.float64),
    "discrete": spaces.Discrete(5, start=2),
    "multi-discrete": spaces.MultiDiscrete([2, 5]),
    "multi-binary": spaces.MultiBinary(3),
    "tuple": spaces.Tuple([spaces.Discrete(4), BOX]),
    "dictionary": spaces.Dict(place=BOX, kind=spaces.Discrete(3)),
    "nested": spaces.Dict(a=spaces.Tuple([BOX, spaces.Dict(b=spaces.MultiBinary(2))]), c=BOX),
    "graph": spaces.Graph(BOX, None),
    "sequence": spaces.Sequence(BOX),
}


class Anything(gym.Env):
    """Random observations of any space, random ends, and infos of all kinds."""

    action_space = spaces.Discrete(2)

    def __init__(self, space: spaces.Space[Any]) -> None:
        self.observation_space = space

    def _info(self) -> dict[str, Any]:
        info: dict[str, Any] = {"parts": {"place": self.np_random.random(2), "count": self.count}}
        if self.np_random.random() < 0.7:
            info |= {"number": float(self.np_random.random()), "place": self.np_random.random(3), "word": "here"}
        return info

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.count = 0
        return self.observation_space.sample(), self._info()

    def step(self, action):
        self.count += 1
        terminated = bool(self.np_random.random() < 0.3)
        return self.observation_space.sample(), 1.0, terminated, self.count == 6, self._info()


def makers(name: str):
    return [lambda: Anything(deepcopy(SPACES[name])) for _ in range(N)]


def assert_same(found: Any, expected: Any) -> None:
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        found, expected = [found[key] for key in expected], list(expected.values())
    if isinstance(expected, tuple | list):
        for pair in zip(found, expected, strict=True):
            assert_same(*pair)
    elif expected is None:
        assert found is None
    else:
        np.testing.assert_array_equal(found, expected)
        assert np.asarray(found).dtype == np.asarray(expected).dtype


def assert_same_info(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Where Gymnasium's says that an environment has an entry, ours has the same; elsewhere it has none."""
    for key in found:
        if not key.startswith("_"):
            assert f"_{key}" in found
            absent = np.zeros(N, dtype=bool)
            np.testing.assert_array_equal(found[f"_{key}"], expected.get(f"_{key}", absent), err_msg=key)
    for key, value in expected.items():
        if key.startswith("_") or key == "final_obs":
            continue
        if isinstance(value, dict):
            assert_same_info(found[key], value)
        else:
            mask = expected[f"_{key}"]
            np.testing.assert_array_equal(found[key][mask], value[mask], err_msg=key)


@pytest.mark.parametrize("name", SPACES)
def test_same_step_is_gymnasiums(name):
    expected = SyncVectorEnv(makers(name), autoreset_mode=AutoresetMode.SAME_STEP)
    inner = VectorCustomizationWrapper(StatefulSyncVectorEnv(makers(name)), lambda *_: 0.0)
    env = SameStepAutoreset(inner)
    assert_same(env.reset(seed=5)[0], expected.reset(seed=5)[0])
    ends = 0
    for _ in range(30):
        action = env.action_space.sample()
        *theirs, their_info = expected.step(action)
        *ours, info = env.step(action)
        assert_same(ours, theirs)
        for key in ("basic_reward", "add_on_reward"):  # Gymnasium's has no wrapper beneath
            for place in (info, info.get("final_info", {})):
                place.pop(key, None)
                place.pop(f"_{key}", None)
        assert ("final_obs" in info) == ("final_obs" in their_info)
        if "final_obs" in info:
            ends += 1
            for found, wanted in zip(info["final_obs"], their_info["final_obs"], strict=True):
                assert_same(found, wanted)
        assert_same_info(info, their_info)
    assert ends > 5


@pytest.mark.parametrize("name", ["box", "image", "discrete", "dictionary"])
def test_last_observations_for_stable_baselines3(name):
    """It resets in the same step, too, and knows all but tuples."""
    expected = SyncVectorEnv(makers(name), autoreset_mode=AutoresetMode.SAME_STEP)
    env = StableBaselinesVecEnv(VectorCustomizationWrapper(StatefulSyncVectorEnv(makers(name)), lambda *_: 0.0))
    env.seed(5)
    assert_same(env.reset(), expected.reset(seed=5)[0])
    ends = 0
    for _ in range(20):
        action = expected.action_space.sample()
        theirs, _, terminated, truncated, their_info = expected.step(action)
        ours, _, done, infos = env.step(action)
        assert_same(ours, theirs)
        np.testing.assert_array_equal(done, terminated | truncated)
        for index in np.flatnonzero(done):
            ends += 1
            assert_same(infos[index]["terminal_observation"], their_info["final_obs"][index])
    assert ends > 5
