"""Compiled simulators as models."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from gymnasium.wrappers import FlattenObservation, OrderEnforcing, PassiveEnvChecker, TimeLimit

from rql_lightning.envs.customization import StepFunction
from rql_lightning.envs.reference import OffscreenRendering
from rql_lightning.envs.registration import make_vector_env
from rql_lightning.envs.simulation import CompiledVectorEnv
from rql_lightning.envs.vector import SameStepAutoreset
from rql_lightning.envs.wrappers import CustomizationWrapper, VectorCustomizationWrapper
from rql_lightning.errors import EnvironmentContractError
from rql_lightning.planning.dynamics import Dynamics, Transition, described
from rql_lightning.planning.reward import AddOnReward
from rql_lightning.planning.tree import State

KEYS = ("vehicles", "times", "steps", "observation")
"""What a state consists of: all of ``get_state`` but the random generators, which a step does not use."""

SCALAR_WRAPPERS = (
    CustomizationWrapper,
    FlattenObservation,
    OffscreenRendering,
    OrderEnforcing,
    PassiveEnvChecker,
    TimeLimit,
)
"""Wrappers of the ids of tasks, which the simulator knows of."""


class SimulatorDynamics(Dynamics):
    """The compiled simulator of a task, such as Highway or Parking, as its own exact model.

    Reference environments of the task, such as highway-env itself, can be planned for as well.

    Attributes:
        simulator: Compiled environment whose settings are those of the model.
        reward: Add-on reward of the search.
    """

    simulator: CompiledVectorEnv
    reward: AddOnReward

    def attach(self, env: gym.Env[Any, Any] | VectorEnv, add_on_reward: StepFunction | None = None) -> None:
        """Adopt the environment's simulator and add-on reward.

        Raises:
            EnvironmentContractError: If the environment has no compiled simulator.
        """
        form = compiled_form(env)
        if not isinstance(form.unwrapped, CompiledVectorEnv):
            raise EnvironmentContractError(
                f"dynamics: found SimulatorDynamics for {described(env)}, expected an environment with a compiled "
                "simulator, such as rql_lightning/Highway-v0; CopyDynamics plans on copies of any environment"
            )
        _check_all_wrappers(env)
        self.simulator, task = form.unwrapped, form.customization
        if add_on_reward is None:
            self.reward = AddOnReward(task.add_on_reward, task.vectorized, task.read_only)
        else:
            self.reward = AddOnReward(add_on_reward)

    def read(self, env: Any, observation: np.ndarray) -> State:
        """Return the states of compiled or reference environments."""
        source = env.unwrapped
        if not isinstance(source, CompiledVectorEnv):
            references = getattr(source, "envs", None) or [env]
            base = self.simulator
            source = type(base)(len(references), base.config, None, render_mode=None)
            for index, reference in enumerate(references):
                source.load_reference(index, reference)
        state = source.get_state()
        return {key: state[key] for key in KEYS}

    def step(self, state: State, action: np.ndarray) -> Transition:
        """Simulate one policy step of each state."""
        following, terminated, info = self.simulator.simulate(state, action)
        reward = self.reward(state["observation"], action, following["observation"], info)
        return Transition(following, reward, terminated)


def check_wrappers(env: Any, known: tuple[type, ...]) -> None:
    """Refuse wrappers that a model would not know of, such as those that transform observations or actions.

    Args:
        env: Environment, scalar or vector.
        known: Wrappers that do not change what the model does.

    Raises:
        EnvironmentContractError: naming the first other wrapper.
    """
    while isinstance(env, gym.Wrapper | VectorWrapper):
        wrapper: Any = env
        if not isinstance(env, known):
            raise EnvironmentContractError(
                f"env: found the wrapper {type(env).__name__}, which the model does not know of, expected an "
                "environment without it; CopyDynamics plans on copies of one environment with all its wrappers"
            )
        env = wrapper.env


def has_simulator(env: gym.Env[Any, Any] | VectorEnv) -> bool:
    """Return whether an environment, or its id, has a compiled simulator that knows of its wrappers."""
    try:
        _check_all_wrappers(env)
        return isinstance(compiled_form(env).unwrapped, CompiledVectorEnv)
    except EnvironmentContractError:
        return False


def _check_all_wrappers(env: gym.Env[Any, Any] | VectorEnv) -> None:
    if not isinstance(env, VectorEnv):
        check_wrappers(env, SCALAR_WRAPPERS)
        return
    check_wrappers(env, (VectorCustomizationWrapper, SameStepAutoreset))
    for one in getattr(env.unwrapped, "envs", []):
        check_wrappers(one, SCALAR_WRAPPERS)


def compiled_form(env: gym.Env[Any, Any] | VectorEnv) -> VectorEnv:
    """Return a compiled environment, or make a vector environment of the id of another one.

    Raises:
        EnvironmentContractError: If an environment that is not compiled was not made from an id, or is a vector
            environment that does not hold its environments in this process or resets them in the next step.
    """
    if isinstance(env, VectorEnv):
        if isinstance(env.unwrapped, CompiledVectorEnv):
            return env
        env = originals(env)[0]
    if env.spec is None:
        raise EnvironmentContractError(f"dynamics: found {described(env)} without a spec, expected one of gym.make")
    ignored = ("reward", "omega", "render_mode")
    kwargs = {key: value for key, value in env.spec.kwargs.items() if key not in ignored}
    return make_vector_env(env.spec.id, 1, "basic", env_kwargs=kwargs)


def originals(env: Any) -> list[gym.Env[Any, Any]]:
    """Return the environments, each without a batch dimension, that an environment consists of.

    Raises:
        EnvironmentContractError: If a vector environment does not hold them in this process, or resets them in the next
            step.
    """
    if not isinstance(env, VectorEnv):
        return [env]
    mode = env.metadata.get("autoreset_mode")
    if mode == AutoresetMode.NEXT_STEP:
        raise EnvironmentContractError(
            f"env: found {described(env)} in {mode}, whose ended episodes have no state to plan from, "
            "expected DISABLED or SAME_STEP"
        )
    envs = getattr(env.unwrapped, "envs", None)
    if isinstance(env.unwrapped, CompiledVectorEnv) or envs is None:
        raise EnvironmentContractError(
            f"dynamics: found {type(env.unwrapped).__name__}, expected one environment or a SyncVectorEnv of them to "
            "copy; SimulatorDynamics plans with compiled simulators"
        )
    return list(envs)
