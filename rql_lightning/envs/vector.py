"""Vector environments whose state can be stored, and same-step autoreset."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.classic_control import (
    AcrobotEnv,
    CartPoleEnv,
    Continuous_MountainCarEnv,
    MountainCarEnv,
    PendulumEnv,
)
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv, VectorWrapper
from gymnasium.vector.utils import iterate
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker, TimeLimit

from rql_lightning.envs.transition import copied, unshared
from rql_lightning.errors import EnvironmentContractError, RqlError, described

# Their whole dynamic state is `state`, the step count of TimeLimit and the random generator.
_STORABLE = {AcrobotEnv, CartPoleEnv, Continuous_MountainCarEnv, MountainCarEnv, PendulumEnv}


class StatefulSyncVectorEnv(SyncVectorEnv):
    """``SyncVectorEnv`` in ``AutoresetMode.DISABLED`` whose running episodes can be stored and continued.

    Args:
        env_fns: One maker per environment.

    Raises:
        EnvironmentContractError: at the step where an environment raises an error, or its reward is not one number.
    """

    returns_new_arrays = True

    def __init__(self, env_fns: list[Callable[[], gym.Env[Any, Any]]]) -> None:
        makers = [partial(with_plain_reward, make, f"environment {index}") for index, make in enumerate(env_fns)]
        # SyncVectorEnv would copy observations with deepcopy, which takes several times as long.
        super().__init__(makers, copy=False, autoreset_mode=AutoresetMode.DISABLED)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start episodes: all of them, or those of ``options["reset_mask"]``."""
        return copied(super().reset(seed=seed, options=options))

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step all environments."""
        observation, reward, terminated, truncated, info = super().step(actions)
        return copied(observation), reward, terminated, truncated, copied(info)

    def get_state(self, indices: None = None) -> dict[str, Any]:
        """Return the state as plain arrays and numbers, from which :meth:`set_state` continues bit for bit.

        Every finished environment must have been reset before.

        Args:
            indices: Must be ``None``; only compiled simulators support states of single environments.

        Raises:
            NotImplementedError: If an environment is wrapped or is not one of Gymnasium's classic control tasks.
        """
        _all_at_once(indices)
        if not all(_is_storable(env) for env in self.envs):
            raise NotImplementedError(f"the state of {type(self.envs[0].unwrapped).__name__} cannot be stored")
        limits = [_time_limit(env) for env in self.envs]
        return {
            "observation": np.array(self._observations),
            # One array per environment: their dtypes differ between environments that were just reset and others.
            "state": [np.array(env.unwrapped.state) for env in self.envs],
            "elapsed_steps": [-1 if limit is None else limit._elapsed_steps for limit in limits],
            "random": [env.unwrapped.np_random.bit_generator.state for env in self.envs],
        }

    def set_state(self, state: dict[str, Any], indices: None = None) -> None:
        """Continue the episodes of :meth:`get_state`; observations are then ``state["observation"]``."""
        _all_at_once(indices)
        self.reset()
        self._observations = np.array(state["observation"])
        self._env_obs = list(self._observations)
        for index, env in enumerate(self.envs):
            env.unwrapped.state = np.array(state["state"][index])
            env.unwrapped.np_random.bit_generator.state = state["random"][index]
            limit = _time_limit(env)
            if limit is not None:
                limit._elapsed_steps = state["elapsed_steps"][index]


class _PlainReward(gym.Wrapper[Any, Any, Any, Any]):
    """Rewards as numbers, also those that came as arrays of one, which ``SyncVectorEnv`` does not take.

    Errors name the environment, if it has a name.
    """

    def __init__(self, env: gym.Env[Any, Any], name: str | None) -> None:
        super().__init__(env)
        self._name = name

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        try:
            return self.env.reset(seed=seed, options=options)
        except Exception as error:
            self._refuse(error, "reset")
            raise

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        try:
            result = self.env.step(action)
        except Exception as error:
            self._refuse(error, "step")
            raise
        if isinstance(result[1], float):
            return result
        observation, reward, *rest = result
        return observation, self._number(reward), *rest

    def _refuse(self, error: Exception, where: str) -> None:
        """Raise an error that names the environment, unless it has no name or the error says what is wrong."""
        if self._name is None or isinstance(error, RqlError):
            return
        what = f"{self._name}, {where} of {type(self.unwrapped).__name__}"
        raise EnvironmentContractError(f"{what}: found {described(error)}, expected no error") from error

    def _number(self, reward: Any) -> float:
        try:
            (number,) = np.asarray(reward, dtype=np.float64).reshape(-1)
        except (TypeError, ValueError):
            name = type(self.unwrapped).__name__
            raise EnvironmentContractError(f"reward of {name}: found {reward!r}, expected a number") from None
        return float(number)


def with_plain_reward(make: Callable[[], gym.Env[Any, Any]], name: str | None = None) -> gym.Env[Any, Any]:
    """Make an environment whose rewards are numbers, also where they came as arrays of one.

    Args:
        make: Maker.
        name: Name of the environment in its errors; ``None`` leaves them as they are.
    """
    return _PlainReward(make(), name)


def _all_at_once(indices: Any) -> None:
    if indices is not None:
        raise NotImplementedError("states by index: only environments of compiled simulators have them")


def _is_storable(env: gym.Env[Any, Any]) -> bool:
    """Return whether the state can be stored: no subclass and no wrapper, which may have further state."""
    while isinstance(env, gym.Wrapper):
        if type(env) not in (TimeLimit, OrderEnforcing, PassiveEnvChecker, _PlainReward):
            return False
        env = env.env
    return type(env) in _STORABLE


def _time_limit(env: gym.Env[Any, Any]) -> TimeLimit | None:
    while isinstance(env, gym.Wrapper):
        if isinstance(env, TimeLimit):
            return env
        env = env.env
    return None


class SameStepAutoreset(VectorWrapper):
    """Add Gymnasium's ``AutoresetMode.SAME_STEP`` to a vector environment in ``AutoresetMode.DISABLED``.

    A finished environment is reset in the same step. Its observation and infos are then those of the new episode, and
    the last ones of the old episode are in ``info["final_obs"]`` and ``info["final_info"]``, masked by
    ``info["_final_obs"]``.

    Args:
        env: Honours ``reset(options={"reset_mask": …})``. What it returns is copied, unless its class sets
            ``returns_new_arrays = True``.
    """

    returns_new_arrays = True

    def __init__(self, env: VectorEnv) -> None:
        super().__init__(env)
        self.autoreset_mode = AutoresetMode.SAME_STEP

    @property
    def metadata(self) -> dict[str, Any]:
        """Metadata of the wrapped environment with this autoreset mode."""
        return {**self.env.metadata, "autoreset_mode": AutoresetMode.SAME_STEP}

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start all episodes."""
        return unshared(self.env, self.env.reset(seed=seed, options=options))

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step all environments, and reset finished ones."""
        observation, reward, terminated, truncated, info = unshared(self.env, self.env.step(actions))
        done = terminated | truncated
        if not done.any():
            return observation, reward, terminated, truncated, info
        final_observation = np.full(self.num_envs, None, dtype=object)
        for index, row in enumerate(iterate(self.observation_space, observation)):
            if done[index]:
                final_observation[index] = copied(row)
        observation, new_info = self.reset(options={"reset_mask": done})
        final = {"final_obs": final_observation, "final_info": _restricted(info, done)}
        info = {**_merged(_restricted(info, ~done), new_info), **final}
        return observation, reward, terminated, truncated, {**info, "_final_obs": done, "_final_info": done.copy()}


def _restricted(info: dict[str, Any], mask: np.ndarray) -> dict[str, Any]:
    """Restrict infos to the environments of a mask."""
    result: dict[str, Any] = {}
    for key, value in info.items():
        if key.startswith("_"):
            result[key] = value & mask
        else:
            result[key] = _restricted(value, mask) if isinstance(value, dict) else np.array(value)
            result.setdefault(f"_{key}", info.get(f"_{key}", np.ones(len(mask), dtype=bool)) & mask)
    return result


def _merged(running: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Merge the infos of environments whose episode continues with those of environments that were reset."""
    result = dict(running)
    for key, value in new.items():
        if key.startswith("_"):
            continue
        mask = new[f"_{key}"]
        if key not in running:
            result[key], result[f"_{key}"] = value, mask
        elif isinstance(value, dict):
            result[key], result[f"_{key}"] = _merged(running[key], value), running[f"_{key}"] | mask
        else:
            newer = mask.reshape(-1, *[1] * (np.ndim(value) - 1))
            result[key], result[f"_{key}"] = np.where(newer, value, running[key]), running[f"_{key}"] | mask
    return result
