"""``rql_lightning/CartPole-v0`` held to Gymnasium's CartPole-v1 and to the formulas of the spec (section 2)."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

import rql_lightning.envs  # noqa: F401  (registers the id)

ID = "rql_lightning/CartPole-v0"
NUM_ENVS = 4


def balance(observation: np.ndarray) -> int:
    """A controller that stands for 500 steps."""
    return int(observation @ [0.1, 0.3, 3.0, 1.0] > 0)


def play_balanced(env: gym.Env, seed: int, fall_at: int | None = None) -> list[tuple]:
    """One episode under the controller, until the pole is let fall at a step."""
    observation, _ = env.reset(seed=seed)
    steps = []
    while True:
        action = balance(observation) if fall_at is None or len(steps) < fall_at else 0
        observation, reward, terminated, truncated, info = env.step(action)
        steps.append((observation, reward, terminated, truncated, info))
        if terminated or truncated:
            return steps


# Against Gymnasium's environment


@pytest.mark.parametrize("seed", [0, 1, 2**31])
def test_random_episodes_are_gymnasiums(seed, record, sample_actions):
    ours, theirs = gym.make(ID), gym.make("CartPole-v1")
    actions = sample_actions(theirs, 300, seed)
    found, expected = (record(env, actions, seed=seed) for env in (ours, theirs))
    assert expected.terminated.sum() > 5
    for name in ("observation", "next_observation", "terminated", "truncated"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), name)
    assert found.next_observation.dtype == np.float32


@pytest.mark.parametrize("seed", [0, 7])
@pytest.mark.parametrize("fall_at", [None, 100, 480])
def test_balanced_episodes_are_gymnasiums_to_the_time_limit(seed, fall_at):
    found, expected = (play_balanced(gym.make(id), seed, fall_at) for id in (ID, "CartPole-v1"))
    assert len(found) == len(expected) and (len(found) == 500) == (fall_at is None)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours[0], theirs[0])
        assert ours[2:4] == theirs[2:4]


def test_spaces_are_gymnasiums():
    ours, theirs = gym.make(ID), gym.make("CartPole-v1")
    assert ours.observation_space == theirs.observation_space and ours.action_space == theirs.action_space
    vector = gym.make_vec(ID, num_envs=NUM_ENVS)
    assert vector.single_observation_space == theirs.observation_space
    assert vector.single_action_space == theirs.action_space
    assert vector.observation_space.shape == (NUM_ENVS, 4) and vector.num_envs == NUM_ENVS
    assert vector.metadata["autoreset_mode"] == AutoresetMode.DISABLED


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("reward", ["basic", "add_on", "total"])
def test_gymnasiums_checker_finds_nothing(reward):
    env = gym.make(ID, reward=reward, render_mode="rgb_array")
    check_env(env)  # raises at what breaks Gymnasium's API
    assert env.spec.id == ID and env.spec.max_episode_steps == 500


def test_the_environment_can_be_made_again_from_its_spec():
    first = gym.make(ID, reward="basic", omega=3.0)
    second = gym.make(first.spec)
    first.reset(seed=5), second.reset(seed=5)
    ours, again = first.step(1), second.step(1)
    np.testing.assert_array_equal(ours[0], again[0])
    assert ours[1:] == again[1:] and ours[1] == ours[4]["basic_reward"]


# Against the formulas


@pytest.mark.parametrize(("name", "omega"), [("basic", 1.0), ("add_on", 1.0), ("total", 1.0), ("total", 0.25)])
def test_rewards_by_hand_from_the_raw_state(name, omega):
    env = gym.make(ID, reward=name, omega=omega)
    env.action_space.seed(3)
    env.reset(seed=3)
    positions = []
    for _ in range(200):
        _, reward, terminated, _, info = env.step(env.action_space.sample())
        x, _, theta, _ = (float(value) for value in env.unwrapped.state)  # in double precision
        positions.append(abs(x))
        basic, add_on = 1 - 10 * abs(theta) / 0.2095, -abs(x) / 2.4
        assert info["basic_reward"] == pytest.approx(basic, abs=1e-5)
        assert info["add_on_reward"] == pytest.approx(add_on, abs=1e-6)
        expected = {"basic": basic, "add_on": add_on, "total": omega * basic + add_on}[name]
        assert reward == pytest.approx(expected, abs=1e-5)
        assert info["mean_abs_position"] == pytest.approx(sum(positions) / len(positions), abs=1e-6)
        assert info["is_success"] is False
        if terminated:
            positions = []
            env.reset()


def test_total_at_weight_one_is_the_default():
    env = gym.make(ID)
    env.reset(seed=0)
    _, reward, *_, info = env.step(0)
    assert reward == pytest.approx(info["basic_reward"] + info["add_on_reward"], abs=1e-9)


def test_success_is_the_500th_step_and_nothing_else():
    lasted, fell = play_balanced(gym.make(ID), 0), play_balanced(gym.make(ID), 0, fall_at=480)
    assert [step[4]["is_success"] for step in lasted] == [False] * 499 + [True]
    assert lasted[-1][2:4] == (False, True)
    assert fell[-1][2:4] == (True, False) and not any(step[4]["is_success"] for step in fell)


# Scalar and vector


@pytest.mark.parametrize("reward", ["basic", "add_on", "total"])
def test_scalar_and_vector_agree_step_by_step(reward, record, sample_actions):
    vector = gym.make_vec(ID, num_envs=NUM_ENVS, reward=reward, omega=0.5)
    actions = sample_actions(vector, 200, seed=1)
    together = record(vector, actions, seed=40)
    assert (together.terminated.sum(0) > 3).all()
    assert {"basic_reward", "add_on_reward", "is_success", "mean_abs_position"} <= together.info.keys()
    for index in range(NUM_ENVS):
        alone = record(gym.make(ID, reward=reward, omega=0.5), actions[:, index], seed=40 + index)
        alone.assert_equal(together.environment(index))


def test_scalar_and_vector_agree_to_the_time_limit(record):
    vector = gym.make_vec(ID, num_envs=2)
    observation, _ = vector.reset(seed=20)
    actions = []
    for _ in range(500):
        actions.append(np.array([balance(row) for row in observation]))
        observation, _, terminated, truncated, info = vector.step(actions[-1])
    assert truncated.all() and info["is_success"].all() and not terminated.any()
    together = record(vector, actions, seed=20)
    for index in range(2):
        alone = record(gym.make(ID), np.array(actions)[:, index], seed=20 + index)
        alone.assert_equal(together.environment(index))


def test_a_shorter_time_limit_is_not_the_500_steps_of_success(record):
    single, vector = gym.make(ID, max_episode_steps=20), gym.make_vec(ID, num_envs=1, max_episode_steps=20)
    actions = np.array([0, 1] * 10)
    alone, together = record(single, actions, seed=0), record(vector, actions[:, None], seed=0)
    assert alone.truncated.tolist() == [False] * 19 + [True] and not alone.info["is_success"].any()
    alone.assert_equal(together.environment(0))


def test_episodes_depend_on_the_seed_and_not_on_the_number_of_environments(record, sample_actions):
    many = gym.make_vec(ID, num_envs=NUM_ENVS)
    actions = sample_actions(many, 120, seed=2)
    all_of_them = record(many, actions, seed=70)
    assert (all_of_them.terminated.sum(0) > 1).all()
    for first in range(NUM_ENVS):
        some = gym.make_vec(ID, num_envs=NUM_ENVS - first)
        fewer = record(some, actions[:, first:], seed=70 + first)
        for index in range(NUM_ENVS - first):
            fewer.environment(index).assert_equal(all_of_them.environment(first + index))


def test_the_same_seed_gives_the_same_episodes_and_another_others(record, sample_actions):
    env = gym.make_vec(ID, num_envs=NUM_ENVS)
    actions = sample_actions(env, 60)
    first = record(env, actions, seed=8)
    record(env, actions, seed=8).assert_equal(first)
    listed = record(env, actions, seed=[8, 9, 10, 11])
    listed.assert_equal(first)
    assert not np.array_equal(record(env, actions, seed=9).observation, first.observation)
    assert len({tuple(row) for row in first.observation[0]}) == NUM_ENVS


def test_only_the_environments_of_the_mask_are_reset():
    env = gym.make_vec(ID, num_envs=NUM_ENVS)
    env.reset(seed=0)
    for _ in range(5):
        before, *_ = env.step(np.zeros(NUM_ENVS, int))
    mask = np.array([True, False, False, True])
    after, _ = env.reset(options={"reset_mask": mask})
    np.testing.assert_array_equal(after[~mask], before[~mask])
    assert (np.abs(after[mask]) <= 0.05).all() and (after[mask] != before[mask]).all()
    *_, info = env.step(np.ones(NUM_ENVS, int))
    reference = gym.make_vec(ID, num_envs=NUM_ENVS)
    reference.reset(seed=0)
    for action in [0] * 5 + [1]:
        *_, undisturbed = reference.step(np.full(NUM_ENVS, action))
    same = info["mean_abs_position"] == undisturbed["mean_abs_position"]
    assert same.tolist() == (~mask).tolist()


# Pictures


def test_pictures():
    env = gym.make(ID, render_mode="rgb_array")
    env.reset(seed=0)
    first = env.render()
    for _ in range(8):
        env.step(1)
    second = env.render()
    env.close()
    assert first.shape == second.shape == (400, 600, 3) and first.dtype == np.uint8
    assert (first != second).any(), "the cart moves"


def test_pictures_of_a_vector():
    env = gym.make_vec(ID, num_envs=2, render_mode="rgb_array")
    env.reset(seed=0)
    env.step(np.array([0, 1]))
    pictures = env.render()
    env.close()
    assert [picture.shape for picture in pictures] == [(400, 600, 3)] * 2
