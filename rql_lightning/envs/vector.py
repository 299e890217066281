"""Gymnasium's synchronous vector environment, in the form that collection, evaluation and exact resume need."""

from __future__ import annotations

from collections.abc import Callable
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
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker, TimeLimit

# Their whole dynamic state is `state`, the step count of TimeLimit and the random generator.
_STORABLE = {AcrobotEnv, CartPoleEnv, Continuous_MountainCarEnv, MountainCarEnv, PendulumEnv}
_STATELESS_WRAPPERS = {TimeLimit, OrderEnforcing, PassiveEnvChecker}


class StatefulSyncVectorEnv(SyncVectorEnv):
    """``SyncVectorEnv`` in ``AutoresetMode.DISABLED`` whose running episodes can be stored and continued.

    Args:
        env_fns: One maker an environment.
    """

    def __init__(self, env_fns: list[Callable[[], gym.Env[Any, Any]]]) -> None:
        super().__init__(env_fns, autoreset_mode=AutoresetMode.DISABLED)

    def get_state(self) -> dict[str, Any]:
        """Plain arrays and numbers that :meth:`set_state` goes on from, bit for bit.

        To be called between episodes' ends: with every finished environment reset.

        Raises:
            NotImplementedError: for environments other than Gymnasium's classic control tasks, or wrapped ones.
        """
        if not all(_is_storable(env) for env in self.envs):
            raise NotImplementedError(f"the state of {type(self.envs[0].unwrapped).__name__} cannot be stored")
        limits = [_time_limit(env) for env in self.envs]
        return {
            "observation": np.array(self._observations),
            # One array each: their types differ between environments that were just reset and others.
            "state": [np.array(env.unwrapped.state) for env in self.envs],
            "elapsed_steps": [-1 if limit is None else limit._elapsed_steps for limit in limits],
            "random": [env.unwrapped.np_random.bit_generator.state for env in self.envs],
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue the episodes of :meth:`get_state`; observations are then ``state["observation"]``."""
        self.reset()
        self._observations = np.array(state["observation"])
        self._env_obs = list(self._observations)
        for index, env in enumerate(self.envs):
            env.unwrapped.state = np.array(state["state"][index])
            env.unwrapped.np_random.bit_generator.state = state["random"][index]
            limit = _time_limit(env)
            if limit is not None:
                limit._elapsed_steps = state["elapsed_steps"][index]


def _is_storable(env: gym.Env[Any, Any]) -> bool:
    """No subclass, whose state may be more, and no wrapper that may have a state."""
    while isinstance(env, gym.Wrapper):
        if type(env) not in _STATELESS_WRAPPERS:
            return False
        env = env.env
    return type(env) in _STORABLE


def _time_limit(env: gym.Env[Any, Any]) -> TimeLimit | None:
    while isinstance(env, gym.Wrapper):
        if isinstance(env, TimeLimit):
            return env
        env = env.env
    return None
