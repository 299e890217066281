"""Compiled vector environments: random numbers, seeds, states, autoreset, and other libraries."""

from __future__ import annotations

import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from hypothesis import given, settings
from hypothesis import strategies as st
from torchrl.envs import GymWrapper
from torchrl.envs.utils import check_env_specs

from rql_lightning.envs.simulation import HighwayVectorEnv, ParkingVectorEnv
from rql_lightning.envs.simulation.generator import draw_choice, draw_uniform, generator_to_state, seed_generator

HIGHWAY, PARKING = "rql_lightning/Highway-v0", "rql_lightning/Parking-v0"
BOTH = pytest.mark.parametrize("id", [HIGHWAY, PARKING])
FEW = {HIGHWAY: {"vehicles_count": 8}, PARKING: {}}


def make(id, num_envs=4, **kwargs):
    return gym.make_vec(id, num_envs=num_envs, **FEW[id], **kwargs)


@given(seed=st.integers(0, 2**63), draws=st.lists(st.integers(0, 40), max_size=30))
@settings(max_examples=60)
def test_random_numbers_are_numpys(seed, draws):
    expected, ours = np.random.default_rng(seed), seed_generator(seed)
    for count in draws:
        if count == 0:
            assert draw_uniform(ours, -1.0, 2.5) == expected.uniform(-1.0, 2.5)
        else:
            assert draw_choice(ours, count) == expected.choice(count)
    assert generator_to_state(ours) == expected.bit_generator.state


@BOTH
def test_an_environment_depends_on_its_seed_alone(id, record, sample_actions):
    many = make(id)
    actions = sample_actions(many, 60)
    together = record(many, actions, seed=20)
    assert together.done.any() or id == PARKING
    for index in (0, 3):
        alone = record(make(id, 1), actions[:, index : index + 1], seed=20 + index)
        alone.environment(0).assert_equal(together.environment(index))
    record(make(id, threads=2), actions, seed=20).assert_equal(together)
    record(many, actions, seed=[20, 21, 22, 23]).assert_equal(together)


def test_a_fresh_process_gives_the_same():
    code = (
        "import gymnasium as gym, numpy as np, rql_lightning\n"
        f"env = gym.make_vec({HIGHWAY!r}, num_envs=2, vehicles_count=8)\n"
        "env.reset(seed=3)\n"
        "print(sum(env.step(np.array([3, 2]))[0].sum(dtype=float) for _ in range(5)).hex())\n"
    )
    env = make(HIGHWAY, 2)
    env.reset(seed=3)
    here = sum(env.step(np.array([3, 2]))[0].sum(dtype=float) for _ in range(5)).hex()
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split()[-1] == here


@BOTH
def test_only_the_environments_of_the_mask_are_reset(id):
    env = make(id)
    env.reset(seed=0)
    before = env.step(np.array([env.single_action_space.sample()] * 4))[0].copy()
    mask = np.array([True, False, False, True])
    after, info = env.reset(options={"reset_mask": mask})
    np.testing.assert_array_equal(after[~mask], before[~mask])
    assert (after[mask] != before[mask]).any(axis=1).all()
    assert info["_speed"].tolist() == mask.tolist()


@BOTH
def test_states_go_anywhere_and_lead_to_the_same_future(id, record, sample_actions):
    env = make(id, 5)
    actions = sample_actions(env, 12)
    record(env, actions[:4], seed=1)
    state = env.get_state()
    plain = {key: torch.from_numpy(array) for key, array in state.items()}
    first = record(env, actions[4:], start=state["observation"])
    assert not np.array_equal(env.get_state()["vehicles"], state["vehicles"]), "states are copies"
    env.set_state({key: tensor.numpy() for key, tensor in plain.items()})
    record(env, actions[4:], start=state["observation"]).assert_equal(first)
    env.set_state(state)
    env.set_state({key: array[[0, 0]] for key, array in state.items()}, indices=[2, 4])
    same = np.stack([actions[:, 0]] * 5, axis=1)
    futures = record(env, same[4:], start=env.get_state()["observation"])
    for index in (2, 4):
        futures.environment(index).assert_equal(futures.environment(0))
    np.testing.assert_array_equal(env.get_state([3, 1])["times"], env.get_state()["times"][[3, 1]])


@BOTH
def test_a_running_episode_moves_to_the_reference_and_back(id, sample_actions):
    env, reference = make(id, 3), gym.make(id, **FEW[id])
    reference.reset(seed=99)
    env.reset(seed=0)
    for action in sample_actions(env, 3):
        env.step(action)
    env.to_reference(1, reference)
    back = make(id, 2)
    back.reset(seed=50)
    back.load_reference(0, reference)
    for key, value in env.get_state([1]).items():
        np.testing.assert_allclose(back.get_state([0])[key], value, atol=1e-12, err_msg=key)
    for action in sample_actions(env, 3, seed=1):
        observation, reward, terminated, _, info = reference.step(action[1])
        found, rewards, terminations, _, infos = env.step(action)
        np.testing.assert_allclose(found[1], observation, atol=1e-6)
        assert rewards[1] == pytest.approx(reward, abs=1e-9) and terminations[1] == terminated
        metric = env.customization.metric.name
        assert infos[metric][1] == pytest.approx(info[metric]), "the metric goes on from where it was"


@BOTH
def test_pictures_are_the_references(id, monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    env, reference = make(id, 2), gym.make(id, render_mode="rgb_array", **FEW[id])
    env.reset(seed=7)
    reference.reset(seed=8)
    pictures = env.unwrapped.render()
    expected = reference.render()
    env.close()
    reference.close()
    assert expected.std() > 5, "something is drawn"
    np.testing.assert_array_equal(pictures[1], expected)
    assert not np.array_equal(pictures[0], pictures[1])


@pytest.mark.parametrize("id", [HIGHWAY, "rql_lightning/CartPole-v0"])
def test_same_step_autoreset_is_gymnasiums(id, sample_actions):
    kwargs = FEW.get(id, {})
    env = gym.make_vec(id, num_envs=3, autoreset_mode="SameStep", **kwargs)
    makers = [lambda: gym.make(id, **kwargs) for _ in range(3)]
    expected = SyncVectorEnv(makers, autoreset_mode=AutoresetMode.SAME_STEP)
    assert env.autoreset_mode == env.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    np.testing.assert_allclose(env.reset(seed=11)[0], expected.reset(seed=11)[0], atol=1e-6)
    ends = 0
    for action in sample_actions(env, 45):
        ours, theirs = env.step(action), expected.step(action)
        for index in range(4):
            np.testing.assert_allclose(ours[index], theirs[index], atol=1e-6)
        assert ("final_obs" in ours[4]) == ("final_obs" in theirs[4])
        if "final_obs" not in ours[4]:
            continue
        done = theirs[4]["_final_obs"]
        ends += int(done.sum())
        assert ours[4]["_final_obs"].tolist() == ours[4]["_final_info"].tolist() == done.tolist()
        for index in range(3):
            if done[index]:
                np.testing.assert_allclose(ours[4]["final_obs"][index], theirs[4]["final_obs"][index], atol=1e-6)
            else:
                assert ours[4]["final_obs"][index] is None
        for key in ("basic_reward", "add_on_reward", "is_success"):
            mine, their = ours[4]["final_info"], theirs[4]["final_info"]
            np.testing.assert_allclose(mine[key][done], their[key][done], atol=1e-6)
            assert ours[4][f"_{key}"].tolist() == theirs[4].get(f"_{key}", np.zeros(3, bool)).tolist()
    assert ends >= 3


@pytest.mark.parametrize("env", [HighwayVectorEnv(3, {"vehicles_count": 4}), ParkingVectorEnv(3)])
def test_torchrl_takes_them(env):
    wrapped = GymWrapper(env, categorical_action_encoding=True)
    check_env_specs(wrapped)
    assert wrapped.rollout(5, break_when_any_done=False).shape == (3, 5)


def test_stable_baselines3_takes_them(sample_actions):
    from stable_baselines3.common.vec_env import VecMonitor

    from rql_lightning.envs.stable_baselines import StableBaselinesVecEnv

    inner, outer = make(HIGHWAY), StableBaselinesVecEnv(make(HIGHWAY))
    outer.seed(5)
    np.testing.assert_array_equal(outer.reset(), inner.reset(seed=5)[0])
    returns, ends = np.zeros(4), 0
    for action in sample_actions(inner, 60):
        expected, reward, terminated, truncated, info = inner.step(action)
        observation, rewards, dones, infos = outer.step(action)
        returns += reward
        np.testing.assert_allclose(rewards, reward, rtol=1e-6)
        np.testing.assert_array_equal(dones, terminated | truncated)
        np.testing.assert_array_equal(observation[~dones], expected[~dones])
        for index in np.flatnonzero(dones):
            np.testing.assert_array_equal(infos[index]["terminal_observation"], expected[index])
            assert infos[index]["TimeLimit.truncated"] == (truncated[index] and not terminated[index])
            assert infos[index]["episode"]["r"] == pytest.approx(returns[index])
            assert infos[index]["is_success"] == info["is_success"][index]
            returns[index], ends = 0.0, ends + 1
        if dones.any():
            np.testing.assert_array_equal(observation, inner.reset(options={"reset_mask": dones})[0])
    assert ends > 2 and VecMonitor(outer).reset().shape == (4, 25)
