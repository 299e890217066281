"""The customization wrappers, scalar and vector, on plain Gymnasium environments."""

from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from rql_lightning.envs import (
    Customization,
    CustomizationWrapper,
    Metric,
    VectorCustomizationWrapper,
)
from rql_lightning.errors import ConfigurationError, EnvironmentContractError

NUM_ENVS = 3
KINDS = ["scalar", "vector", "row by row"]


class Reporter(gym.Env):
    """Counts its steps; episodes of random length 2 to 6; reports numbers, some of them only now and then, in info."""

    def __init__(self) -> None:
        self.observation_space = gym.spaces.Box(0, 10, (1,), np.float64)
        self.action_space = gym.spaces.Discrete(2)

    def _observe(self) -> np.ndarray:
        return np.array([float(self.count)])

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.count, self.length = 0, int(self.np_random.integers(2, 7))
        return self._observe(), {}

    def step(self, action):
        self.count += 1
        info: dict[str, Any] = {"speed": 0.5 * self.count, "is_success": self.count == 5}
        info["parts"] = {"left": -float(self.count), "right": 1.0}
        if self.count % 2:
            info["bonus"] = 10.0 + self.count
        return self._observe(), 1.0, self.count >= self.length, False, info


def make(kind: str, customization: Any, base: str | type[gym.Env] = "CartPole-v1", **kwargs):
    """The customised environment: one of them, or a vector whose functions take batches or rows."""
    maker: Callable[[], gym.Env] = partial(gym.make, base) if isinstance(base, str) else base
    if kind == "scalar":
        return CustomizationWrapper(maker(), customization, **kwargs)
    if isinstance(customization, Customization):
        customization = Customization(**{**vars(customization), "vectorized": kind == "vector"})
    elif kind == "vector":
        customization = Customization(customization, vectorized=True)
    envs = SyncVectorEnv([maker] * NUM_ENVS, autoreset_mode=AutoresetMode.DISABLED)
    return VectorCustomizationWrapper(envs, customization, **kwargs)


def stay_centred(observation, action, next_observation, info):
    return -np.abs(next_observation[..., 0])


def push_right(observation, action, next_observation, info):
    return 0.5 * action


# The three rewards


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["basic", "add_on", "total"])
@pytest.mark.parametrize("basic_reward", [None, push_right])
def test_each_of_the_three_rewards(kind, name, basic_reward, record, sample_actions):
    env = make(kind, Customization(stay_centred, basic_reward), reward=name, omega=0.25)
    steps = record(env, sample_actions(env, 60), seed=1)
    basic = np.ones_like(steps.reward) if basic_reward is None else 0.5 * steps.action
    add_on = -np.abs(steps.next_observation[..., 0]).astype(np.float64)
    expected = {"basic": basic, "add_on": add_on, "total": 0.25 * basic + add_on}
    np.testing.assert_array_equal(steps.info["basic_reward"], basic)
    np.testing.assert_array_equal(steps.info["add_on_reward"], add_on)
    np.testing.assert_array_equal(steps.reward, expected[name])


@pytest.mark.parametrize("kind", KINDS)
def test_a_function_alone_is_a_wish_and_total_at_weight_one_the_default(kind, record, sample_actions):
    env = make(kind, stay_centred)
    steps = record(env, sample_actions(env, 30), seed=1)
    np.testing.assert_array_equal(steps.reward, 1 - np.abs(steps.next_observation[..., 0]).astype(np.float64))


def test_scalar_results_are_plain_numbers():
    env = make("scalar", Customization(stay_centred, is_success=lambda *step: step[3]["truncated"]))
    env.reset(seed=0)
    _, reward, _, _, info = env.step(0)
    assert type(reward) is type(info["basic_reward"]) is type(info["add_on_reward"]) is float
    assert info["is_success"] is False


def test_vector_results_are_marked_as_present_everywhere():
    env = make("vector", Customization(stay_centred, metric=Metric("centred", stay_centred)))
    env.reset(seed=0)
    _, reward, _, _, info = env.step(np.zeros(NUM_ENVS, int))
    assert reward.shape == (NUM_ENVS,) and reward.dtype == np.float64
    for key in ("basic_reward", "add_on_reward", "centred"):
        assert info[key].shape == (NUM_ENVS,) and info[f"_{key}"].tolist() == [True] * NUM_ENVS


# What step functions are given


@pytest.mark.parametrize("kind", ["scalar", "vector"])
def test_functions_see_each_transition_also_across_resets(kind, record, sample_actions):
    seen = []

    def spy(observation, action, next_observation, info):
        seen.append([np.copy(x) for x in (observation, action, next_observation)])
        return np.zeros(np.shape(action))

    env = make(kind, spy)
    steps = record(env, sample_actions(env, 80), seed=3)
    assert steps.done.any()
    observations, actions, next_observations = map(np.array, zip(*seen, strict=True))
    np.testing.assert_array_equal(observations, steps.observation)
    np.testing.assert_array_equal(actions, steps.action)
    np.testing.assert_array_equal(next_observations, steps.next_observation)


def bonus_and_speed(observation, action, next_observation, info):
    return info.get("bonus", -1.0) + 100 * info["speed"]


def nested_part(observation, action, next_observation, info):
    return info["parts"]["left"]


@pytest.mark.parametrize("kind", ["scalar", "row by row"])
def test_functions_see_the_environments_info_of_their_row(kind, record, sample_actions):
    env = make(kind, bonus_and_speed, base=Reporter)
    steps = record(env, sample_actions(env, 30), seed=2)
    count = steps.next_observation[..., 0]
    expected = np.where(count % 2 == 1, 10 + count, -1) + 50 * count
    np.testing.assert_array_equal(steps.info["add_on_reward"], expected)


@pytest.mark.parametrize("kind", KINDS)
def test_functions_see_nested_info(kind, record, sample_actions):
    env = make(kind, nested_part, base=Reporter)
    steps = record(env, sample_actions(env, 30), seed=2)
    np.testing.assert_array_equal(steps.info["add_on_reward"], -steps.next_observation[..., 0])


@pytest.mark.parametrize("kind", KINDS)
def test_the_environments_info_is_kept(kind, record, sample_actions):
    env = make(kind, push_right, base=Reporter)
    steps = record(env, sample_actions(env, 30), seed=2)
    np.testing.assert_array_equal(steps.info["speed"], 0.5 * steps.next_observation[..., 0])
    np.testing.assert_array_equal(steps.info["is_success"], steps.next_observation[..., 0] == 5)


# Success and metrics


@pytest.mark.parametrize("kind", KINDS)
def test_success_knows_how_and_when_the_episode_ends(kind, record, sample_actions):
    def lasted(observation, action, next_observation, info):
        return (info["step"] == 12) & np.logical_not(info["terminated"]) | info["truncated"]

    env = make(kind, Customization(stay_centred, is_success=lasted))
    steps = record(env, sample_actions(env, 120), seed=4)
    assert steps.info["is_success"].dtype == bool
    each = [steps] if kind == "scalar" else [steps.environment(index) for index in range(NUM_ENVS)]
    for one in each:
        length = one.running(one.reward, len)
        assert one.terminated.any() and (length == 12).any()
        np.testing.assert_array_equal(one.info["is_success"], (length == 12) & ~one.terminated)


REDUCTIONS = {"mean": np.mean, "sum": np.sum, "min": np.min, "max": np.max}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("offset", [-10.0, 0.0, 10.0])
def test_metric_is_reduced_over_the_episode_so_far(kind, reduction, offset, record, sample_actions):
    """With values of one sign only, a minimum or maximum that starts from 0 shows."""

    def value(observation, action, next_observation, info):
        return next_observation[..., 1] + offset

    env = make(kind, Customization(stay_centred, metric=Metric("speed", value, reduction)))
    steps = record(env, sample_actions(env, 100), seed=5)
    each = [steps] if kind == "scalar" else [steps.environment(index) for index in range(NUM_ENVS)]
    for one in each:
        assert 2 <= one.done.sum() < len(one.done)
        values = one.next_observation[:, 1].astype(np.float32) + np.float32(offset)
        expected = one.running(values.astype(np.float64), REDUCTIONS[reduction])
        np.testing.assert_allclose(one.info["speed"], expected, rtol=1e-12, atol=1e-12)


def test_a_reset_of_some_environments_restarts_their_metrics_only():
    env = make("vector", Customization(stay_centred, metric=Metric("steps", lambda *_: np.ones(NUM_ENVS), "sum")))
    env.reset(seed=0)
    actions = np.array([0, 1, 0])
    for _ in range(4):
        *_, before = env.step(actions)
    env.reset(options={"reset_mask": np.array([False, True, False])})
    *_, after = env.step(actions)
    assert before["steps"].tolist() == [4, 4, 4], "what was handed out must not change later"
    assert after["steps"].tolist() == [5, 1, 5]
    env.reset()
    assert env.step(actions)[-1]["steps"].tolist() == [1, 1, 1]


# Scalar and vector agree


@pytest.mark.parametrize("base", ["CartPole-v1", "Acrobot-v1", "MountainCarContinuous-v0"])
def test_rows_batches_and_single_environments_agree(base, movement, register, record, sample_actions):
    metric = Metric("distance", movement, "sum")
    tasks = {
        kind: register(base, Customization(movement, None, metric, lambda *step: step[3]["terminated"], vectorized))
        for kind, vectorized in (("row by row", False), ("vector", True))
    }
    vectors = {kind: gym.make_vec(task, num_envs=NUM_ENVS, max_episode_steps=30) for kind, task in tasks.items()}
    actions = sample_actions(vectors["vector"], 80)
    by_batch, by_row = (record(vectors[kind], actions, seed=7) for kind in ("vector", "row by row"))
    by_row.assert_equal(by_batch)
    assert by_batch.done.any()
    for index in range(NUM_ENVS):
        alone = CustomizationWrapper(gym.make(base, max_episode_steps=30), vectors["vector"].customization)
        record(alone, actions[:, index], seed=7 + index).assert_equal(by_batch.environment(index))


# Broken contracts are named


def broken_from_step(step: int, wrong: Any, right: Any) -> Callable[..., Any]:
    calls = []

    def broken_wish(observation, action, next_observation, info):
        calls.append(None)
        return right if len(calls) < step else wrong

    return broken_wish


def play(env, steps: int) -> None:
    env.reset(seed=0)
    for _ in range(steps):
        env.step(env.action_space.sample() * 0)


BAD_NUMBERS = {
    "not a number": np.nan,
    "infinite": np.inf,
    "minus infinite": -np.inf,
    "an array": np.zeros(2),
    "an array of one": np.zeros(1),
    "a word": "much",
    "nothing": None,
    "a mapping": {"reward": 1.0},
}
BAD_BATCHES = {
    "not a number": np.array([0, np.nan, 0]),
    "infinite": np.array([0, np.inf, 0]),
    "one number for all": 0.0,
    "too few": np.zeros(NUM_ENVS - 1),
    "a column": np.zeros((NUM_ENVS, 1)),
    "words": ["much"] * NUM_ENVS,
    "nothing": None,
}


@pytest.mark.parametrize("what", BAD_NUMBERS)
def test_a_bad_add_on_reward_is_refused_with_function_and_step(what):
    env = make("scalar", broken_from_step(3, BAD_NUMBERS[what], right=0.0))
    play(env, 2)
    with pytest.raises(EnvironmentContractError, match=r"^add_on_reward .*broken_wish") as raised:
        env.step(0)
    assert "step 3" in str(raised.value)


@pytest.mark.parametrize("what", BAD_BATCHES)
def test_a_bad_batch_of_add_on_rewards_is_refused_with_function_and_step(what):
    env = make("vector", broken_from_step(3, BAD_BATCHES[what], right=np.zeros(NUM_ENVS)))
    play(env, 2)
    with pytest.raises(EnvironmentContractError, match=r"^add_on_reward .*broken_wish") as raised:
        env.step(np.zeros(NUM_ENVS, int))
    assert "step 3" in str(raised.value)


@pytest.mark.parametrize(
    ("name", "said"), [("add_on_reward", "a wish"), ("is_success", "is_success"), ("distance", "distance")]
)
@pytest.mark.parametrize(
    ("kind", "where"),
    [
        ("vector", f"in the batch of environments 0 to {NUM_ENVS - 1} at step 1 of their episodes"),
        ("row by row", "in environment 0 at step 1 of its episode"),
        ("scalar", "in environment 0 at step 1 of its episode"),
    ],
)
def test_a_function_that_raises_is_named_with_those_that_it_was_called_for(kind, where, name, said):
    def raising(observation, action, next_observation, info):
        raise KeyError("add_on_reward")

    functions = {"add_on_reward": stay_centred, "is_success": None, "distance": None, name: raising}
    metric = None if functions["distance"] is None else Metric("distance", raising)
    env = make(kind, Customization(functions["add_on_reward"], metric=metric, is_success=functions["is_success"]))
    with pytest.raises(EnvironmentContractError) as raised:
        play(env, 1)
    message = str(raised.value)
    assert message.startswith(f"{name} (") and where in message and f"{said} must not depend on it" in message


@pytest.mark.parametrize("what", BAD_NUMBERS)
def test_a_bad_add_on_reward_of_a_row_is_refused_with_function_and_step(what):
    env = make("row by row", broken_from_step(2 * NUM_ENVS + 2, BAD_NUMBERS[what], right=0.0))
    play(env, 2)
    with pytest.raises(EnvironmentContractError, match=r"^add_on_reward .*broken_wish") as raised:
        env.step(np.zeros(NUM_ENVS, int))
    assert "step 3" in str(raised.value)


def test_the_environment_at_fault_is_named_with_the_step_of_its_own_episode():
    env = make("vector", broken_from_step(4, BAD_BATCHES["not a number"], right=np.zeros(NUM_ENVS)))
    play(env, 2)
    env.reset(options={"reset_mask": np.array([False, True, False])})
    env.step(np.zeros(NUM_ENVS, int))
    with pytest.raises(EnvironmentContractError, match=r"nan.* in environment 1 at step 2"):
        env.step(np.zeros(NUM_ENVS, int))


@pytest.mark.parametrize("kind", ["scalar", "row by row"])
@pytest.mark.parametrize("role", ["basic_reward", "metric", "is_success"])
def test_whichever_function_is_broken_is_named(kind, role):
    broken = broken_from_step(1, np.nan, None)
    value = Metric("distance_driven", broken) if role == "metric" else broken
    env = make(kind, Customization(stay_centred, **{role: value}))
    expected = "distance_driven" if role == "metric" else role
    with pytest.raises(EnvironmentContractError, match=rf"^{expected} .*broken_wish"):
        play(env, 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reward", ["bonus", "", None])
def test_an_unknown_reward_is_refused(kind, reward):
    with pytest.raises(ConfigurationError, match=rf"^reward: found {reward!r}.*'basic', 'add_on', 'total'"):
        make(kind, stay_centred, reward=reward)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("omega", [np.nan, np.inf])
def test_a_weight_that_is_no_number_is_refused(kind, omega):
    with pytest.raises(ConfigurationError, match=r"^omega:"):
        make(kind, stay_centred, omega=omega)


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_vector_environments_that_reset_themselves_are_refused(mode):
    envs = SyncVectorEnv([lambda: gym.make("CartPole-v1")], autoreset_mode=mode)
    with pytest.raises(ConfigurationError, match=rf"^autoreset_mode: found .*{mode.name}.*DISABLED"):
        VectorCustomizationWrapper(envs, stay_centred)


# What TorchRL takes


def test_the_vector_wrapper_says_that_it_does_not_reset_itself():
    env = make("vector", stay_centred)
    assert env.autoreset_mode == env.metadata["autoreset_mode"] == AutoresetMode.DISABLED


def test_torchrl_takes_the_vector_environment():
    from torchrl.envs import GymWrapper

    env = GymWrapper(make("vector", stay_centred))
    steps = env.rollout(60, break_when_any_done=False)["next"]
    assert steps["done"].any() and steps["observation"].shape == (NUM_ENVS, 60, 4)
    expected = 1 - steps["observation"][..., :1].abs()
    np.testing.assert_allclose(steps["reward"].numpy(), expected.numpy(), rtol=1e-6)


def test_rows_of_observations_that_are_tuples():
    """Blackjack observes (sum of the hand, the dealer's card, an ace)."""
    seen: list[tuple[Any, Any, Any]] = []

    def wish(observation, action, next_observation, info):
        seen.append((observation, action, next_observation))
        return float(next_observation[0])

    envs = SyncVectorEnv([partial(gym.make, "Blackjack-v1")] * 5, autoreset_mode=AutoresetMode.DISABLED)
    env = VectorCustomizationWrapper(envs, wish, reward="add_on")
    before, _ = env.reset(seed=4)
    actions = np.array([0, 1, 0, 1, 1])
    after, reward, *_ = env.step(actions)
    assert len(seen) == 5
    for index, (observation, action, next_observation) in enumerate(seen):
        assert tuple(observation) == tuple(column[index] for column in before)
        assert tuple(next_observation) == tuple(column[index] for column in after)
        assert action == actions[index]
    np.testing.assert_array_equal(reward, after[0])


def test_the_pictured_quantity_sees_rows_and_their_info():
    def speed(observation, action, next_observation, info):
        return info["speed"] + float(observation[0])

    env = make("row by row", Customization(lambda *_: 0.0, pictured=("speed", speed)), Reporter)
    observation, _ = env.reset(seed=0)
    following, *_, info = env.step(np.zeros(NUM_ENVS, int))
    np.testing.assert_array_equal(env.picture((observation, np.zeros(NUM_ENVS), following, info)), [0.5] * NUM_ENVS)


@pytest.mark.parametrize("name", ["add_on_reward", "basic_reward", "is_success"])
def test_a_function_of_other_arguments_is_refused_before_it_is_called(name):
    functions: dict[str, Any] = {"add_on_reward": lambda *_: 0.0, name: lambda observation, action: 0.0}
    with pytest.raises(EnvironmentContractError, match=rf"{name} .*found a function of \(observation, action\)"):
        make("scalar", Customization(**functions))
