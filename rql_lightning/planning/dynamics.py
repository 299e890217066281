"""Models for planning: what a state and an action lead to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv

from rql_lightning.envs.customization import Customization, StepFunction
from rql_lightning.envs.registration import no_wish
from rql_lightning.errors import EnvironmentContractError
from rql_lightning.planning.tree import State


@dataclass(frozen=True)
class Transition:
    """What n states and actions led to.

    Attributes:
        state: Successors, arrays ``[n, …]``, among them their ``observation``.
        add_on_reward: r_R of the transitions, ``[n]``.
        terminated: Whether the episode terminated, bool ``[n]``; time limits do not terminate it.
    """

    state: State
    add_on_reward: np.ndarray
    terminated: np.ndarray

    @property
    def observation(self) -> np.ndarray:
        """Observations of the successors, ``[n, *observation_shape]``."""
        return self.state["observation"]


class Dynamics:
    """Base class of models, which work on batches of states.

    A state is a mapping of arrays of one row per state: ``observation``, and whatever else the model needs. Models do
    not change the arrays that they are given, and rows do not depend on each other.

    Attributes:
        deterministic: Whether a state and an action always have the same successor.
        fully_observed: Whether equal observations mean equal states.
    """

    deterministic: bool = True
    fully_observed: bool = False

    def attach(self, env: gym.Env[Any, Any] | VectorEnv, add_on_reward: StepFunction | None = None) -> None:
        """Adopt an environment's task; called before anything else, and again for another environment.

        Args:
            env: Environment to plan for, scalar or vector. It is only looked at.
            add_on_reward: Add-on reward, a step function; by default the environment's own.

        Raises:
            EnvironmentContractError: If this model cannot stand for the environment.
        """

    def read(self, env: Any, observation: np.ndarray) -> State:
        """Return the states of a live environment, ``[N, …]``, which share nothing with it.

        Args:
            env: Live environment, scalar (N = 1) or vector.
            observation: Its present observations, ``[N, *observation_shape]``.
        """
        raise NotImplementedError

    def step(self, state: State, action: np.ndarray) -> Transition:
        """Return what states ``[n, …]`` and actions ``[n, *action_shape]`` in the environment's units lead to."""
        raise NotImplementedError

    def reseed(self, state: State, seeds: np.ndarray) -> State:
        """Return the states with other random numbers; only stochastic models are asked.

        Args:
            state: States ``[n, …]``.
            seeds: What the next step of each draws from, uint64 ``[n]``.
        """
        raise NotImplementedError

    def same(self, state: State, other: State) -> np.ndarray:
        """Return whether n states are equal to n others, bool ``[n]``; by default whether all arrays are."""
        return rows_equal(state, other)


def rows_equal(state: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return which rows of two mappings of arrays ``[n, …]`` are equal, bool ``[n]``."""
    equal = [(state[key] == other[key]).all(axis=tuple(range(1, np.ndim(other[key])))) for key in other]
    return np.logical_and.reduce(equal)


def described(env: Any) -> str:
    """Return what messages call an environment."""
    return type(env.unwrapped).__name__ if env.spec is None else f"{env.spec.id}"


def customization_of(env: gym.Env[Any, Any] | VectorEnv) -> Customization:
    """Return the task of an environment, scalar or vector.

    Raises:
        EnvironmentContractError: If it has no add-on reward.
    """
    try:
        task = env.get_wrapper_attr("customization") if isinstance(env, gym.Env) else env.customization
    except AttributeError:
        task = None
    if task is None or task.add_on_reward is no_wish:
        raise EnvironmentContractError(
            f"add_on_reward: found none for {described(env)}, expected a function (observation, action, "
            "next_observation, info) -> float"
        )
    return task
