"""Success that environments report themselves, and the mask that says which of them did."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from rql_lightning.envs import CustomizationWrapper, VectorCustomizationWrapper
from rql_lightning.envs.stable_baselines import StableBaselinesVecEnv

LENGTH = 3


class Sometimes(gym.Env):
    """Reports its success in its last step (1), in the others (2), in all (3) or never (0)."""

    observation_space, action_space = gym.spaces.Box(0, 10, (1,)), gym.spaces.Discrete(2)

    def __init__(self, when: int, outcome: Any = True) -> None:
        self.when, self.outcome = when, outcome

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.steps += 1
        last = self.steps == LENGTH
        reported = self.when == 3 or self.when == (1 if last else 2)
        return np.zeros(1, np.float32), 0.0, False, last, {"is_success": self.outcome} if reported else {}


CASES = [(0, True), (1, True), (1, False), (2, True), (3, True), (3, np.True_), (1, np.bool_(False)), (1, np.ones(1))]


def makers(cases):
    return [lambda case=case: Sometimes(*case) for case in cases]


def wrap(cases):
    envs = SyncVectorEnv(makers(cases), autoreset_mode=AutoresetMode.DISABLED)
    return VectorCustomizationWrapper(envs, lambda *_: 0.0)


@pytest.mark.parametrize(
    "cases", [CASES[:5], [CASES[5], CASES[0], CASES[6]], [CASES[7], CASES[0]], *[[c] for c in CASES]]
)
def test_what_an_environment_reports_does_not_depend_on_those_beside_it(cases):
    env = wrap(cases)
    env.reset(seed=0)
    for step in range(1, LENGTH + 1):
        *_, info = env.step(np.zeros(len(cases), int))
        told = [when == 3 or when == (1 if step == LENGTH else 2) for when, _ in cases]
        if not any(told):
            assert "is_success" not in info
            continue
        assert info["is_success"].dtype == info["_is_success"].dtype == bool
        assert info["_is_success"].tolist() == told
        assert info["is_success"].tolist() == [t and bool(outcome) for t, (_, outcome) in zip(told, cases, strict=True)]


def test_one_environment_reports_what_it_reports():
    env = CustomizationWrapper(Sometimes(1), lambda *_: 0.0)
    env.reset(seed=0)
    assert ["is_success" in env.step(0)[4] for _ in range(LENGTH)] == [False, False, True]


def test_stable_baselines3_hears_of_it_where_it_was_reported():
    env = StableBaselinesVecEnv(wrap(CASES[:5]))
    env.reset()
    for _ in range(LENGTH):
        *_, infos = env.step(np.zeros(5, int))
    assert [info.get("is_success") for info in infos] == [None, True, False, None, True]
