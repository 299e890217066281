"""Environments in processes of their own, for those that are slow in Python."""

from __future__ import annotations

import os
import signal
import sys
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing.connection import wait
from multiprocessing.util import Finalize
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AsyncVectorEnv, AutoresetMode
from gymnasium.vector.async_vector_env import AsyncState

from rql_lightning.envs.transition import copied
from rql_lightning.envs.vector import with_plain_reward
from rql_lightning.errors import EnvironmentContractError, described

PATIENCE = 5.0
"""Seconds that processes have to close their environments before they are killed, and to report an error."""

START_METHOD = "fork" if sys.platform == "linux" else "spawn"
"""How processes start. A fork knows every registered id and needs no guard of ``__main__`` in the user's script; the
default of :mod:`multiprocessing` depends on which libraries have been imported before."""


class ProcessVectorEnv(AsyncVectorEnv):
    """Gymnasium's ``AsyncVectorEnv`` in ``AutoresetMode.DISABLED``: one process per environment.

    Episodes are those of the same environments in one process. The state of running episodes cannot be stored. What has
    not been closed when the program ends is closed then.

    Args:
        env_fns: One maker per environment.
        processes: Number of environments that step at a time.
        name: What messages call the environments.

    Raises:
        EnvironmentContractError: At the step or reset where an environment raises an error or its process ends; names
            the environment.
    """

    returns_new_arrays = True

    def __init__(self, env_fns: list[Callable[[], gym.Env[Any, Any]]], processes: int, name: str) -> None:
        self.name = name
        makers = [partial(_make_in_process, os.getpid(), make) for make in env_fns]
        most = processes if processes < len(makers) else None
        try:
            settings: dict[str, Any] = {"copy": False, "context": START_METHOD, "max_concurrency": most}
            super().__init__(makers, autoreset_mode=AutoresetMode.DISABLED, **settings)
        except BaseException:
            if hasattr(self, "_state"):  # processes have been started
                self.close(terminate=True)
            raise
        # At exit multiprocessing waits for processes that it ends by SIGTERM, which these ignore: close them before.
        Finalize(self, _close, (weakref.ref(self),), exitpriority=1)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start episodes: all of them, or those of ``options["reset_mask"]``."""
        with self._watched():
            self.reset_async(seed=seed, options=options)
            self._wait()
            observation, info = self.reset_wait()
        return copied(observation), info

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step all environments."""
        with self._watched():
            self.step_async(actions)
            self._wait()
            observation, *rest = self.step_wait()
        return (copied(observation), *rest)

    def _wait(self) -> None:
        """Wait for the answers of all processes: to receive one after another would wait for ever once one has ended.

        Raises:
            EOFError: If a process has ended.
        """
        sentinels = [process.sentinel for process in self.processes]
        waiting = {pipe for pipe in self.parent_pipes if pipe is not None}
        while waiting:
            ready = wait([*waiting, *sentinels])
            if any(sentinel in ready for sentinel in sentinels):
                raise EOFError
            waiting.difference_update(ready)

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Name the environment whose process has ended."""
        try:
            yield
        except (EOFError, OSError) as error:  # of the pipes; errors of environments have another class by now
            self._state = AsyncState.DEFAULT
            ended = wait([process.sentinel for process in self.processes], PATIENCE)
            if not ended:
                raise
            alive = [process.sentinel not in ended for process in self.processes]
            for index, process in enumerate(self.processes):
                if not alive[index]:
                    process.join()
                    if process.exitcode != 0:
                        raise self._ended(index) from error
            self._raise_if_errors(alive)  # a process ends by itself after it has reported an error

    def _ended(self, index: int) -> EnvironmentContractError:
        code = self.processes[index].exitcode
        above = " (of an error of Python, the traceback is printed above)" if code == 1 else ""
        return EnvironmentContractError(
            f"environment {index} of {self.name}: found that its process ended with exit code {code}{above}, "
            "expected it to run until it is closed"
        )

    def _check_spaces(self) -> None:
        with self._watched():
            super()._check_spaces()

    def _raise_if_errors(self, successes: Iterable[bool]) -> None:
        """Raise the error of the first environment that failed, with its traceback as the cause."""
        failed = [index for index, success in enumerate(successes) if not success]
        if not failed:
            return
        reports = self._reports(len(failed))
        for index in failed:
            self.parent_pipes[index].close()
            self.parent_pipes[index] = None
        self._state = AsyncState.DEFAULT
        unknown = "found an error that cannot be sent from its process; see what is printed above", "unknown"
        message, trace = reports.get(failed[0], unknown)
        cause = RuntimeError(f"in the process of the environment:\n{trace}")
        raise EnvironmentContractError(f"environment {failed[0]} of {self.name}: {message}") from cause

    def _reports(self, number: int) -> dict[int, tuple[str, str]]:
        """Return message and traceback of a number of errors by environment, without those that cannot be sent."""
        reports = {}
        for _ in range(number):
            with suppress(Exception):  # nothing has come, or what came cannot be rebuilt in this process
                index, _, error, trace = self.error_queue.get(timeout=PATIENCE)
                reports[index] = (_described(error), trace)
        return reports

    def close_extras(self, timeout: float | None = None, terminate: bool = False) -> None:
        """Close the environments, also those in the middle of a step, and end the processes.

        Args:
            timeout: Seconds before processes are killed; ``None`` for some seconds.
            terminate: Whether they are killed at once.
        """
        for pipe in self.parent_pipes:
            if pipe is not None:
                with suppress(OSError):  # its process has ended
                    pipe.send(("close", None))
        deadline = time.monotonic() + (0 if terminate else PATIENCE if timeout is None else timeout)
        for process in self.processes:
            process.join(max(0.0, deadline - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()
        for pipe in self.parent_pipes:
            if pipe is not None:
                pipe.close()


class _Reported(gym.Wrapper[Any, Any, Any, Any]):
    """Raises errors of a class that holds a message alone: those of an environment may have no pickled form."""

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        try:
            return self.env.reset(**kwargs)
        except Exception as error:
            raise EnvironmentContractError(_described(error)) from error

    def step(self, action: Any) -> Any:
        try:
            return self.env.step(action)
        except Exception as error:
            raise EnvironmentContractError(_described(error)) from error


def _described(error: Exception) -> str:
    """What an error says, with its class unless it is already an error of the contract."""
    if isinstance(error, EnvironmentContractError):
        return str(error)
    return f"found {described(error)}"


def _make_in_process(parent: int, make: Callable[[], gym.Env[Any, Any]]) -> gym.Env[Any, Any]:
    """Make an environment, in a process that leaves it to its parent to be stopped by a signal."""
    if os.getpid() != parent:  # AsyncVectorEnv makes one in the parent as well, to read its spaces
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        torch.set_num_threads(1)  # as in workers of PyTorch's DataLoader: a fork must not use its parent's threads
    return _Reported(with_plain_reward(make))


def _close(reference: weakref.ref[ProcessVectorEnv]) -> None:
    """Close environments that are still there."""
    env = reference()
    if env is not None:
        env.close()
