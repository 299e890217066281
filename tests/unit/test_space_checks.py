"""Spaces that the learners refuse, and that the advice in each message works."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import FlattenObservation, RescaleAction, TransformAction, TransformObservation

from rql_lightning.errors import SpaceMismatchError
from rql_lightning.spaces import ActionBounds, check_continuous, check_discrete, observation_scale

BOX, ACTION = spaces.Box(-1, 1, (2,)), spaces.Box(-1, 1, (1,))


class Of(gym.Env):
    """Of these spaces; asserts that actions are elements."""

    def __init__(self, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> None:
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        assert self.action_space.contains(action)
        return self.observation_space.sample(), 0.0, False, False, {}


def refused(check: Any, observation_space: Any, action_space: Any) -> str:
    with pytest.raises(SpaceMismatchError) as raised:
        check(observation_space, action_space)
    assert "found " in str(raised.value) and "expected " in str(raised.value) and "\n" not in str(raised.value)
    return str(raised.value)


def assert_accepted(check: Any, env: gym.Env) -> None:
    check(env.observation_space, env.action_space)
    assert env.observation_space.contains(env.reset(seed=0)[0])
    env.action_space.seed(0)
    for _ in range(10):
        assert env.observation_space.contains(env.step(env.action_space.sample())[0])


FLAT = {
    "tuple": spaces.Tuple([spaces.Discrete(2), BOX]),
    "dictionary": spaces.Dict(a=BOX, b=spaces.MultiBinary(3)),
    "discrete": spaces.Discrete(4),
    "text": spaces.Text(5, min_length=5),
    "one of": spaces.OneOf([BOX, spaces.Discrete(2)]),
    "a box of one number": spaces.Box(-1, 1, ()),
}


@pytest.mark.parametrize("name", FLAT)
@pytest.mark.parametrize(("check", "action_space"), [(check_discrete, spaces.Discrete(2)), (check_continuous, ACTION)])
def test_observations_that_flatten(name, check, action_space):
    message = refused(check, FLAT[name], action_space)
    assert message.startswith("observation space: ") and "gymnasium.wrappers.FlattenObservation" in message
    assert_accepted(check, FlattenObservation(Of(FLAT[name], action_space)))


@pytest.mark.parametrize(
    "space", [spaces.Sequence(BOX), spaces.Graph(BOX, None), spaces.Dict(a=BOX, b=spaces.Sequence(BOX))]
)
def test_observations_of_no_fixed_size(space):
    message = refused(check_continuous, space, ACTION)
    assert "TransformObservation with a Box" in message and "no FlattenObservation" in message
    size = spaces.Box(0, np.inf, (1,))
    env = TransformObservation(Of(space, ACTION), lambda observation: np.ones(1, np.float32), size)
    assert_accepted(check_continuous, env)


ACTIONS = {
    "infinite": (spaces.Box(-np.inf, np.inf, (1,)), lambda action: action),
    "half infinite": (spaces.Box(0, np.inf, (1,)), lambda action: action + 1),
    "nearly infinite": (spaces.Box(-3e38, 3e38, (1,)), lambda action: action),
    "integers": (spaces.Box(0, 255, (1,), np.uint8), lambda action: np.round(127.5 * (action + 1)).astype(np.uint8)),
    "equal bounds": (spaces.Box(0, 0, (1,)), lambda action: 0 * action),
    "one number": (spaces.Box(-1, 1, ()), lambda action: action.reshape(())),
}


@pytest.mark.parametrize("name", ACTIONS)
def test_boxes_of_actions_that_are_refused(name):
    space, function = ACTIONS[name]
    message = refused(check_continuous, BOX, space)
    assert message.startswith("action space: ") and "gymnasium.wrappers.TransformAction" in message
    assert "RescaleAction" not in message, "which needs finite bounds itself"
    assert_accepted(check_continuous, TransformAction(Of(BOX, space), function, ACTION))


NARROW = [([0, 1e8], [1, 1e8 + 1], "0"), ([-1.0, 0.0], [1.0, 1e-46], "0"), ([0, 0], [1e-45, 1], "1.4e-45")]


@pytest.mark.parametrize(("low", "high", "difference"), NARROW)
def test_bounds_of_actions_that_float32_cannot_tell_apart(low, high, difference):
    space = spaces.Box(np.array(low, np.float64), np.array(high, np.float64), dtype=np.float64)
    narrow = 0 if difference == "1.4e-45" else 1
    message = refused(check_continuous, BOX, space)
    bounds = (
        f"bounds {np.float64(low[narrow])} and {np.float64(high[narrow])}, whose difference in float32 is {difference},"
    )
    assert message.startswith(f"action space: found {bounds} expected at least 2.35e-38 ")
    assert "gymnasium.wrappers.RescaleAction from -1.0 to 1.0" in message
    env = RescaleAction(Of(BOX, space), -1.0, 1.0)
    assert_accepted(check_continuous, env)
    assert np.isfinite(ActionBounds(env.action_space).log_half_widths)


def test_bounds_of_observations_that_float32_cannot_tell_apart_count_as_none():
    high = np.array([1e-46, 1e-40, 4.0])
    middle, half_width = observation_scale(spaces.Box(np.zeros(3), high, dtype=np.float64))
    assert middle.tolist() == [0.0, 0.0, 2.0] and half_width.tolist() == [1.0, 1.0, 2.0]


def test_discrete_actions_that_do_not_start_at_0():
    message = refused(check_discrete, BOX, spaces.Discrete(3, start=-1))
    assert "TransformAction that adds -1, with Discrete(3)" in message
    env = TransformAction(Of(BOX, spaces.Discrete(3, start=-1)), lambda action: action - 1, spaces.Discrete(3))
    assert_accepted(check_discrete, env)


@pytest.mark.parametrize("space", [spaces.MultiDiscrete([2, 3]), spaces.MultiBinary(2), spaces.Tuple([ACTION])])
def test_actions_of_other_kinds(space):
    assert "SoftActorCritic or ResidualSAC" in refused(check_discrete, BOX, space)
    assert "SoftQLearning and ResidualSoftQLearning" in refused(check_continuous, BOX, space)
    assert "SoftActorCritic" in refused(check_discrete, BOX, ACTION)
    assert "SoftQLearning" in refused(check_continuous, BOX, spaces.Discrete(2))


@pytest.mark.parametrize("which", ["observation", "action"])
def test_boxes_of_nothing(which):
    nothing = spaces.Box(-1, 1, (0,))
    message = refused(check_continuous, *((nothing, ACTION) if which == "observation" else (BOX, nothing)))
    assert message.startswith(f"{which} space: ") and "at least one number" in message
