"""Nobody's arrays are shared across a step, and step functions may do with their arguments what they like."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import batch_space

from rql_lightning.envs import (
    Customization,
    CustomizationWrapper,
    Metric,
    VectorCustomizationWrapper,
    cartpole,
    highway,
    mountain_car,
    parking,
)
from rql_lightning.envs.stable_baselines import StableBaselinesVecEnv
from rql_lightning.envs.transition import copied
from rql_lightning.envs.vector import SameStepAutoreset
from rql_lightning.evaluation import run_episodes
from rql_lightning.policies import Decision

N = 3


class OwnState(gym.Env):
    """Returns its state array itself, and one info array, and writes into both at the next step; it clips actions."""

    action_space = gym.spaces.Box(-1, 1, (2,), np.float64)

    def __init__(self, composite: bool = False) -> None:
        self.position, self.info, self.composite = np.zeros(2), {"wind": np.zeros(1)}, composite
        box = gym.spaces.Box(-100, 100, (2,), np.float64)
        self.observation_space = gym.spaces.Dict(at=gym.spaces.Tuple([box])) if composite else box

    def _observation(self) -> Any:
        return {"at": (self.position,)} if self.composite else self.position

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.position[:], self.steps = 0.0, 0
        return self._observation(), self.info

    def step(self, action):
        np.clip(action, -0.5, 0.5, out=action)
        self.position += action + 1
        self.info["wind"] += 1
        self.steps += 1
        return self._observation(), 1.0, self.steps == 4, False, self.info


def array_of(observation: Any) -> np.ndarray:
    return observation["at"][0] if isinstance(observation, dict) else observation


def moved(observation, action, next_observation, info):
    """1.5 at every step: how far an action of 0.5 or more goes."""
    return (array_of(next_observation) - array_of(observation))[..., 0]


def vandal(observation, action, next_observation, info):
    """The same, but it leaves nothing as it was."""
    result = np.array(moved(observation, action, next_observation, info))
    for array in (array_of(observation), action, array_of(next_observation), info["wind"]):
        array[...] = 77.0
    for key in list(info):
        if isinstance(info[key], np.ndarray):
            info[key][...] = 1
    info.clear()
    return result[()] if result.ndim == 0 else result


def make(kind: str, task: Customization, composite: bool = False):
    maker = partial(OwnState, composite)
    if kind == "scalar":
        return CustomizationWrapper(maker(), task)
    envs = SyncVectorEnv([maker] * N, autoreset_mode=AutoresetMode.DISABLED)
    return VectorCustomizationWrapper(envs, replace(task, vectorized=kind == "vector"))


def play(env, steps: int = 3, action: float = 0.7):
    """All that was handed out, with copies of it as it was when it was."""
    given = [env.reset(seed=0)]
    kept = [copied(given[0])]
    for _ in range(steps):
        given.append(env.step(np.full(env.action_space.shape, action)))
        kept.append(copied(given[-1]))
    return given, kept


def assert_same(found: Any, expected: Any) -> None:
    assert type(found) is type(expected)
    if isinstance(found, dict):
        assert found.keys() == expected.keys()
        found, expected = list(found.values()), list(expected.values())
    if isinstance(found, np.ndarray) and found.dtype == object:
        found, expected = list(found), list(expected)
    if isinstance(found, tuple | list):
        for pair in zip(found, expected, strict=True):
            assert_same(*pair)
    else:
        np.testing.assert_array_equal(found, expected)


def arrays(value: Any) -> list[np.ndarray]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, tuple | list):
        return [array for item in value for array in arrays(item)]
    if isinstance(value, np.ndarray) and value.dtype == object:
        return [value, *arrays(list(value))]
    return [value] if isinstance(value, np.ndarray) else []


KINDS = pytest.mark.parametrize("kind", ["scalar", "vector", "row by row"])


@KINDS
@pytest.mark.parametrize("composite", [False, True])
def test_a_reward_of_the_difference_is_right_where_the_environment_returns_its_own_array(kind, composite):
    env = make(kind, Customization(moved), composite)
    given, kept = play(env)
    assert_same(given, kept)
    for _, _, _, _, info in given[1:]:
        np.testing.assert_array_equal(info["add_on_reward"], np.full(np.shape(info["add_on_reward"]), 1.5))


@KINDS
@pytest.mark.parametrize("composite", [False, True])
def test_functions_that_write_into_their_arguments_change_nothing(kind, composite):
    each = {"basic_reward": vandal, "metric": Metric("way", vandal, "sum")}
    expected, _ = play(make(kind, Customization(moved, moved, Metric("way", moved, "sum")), composite))
    found, kept = play(make(kind, Customization(vandal, **each), composite))
    assert_same(found, expected)
    assert_same(found, kept)
    done = Customization(moved, is_success=lambda *step: vandal(*step) > 0)
    assert np.all(play(make(kind, done, composite))[0][1][4]["is_success"])


@KINDS
def test_actions_come_to_functions_as_the_learner_gave_them(kind):
    """This environment clips them in place."""
    env = make(kind, Customization(lambda observation, action, following, info: action[..., 0]))
    env.reset(seed=0)
    action = np.full(env.action_space.shape, 0.7)
    *_, info = env.step(action)
    np.testing.assert_array_equal(action, 0.7)
    np.testing.assert_array_equal(info["add_on_reward"], np.full(np.shape(info["add_on_reward"]), 0.7))


@KINDS
def test_a_learner_that_writes_into_what_it_got_changes_nothing(kind):
    env, expected = make(kind, Customization(moved)), play(make(kind, Customization(moved)))[0]
    observation, info = env.reset(seed=0)
    for step in range(3):
        for array in arrays((observation, info)):
            array[...] = 1
        observation, reward, terminated, _, info = env.step(np.full(env.action_space.shape, 0.7))
        if kind != "scalar":
            reward[...] = terminated[...] = 1
        np.testing.assert_array_equal(info["add_on_reward"], expected[step + 1][4]["add_on_reward"])


def test_a_function_may_return_one_of_its_arguments_or_the_same_array_every_time():
    buffer = np.zeros(N)

    def same(observation, action, next_observation, info):
        buffer[:] += 1
        return buffer

    def wind(observation, action, next_observation, info):
        return info["wind"][:, 0]

    for function in (same, wind):
        env = make("vector", Customization(function, function, Metric("it", function, "max"), read_only=True))
        given, kept = play(env)
        assert_same(given, kept)
        for step in given:
            assert len({array.__array_interface__["data"][0] for array in arrays(step)}) == len(arrays(step))


@pytest.mark.parametrize("id", ["Highway", "Parking", "CartPole", "MountainCarContinuous"])
@pytest.mark.parametrize("mode", ["Disabled", "SameStep", "sb3"])
def test_no_two_arrays_of_a_shipped_task_share_memory(id, mode):
    kwargs = {"vehicles_count": 4} if id == "Highway" else {}
    mode_of_env = "Disabled" if mode == "sb3" else mode
    env = gym.make_vec(f"rql_lightning/{id}-v0", num_envs=N, max_episode_steps=2, autoreset_mode=mode_of_env, **kwargs)
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(3)]
    env = StableBaselinesVecEnv(env) if mode == "sb3" else env
    given = [env.reset(), *(env.step(action) for action in actions[: 2 if mode == "Disabled" else 3])]
    kept = copied(given)
    everything = [array for array in arrays([given, actions]) if array.size]
    for index, array in enumerate(everything):
        assert not any(np.shares_memory(array, other) for other in everything[:index])
    assert_same(given, kept)


def test_same_step_keeps_the_last_observation_apart():
    env = SameStepAutoreset(make("vector", Customization(moved)))
    given, kept = play(env, steps=6)
    assert "final_obs" in given[4][4]
    assert_same(given, kept)


class OwnArrays(VectorEnv):
    """Returns the same arrays from every reset and step: those that it writes its state and results into."""

    metadata = {"autoreset_mode": AutoresetMode.DISABLED}  # noqa: RUF012
    customization = Customization(moved)
    single_observation_space = gym.spaces.Box(-100, 100, (2,), np.float64)
    single_action_space = gym.spaces.Box(-1, 1, (2,), np.float64)

    def __init__(self) -> None:
        self.num_envs = N
        self.observation_space = batch_space(self.single_observation_space, N)
        self.action_space = batch_space(self.single_action_space, N)
        self.position, self.steps = np.zeros((N, 2)), np.zeros(N, int)
        self.info = {"wind": np.zeros(N), "_wind": np.ones(N, bool)}
        self.reward, self.ends = np.zeros(N), np.zeros((2, N), bool)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None):
        mask = np.ones(N, bool) if options is None else options["reset_mask"]
        self.position[mask], self.steps[mask], self.ends[:, mask] = 0.0, 0, False
        return self.position, self.info

    def step(self, actions):
        self.position += actions + 1
        self.steps += 1
        self.info["wind"] += 1
        self.reward[:] = self.steps
        self.ends[0] = self.steps == 4 + np.arange(N)
        return self.position, self.reward, *self.ends, self.info


class Steady:
    """Acts in the same way everywhere."""

    needs_state = False

    def decide(self, observation: Any, state: Any) -> Decision:
        return Decision(np.full((N, 2), 0.7), None)


@pytest.mark.parametrize("kind", ["customized", "customized SAME_STEP", "SAME_STEP", "sb3"])
def test_a_vector_environment_may_return_its_own_arrays(kind):
    env: Any = OwnArrays()
    if kind.startswith("customized"):
        env = VectorCustomizationWrapper(env, Customization(moved, vectorized=True))
    if kind.endswith("SAME_STEP"):
        env = SameStepAutoreset(env)
    elif kind == "sb3":
        env = StableBaselinesVecEnv(env)
    given = [env.reset()]
    kept = [copied(given[0])]
    for _ in range(3 if kind == "customized" else 6):
        given.append(env.step(np.full((N, 2), 0.7)))
        kept.append(copied(given[-1]))
    assert_same(given, kept)
    if kind != "customized":
        assert [np.argmax(step[2]) for step in given[4:]] == [0, 1, 2] and all(step[2].sum() == 1 for step in given[4:])


def test_recorded_steps_of_a_vector_environment_that_returns_its_own_array():
    steps = run_episodes(
        Steady(), VectorCustomizationWrapper(OwnArrays(), Customization(moved)), [0, 1, 2, 3], record=True
    ).steps
    np.testing.assert_allclose(steps["next_observation"] - steps["observation"], 1.7)
    np.testing.assert_allclose(steps["add_on_reward"], 1.7)


def test_wrappers_do_not_pass_on_the_promise_of_new_arrays():
    class Own(gym.vector.VectorWrapper):
        def step(self, actions):
            self.observation = getattr(self, "observation", np.zeros(self.observation_space.shape))
            observation, *rest = self.env.step(actions)
            self.observation[...] = observation
            return self.observation, *rest

    inner = VectorCustomizationWrapper(OwnArrays(), Customization(moved))
    env = VectorCustomizationWrapper(Own(inner), Customization(moved))
    assert_same(*play(env))


def frozen(value: Any) -> Any:
    for array in arrays(value):
        array.flags.writeable = False
    return value


@pytest.mark.parametrize("task", [cartpole, mountain_car, highway, parking])
def test_shipped_functions_only_read(task):
    """They are given no copies."""
    name = task.__name__.rpartition(".")[2]
    env = task.TASK.make_vec(N)
    observation, _ = env.reset(seed=0)
    env.action_space.seed(0)
    action = env.action_space.sample()
    following, *_, info = env.step(action)
    outcome = {"terminated": np.zeros(N, bool), "truncated": np.zeros(N, bool), "step": np.ones(N, np.int64)}
    assert env.customization.read_only and len(env.customization.functions()) >= 4, name
    for function in env.customization.functions().values():
        function(*frozen((observation, action, following, {**info, **outcome})))
