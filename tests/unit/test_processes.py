"""Environments in processes: the same episodes, errors that name the environment, and no process left behind."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
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


class Unsendable(Exception):
    """An error that has no pickled form."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.lock = threading.Lock()


class Two(Exception):
    """An error whose pickled form cannot be read."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} {second}")


class Unreduced:
    """Raises an error that cannot be sent when it is to be sent."""

    def __reduce__(self) -> Any:
        raise Unsendable("not this one")


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
        if action[0] == 5:
            raise Unsendable("no such joint")
        if action[0] == 6:
            raise Two("no such", "joint")
        if action[0] == 7:
            time.sleep(1)
        if action[0] == 8:
            return np.ones(1, np.float32), 0.5, False, False, {"unsendable": Unreduced()}
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


def first_observation(maker: Any) -> np.ndarray:
    return maker.fn().reset(seed=0)[0]


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
    expected = r"^environment 1 of Failing-v0: found ValueError: no such joint, at "
    with pytest.raises(EnvironmentContractError, match=expected) as error:
        env.step(told(0, 1, 1))
    assert "in step" in str(error.value.__cause__), "where it happened"
    env.close()
    assert all(process.exitcode is not None for process in env.processes)
    env = failing()
    expected = r"^environment 2 of Failing-v0: reward of Failing: found 'much'"
    with pytest.raises(EnvironmentContractError, match=expected):
        env.step(told(0, 0, 4))
    env.close()


@pytest.mark.parametrize(("action", "kind"), [(5, "Unsendable"), (6, "Two")])
def test_an_error_that_cannot_be_sent_names_the_environment_too(action, kind):
    with (
        closing(failing()) as env,
        pytest.raises(
            EnvironmentContractError, match=rf"^environment 1 of Failing-v0: found {kind}: no such joint, at "
        ),
    ):
        env.step(told(0, action, 0))


def test_an_error_that_never_arrives_ends_the_step(monkeypatch):
    monkeypatch.setattr("rql_lightning.envs.processes.PATIENCE", 0.5)
    expected = r"^environment 2 of Failing-v0: found an error that cannot be sent"
    with closing(failing()) as env, pytest.raises(EnvironmentContractError, match=expected):
        env.step(told(0, 0, 8))


def test_an_error_is_named_although_its_process_ends_before_the_others_answer():
    expected = r"^environment 0 of Failing-v0: found ValueError: no such joint, at "
    with closing(failing(processes=3)) as env, pytest.raises(EnvironmentContractError, match=expected):
        env.step(told(1, 7, 7))


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


def test_a_program_that_closes_nothing_ends():
    """With the environments as a global of a script, which is there until the interpreter is gone."""
    script = """
from rql_lightning.envs import make_vector_env

if __name__ == "__main__":
    env = make_vector_env("rql_lightning/CartPole-v0", 2, "total", env_kwargs={"max_episode_steps": 9}, processes=2)
    env.reset(seed=0)
    print([process.pid for process in env.unwrapped.processes])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stderr == ""
    for pid in json.loads(done.stdout):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_an_environment_that_cannot_be_made_in_its_process():
    def make(parent: int = os.getpid()) -> gym.Env[Any, Any]:
        if os.getpid() != parent:
            os._exit(4)
        return Failing()

    with pytest.raises(EnvironmentContractError, match=r"of Failing-v0: .* exit code 4"):
        ProcessVectorEnv([make, make], 2, "Failing-v0")


def test_an_error_of_a_maker_in_its_process_is_told_by_its_traceback(capfd):
    def make(parent: int = os.getpid()) -> gym.Env[Any, Any]:
        if os.getpid() != parent:
            raise ValueError("no such display")
        return Failing()

    with pytest.raises(
        EnvironmentContractError, match=r"of Failing-v0: .* exit code 1 \(.* traceback is printed above"
    ):
        ProcessVectorEnv([make], 1, "Failing-v0")
    assert "ValueError: no such display" in capfd.readouterr().err


SCRIPT = """
import multiprocessing
import gymnasium as gym
from gymnasium.envs.classic_control import CartPoleEnv
from rql_lightning.envs import make_vector_env

multiprocessing.set_start_method("spawn")
gym.register("tests/OfThisScript-v0", entry_point=CartPoleEnv)
env = make_vector_env("tests/OfThisScript-v0", 2, "basic", processes=2)
print(env.reset(seed=[0, 1])[0].shape)
env.close()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere processes are new interpreters")
def test_a_script_needs_no_guard_whatever_was_imported_before(tmp_path):
    """TorchRL makes "spawn" the default of the whole program when it is imported."""
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True, text=True, timeout=120)
    assert done.stdout == "(2, 4)\n", done.stderr


def test_environments_can_be_made_in_processes_that_are_no_forks(collapsing):
    """A new interpreter knows what comes with the maker alone."""
    # Environments in processes ignore SIGTERM, by which a multiprocessing.Pool would end its own.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        for id, kwargs in ((ID, {"max_episode_steps": 30}), (collapsing, {})):
            env = make_vector_env(id, 1, "basic", env_kwargs=kwargs, processes=1)
            env.close()
            (maker,) = env.unwrapped.env_fns
            observation = pool.submit(first_observation, CloudpickleWrapper(maker)).result()
            np.testing.assert_array_equal(observation, make_vector_env(id, 1, "basic").reset(seed=[0])[0][0])


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
        EnvironmentContractError, match=rf"^environment 0 of {collapsing}: found RuntimeError: fell over, at "
    ):
        fit(SoftActorCritic(hidden_sizes=[8]), data)
    assert not workers()


def test_processes_that_make_no_sense_are_refused():
    for wrong in (-1, 3, 1.5, True):
        with pytest.raises(ConfigurationError, match=r"^data\.processes: found .* at most data\.num_envs = 2"):
            ReplayDataModule(processes=wrong, **SMALL)
    with pytest.raises(ConfigurationError, match=r"^data\.processes: found 2, expected 0: compiled environments"):
        make_vector_env("rql_lightning/Highway-v0", 2, "total", processes=2)
    for wrong in (-1, 1.5, True, None):
        with pytest.raises(ConfigurationError, match=r"^processes: found .*, expected an integer >= 0"):
            gym.make_vec(ID, num_envs=2, vectorization_mode="vector_entry_point", processes=wrong)
    with closing(make_vector_env("rql_lightning/Parking-v0", 2, "total", processes=2, reference=True)) as env:
        assert isinstance(env.unwrapped, ProcessVectorEnv)
