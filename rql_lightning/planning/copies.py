"""Copies of any Gymnasium environment as models."""

from __future__ import annotations

import copy
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv

from rql_lightning.envs.customization import StepFunction
from rql_lightning.envs.vector import SameStepAutoreset
from rql_lightning.envs.wrappers import VectorCustomizationWrapper
from rql_lightning.errors import EnvironmentContractError
from rql_lightning.planning.dynamics import Dynamics, Transition, customization_of, described, rows_equal
from rql_lightning.planning.reward import AddOnReward
from rql_lightning.planning.simulator import check_wrappers, originals
from rql_lightning.planning.tree import State
from rql_lightning.spaces import as_elements


class CopyDynamics(Dynamics):
    """Deep copies of the live environment as its model: exact for any environment that can be copied.

    A copy has the random state of the original: with ``stochastic = False`` the search therefore sees what the
    environment is going to draw, which the results of a stochastic environment profit from. With ``stochastic = True``
    each step of a copy draws anew, so that the search sees the distribution instead. That concerns NumPy's generators
    that are attributes of the environment, such as ``np_random``; numbers from elsewhere are not drawn anew.

    Args:
        stochastic: Whether the steps of copies draw random numbers of their own.
        fully_observed: Whether equal observations mean equal states. Decisions can then start with the states that the
            one before simulated.
    """

    def __init__(self, stochastic: bool = False, fully_observed: bool = False) -> None:
        self.deterministic, self.fully_observed = not stochastic, fully_observed

    def attach(self, env: gym.Env[Any, Any] | VectorEnv, add_on_reward: StepFunction | None = None) -> None:
        """Adopt the environment's add-on reward and check that it can be copied.

        Raises:
            EnvironmentContractError: If the environment has no add-on reward and none was given, or cannot be copied.
        """
        self._name = described(env)
        self.action_space = env.single_action_space if isinstance(env, VectorEnv) else env.action_space
        if add_on_reward is not None:
            self._reward: AddOnReward | None = AddOnReward(add_on_reward)
        else:  # the copies of a vector environment are those of the environments within, without its wrapper
            task = customization_of(env)
            self._reward = AddOnReward(task.add_on_reward) if isinstance(env, VectorEnv) else None
        if isinstance(env, VectorEnv):
            check_wrappers(env, (VectorCustomizationWrapper, SameStepAutoreset))
        self._copy(originals(env)[0])

    def _copy(self, env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
        # Windows and clocks cannot be copied, and a copy is never rendered.
        parts = vars(env.unwrapped).values()
        shown = {id(part): None for part in parts if type(part).__module__.partition(".")[0] == "pygame"}
        try:
            return copy.deepcopy(env, shown)
        except Exception as error:
            raise EnvironmentContractError(
                f"dynamics: found {self._name}, which cannot be copied ({type(error).__name__}: {error}), expected an "
                "environment that copy.deepcopy copies (one that renders often cannot be: make it without render_mode)"
            ) from error

    def read(self, env: Any, observation: np.ndarray) -> State:
        """Return copies of the environments."""
        return {"env": _objects([self._copy(one) for one in originals(env)]), "observation": observation}

    def reseed(self, state: State, seeds: np.ndarray) -> State:
        """Return the states with the seeds that the next step of each copy draws from."""
        return {**state, "seed": seeds}

    def step(self, state: State, action: np.ndarray) -> Transition:
        """Step a copy of each state's environment."""
        copies = [self._copy(one) for one in state["env"]]
        if "seed" in state:
            for one, seed in zip(copies, state["seed"], strict=True):
                _draw_anew(one.unwrapped, int(seed))
        elements = as_elements(self.action_space, action)
        steps = [self._stepped(one, element) for one, element in zip(copies, elements, strict=True)]
        observation = np.stack([np.asarray(step[0]) for step in steps])
        terminated = np.array([bool(step[2]) for step in steps])
        reward = self._rewards(state["observation"], elements, observation, [step[4] for step in steps])
        return Transition({"env": _objects(copies), "observation": observation}, reward, terminated)

    def _stepped(self, env: gym.Env[Any, Any], action: Any) -> Any:
        try:
            return env.step(action)
        except Exception as error:
            raise EnvironmentContractError(
                f"dynamics: found an error of a copy of {self._name} at action {action} in the search "
                f"({type(error).__name__}: {error}), expected a step"
            ) from error

    def _rewards(
        self, observation: np.ndarray, action: np.ndarray, next_observation: np.ndarray, infos: list[dict[str, Any]]
    ) -> np.ndarray:
        if self._reward is None:
            return np.array([info["add_on_reward"] for info in infos], dtype=np.float64)
        rows = zip(observation, action, next_observation, infos, strict=True)
        return np.array([self._reward.one(*row) for row in rows])

    def same(self, state: State, other: State) -> np.ndarray:
        """Return which states are known to be equal: environments cannot be compared, but their observations can."""
        here, there = state["observation"], other["observation"]
        equal = rows_equal({"observation": here}, {"observation": there})
        return equal if self.fully_observed else np.zeros(len(equal), dtype=bool)


def _draw_anew(env: gym.Env[Any, Any], seed: int) -> None:
    """Replace NumPy's random generators among the attributes of an environment."""
    for index, (name, value) in enumerate(sorted(vars(env).items())):
        if isinstance(value, np.random.Generator):
            setattr(env, name, np.random.default_rng([seed, index]))
        elif isinstance(value, np.random.RandomState):
            setattr(env, name, np.random.RandomState(np.random.MT19937([seed, index])))


def _objects(envs: list[Any]) -> np.ndarray:
    result = np.empty(len(envs), dtype=object)
    for index, env in enumerate(envs):
        result[index] = env
    return result
