"""Environments in processes: the same episodes, errors that name the environment, and no process left behind."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector.utils import CloudpickleWrapper

from rql_lightning.algorithms import SoftActorCritic
from rql_lightning.data import ReplayDataModule
from rql_lightning.envs import make_vector_env
from rql_lightning.envs.processes import ProcessVectorEnv
from rql_lightning.errors import ConfigurationError, EnvironmentContractError

ID = "rql_lightning/CartPole-v0"
SMALL: dict[str, Any] = {"num_envs": 2, "total_frames": 64, "frames_per_batch": 32, "updates_per_batch": 2}
SMALL |= {"batch_size": 4, "warm_up_frames": 0, "env": "MountainCarContinuous-v0", "reward": "basic"}


class Failing(gym.Env[Any, Any]):
    """Does as it is told by the first number of its action."""

    observation_space, action_space = gym.spaces.Box(-9, 9, (1,)), gym.spaces.Box(-9, 9, (1,))

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Any:
        if action[0] == 1:
            raise ValueError("no such joint")
        if action[0] == 2:
            os._exit(3)
        if action[0] == 3:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)
        reward = "much" if action[0] == 4 else 0.5
        return np.ones(1, np.float32), reward, False, False, {"pid": os.getpid()}


class Collapsing(Failing):
    """Raises an error in the third step."""

    def step(self, action: Any) -> Any:
        self.steps = getattr(self, "steps", 0) + 1
        if self.steps == 3:
            raise RuntimeError("fell over")
        return np.ones(1, np.float32), 0.5, False, False, {}


@pytest.fixture
def collapsing() -> Iterator[str]:
    gym.register("tests/Collapsing-v0", entry_point=Collapsing)
    yield "tests/Collapsing-v0"
    gym.registry.pop("tests/Collapsing-v0")


def workers() -> list[str]:
    """The processes of environments that run."""
    return [child.name for child in multiprocessing.active_children() if "ProcessVectorEnv" in child.name]


def failing(number: int = 3, processes: int = 2) -> ProcessVectorEnv:
    env = ProcessVectorEnv([Failing] * number, processes, "Failing-v0")
    env.reset(seed=0)
    return env


def told(*actions: int) -> np.ndarray:
    return np.array(actions, np.float32)[:, None]


def test_episodes_are_those_of_one_process(record, sample_actions):
    one = make_vector_env(ID, 3, "total", env_kwargs={"max_episode_steps": 30})
    actions = sample_actions(one, 80)
    expected = record(one, actions, seed=7)
    for processes in (1, 3):
        with closing(make_vector_env(ID, 3, "total", env_kwargs={"max_episode_steps": 30}, processes=processes)) as env:
            assert isinstance(env.unwrapped, ProcessVectorEnv)
            found = record(env, actions, seed=7)
            with pytest.raises(NotImplementedError, match="ProcessVectorEnv has no get_state"):
                env.get_state()
        found.assert_equal(expected)
    assert (expected.done.sum(0) >= 2).all() and len(np.unique(expected.done.argmax(0))) > 1, "they end one by one"


def test_what_is_returned_stays_as_it_is():
    with closing(failing()) as env:
        first, *_ = env.step(told(0, 0, 0))
        env.reset()
        assert (first == 1).all()


def test_each_environment_has_a_process_and_all_are_gone_after_closing():
    env = failing()
    pids = env.step(told(0, 0, 0))[4]["pid"]
    assert len({*pids, os.getpid()}) == 4
    env.close()
    for process, pid in zip(env.processes, pids, strict=True):
        assert process.exitcode == 0 and process.pid == pid


def test_an_error_names_the_environment_and_closing_still_works():
    env = failing()
    expected = r"^environment 1 of Failing-v0: found ValueError: no such joint$"
    with pytest.raises(EnvironmentContractError, match=expected) as error:
        env.step(told(0, 1, 1))
    assert "in step" in str(error.value.__cause__), "where it happened"
    env.close()
    assert all(process.exitcode is not None for process in env.processes)
    env = failing()
    with pytest.raises(EnvironmentContractError, match=r"^reward of Failing: found 'much'"):
        env.step(told(0, 0, 4))
    env.close()


@pytest.mark.parametrize("processes", [1, 3])
@pytest.mark.parametrize("index", [0, 2])
def test_a_process_that_ends_is_named(index, processes):
    """Also if it was the only one that was allowed to step."""
    env = failing(processes=processes)
    with pytest.raises(
        EnvironmentContractError, match=rf"^environment {index} of Failing-v0: .* exit code 3, expected"
    ):
        env.step(told(*(2 if each == index else 0 for each in range(3))))
    env.close()
    assert all(process.exitcode is not None for process in env.processes)


def test_signals_are_the_parents_affair():
    with closing(failing()) as env:
        assert (env.step(told(3, 3, 3))[1] == 0.5).all()


def test_closing_in_the_middle_of_a_step():
    env = failing()
    env.step_async(told(0, 0, 0))
    env.close()
    assert all(process.exitcode is not None for process in env.processes)


def test_an_environment_that_cannot_be_made_in_its_process():
    def make(parent: int = os.getpid()) -> gym.Env[Any, Any]:
        if os.getpid() != parent:
            os._exit(4)
        return Failing()

    with pytest.raises(EnvironmentContractError, match=r"of Failing-v0: .* exit code 4"):
        ProcessVectorEnv([make, make], 2, "Failing-v0")


def test_makers_can_be_sent_to_a_process_that_is_not_a_fork():
    env = make_vector_env(ID, 1, "total", env_kwargs={"max_episode_steps": 30}, processes=1)
    env.close()
    (maker,) = env.unwrapped.env_fns
    made = pickle.loads(pickle.dumps(CloudpickleWrapper(partial(maker.func, os.getpid(), *maker.args[1:])))).fn()
    assert made.reset(seed=0)[0].shape == (4,)


def test_a_run_collects_the_same_frames(fit):
    weights = []
    for processes in (0, 2):
        algorithm = SoftActorCritic(hidden_sizes=[8])
        fit(algorithm, ReplayDataModule(processes=processes, **SMALL))
        weights.append({name: each.clone() for name, each in algorithm.state_dict().items()})
        assert not workers()
    assert all((weights[0][name] == weights[1][name]).all() for name in weights[0])


def test_a_run_whose_environment_fails_leaves_no_process_behind(fit, collapsing):
    data = ReplayDataModule(processes=1, **{**SMALL, "env": collapsing})
    with pytest.raises(
        EnvironmentContractError, match=rf"^environment 0 of {collapsing}: found RuntimeError: fell over$"
    ):
        fit(SoftActorCritic(hidden_sizes=[8]), data)
    assert not workers()


def test_processes_that_make_no_sense_are_refused():
    for wrong in (-1, 3, 1.5, True):
        with pytest.raises(ConfigurationError, match=r"^data\.processes: found .* at most data\.num_envs = 2"):
            ReplayDataModule(processes=wrong, **SMALL)
    with pytest.raises(ConfigurationError, match=r"^data\.processes: found 2, expected 0: compiled environments"):
        make_vector_env("rql_lightning/Highway-v0", 2, "total", processes=2)
    with closing(make_vector_env("rql_lightning/Parking-v0", 2, "total", processes=2, reference=True)) as env:
        assert isinstance(env.unwrapped, ProcessVectorEnv)
