"""Customised tasks as Gymnasium ids, and the one function that makes vector environments for this project."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import gymnasium as gym
from gymnasium.vector import AutoresetMode, VectorEnv

from rql_lightning.envs.customization import (
    Customization,
    CustomizationWrapper,
    RewardName,
    StepFunction,
    VectorCustomizationWrapper,
)
from rql_lightning.envs.vector import SameStepAutoreset, StatefulSyncVectorEnv
from rql_lightning.errors import ConfigurationError, EnvironmentContractError, RqlError, require


@dataclass(frozen=True)
class Task:
    """How the environments of an id are made; all three take the id's own keyword arguments.

    Attributes:
        customization: The wish for an environment of these arguments.
        make_reference: One environment as it came, uncustomised; also takes ``render_mode``.
        make_compiled: ``(num_envs, **arguments) →`` a vector environment in ``AutoresetMode.DISABLED`` that does the
            same, faster; ``None`` for a synchronous vector of references.
    """

    customization: Callable[..., Customization | StepFunction]
    make_reference: Callable[..., gym.Env[Any, Any]]
    make_compiled: Callable[..., VectorEnv] | None = None

    def settings(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """The keyword arguments but for ``threads``, which are the compiled form's alone."""
        return {key: value for key, value in kwargs.items() if self.make_compiled is None or key != "threads"}


def register_task(id: str, base: str, customization: Customization | StepFunction) -> None:
    """Register a customised environment, for ``gym.make`` and ``gym.make_vec``.

    Both then take ``reward`` (``basic``, ``add_on`` or ``total``), ``omega`` and whatever the base takes; ``make_vec``
    also takes ``autoreset_mode`` (DISABLED, or SAME_STEP).

    Args:
        id: The new id, e.g. ``my/CartPole-v0``.
        base: The Gymnasium id that it customises, e.g. ``CartPole-v1``.
        customization: The wish; or the add-on reward function alone.
    """
    register(id, _task_on(base, customization))


def register(id: str, task: Task) -> None:
    """Register a task whose environments are made in its own way."""
    gym.register(id, entry_point=partial(_make_single, task), vector_entry_point=partial(_make_vectorized, task=task))


def _task_on(base: str, customization: Customization | StepFunction) -> Task:
    return Task(lambda **_: customization, partial(gym.make, base, disable_env_checker=True))


def _make_single(
    task: Task, reward: RewardName = "total", omega: float = 1.0, render_mode: str | None = None, **kwargs: Any
) -> gym.Env[Any, Any]:
    settings = task.settings(kwargs)
    env = task.make_reference(render_mode=render_mode, **settings)
    return CustomizationWrapper(env, task.customization(**settings), reward=reward, omega=omega)


def _make_vectorized(
    num_envs: int,
    task: Task,
    reward: RewardName = "total",
    omega: float = 1.0,
    reference: bool = False,
    autoreset_mode: AutoresetMode | str = AutoresetMode.DISABLED,
    **kwargs: Any,
) -> VectorEnv:
    mode, settings = _autoreset_mode(autoreset_mode), task.settings(kwargs)
    if task.make_compiled is None or reference:
        env: VectorEnv = StatefulSyncVectorEnv([partial(task.make_reference, **settings) for _ in range(num_envs)])
    else:
        env = task.make_compiled(num_envs, **kwargs)
    env = VectorCustomizationWrapper(env, task.customization(**settings), reward=reward, omega=omega)
    return SameStepAutoreset(env) if mode == AutoresetMode.SAME_STEP else env


def _autoreset_mode(found: AutoresetMode | str) -> AutoresetMode:
    expected = "AutoresetMode.DISABLED (reset what is done yourself) or AutoresetMode.SAME_STEP"
    known = {mode.value: mode for mode in (AutoresetMode.DISABLED, AutoresetMode.SAME_STEP)}
    mode = known.get(getattr(found, "value", found))
    require(mode is not None, "autoreset_mode", found, expected)
    return mode


def no_wish(observation: Any, action: Any, next_observation: Any, info: dict[str, Any]) -> float:
    """The add-on reward of an environment that nobody customised: 0."""
    return 0.0


def make_vector_env(
    env: str,
    num_envs: int,
    reward: RewardName,
    omega: float = 1.0,
    add_on_reward: str | None = None,
    env_kwargs: dict[str, Any] | None = None,
    reference: bool = False,
) -> VectorEnv:
    """Make what training and evaluation run on, from a task's id or from any Gymnasium id and an import path.

    Args:
        env: Gymnasium id; ``module:id`` imports ``module`` first, which may register it.
        num_envs: Number of environments.
        reward: ``basic``, ``add_on`` or ``total``.
        omega: Weight ω of the basic reward in ``total``.
        add_on_reward: Import path ``module.function`` of the wish for an id that has none of its own.
        env_kwargs: Further arguments of the environment.
        reference: Make the reference environments of a task that also has a compiled form.

    Returns:
        A vector environment in ``AutoresetMode.DISABLED`` with a ``customization`` attribute.

    Raises:
        EnvironmentContractError: if the id is unknown or the environment refuses its arguments.
        ConfigurationError: if the add-on reward cannot be imported, or the task already has one.
    """
    spec = _find_spec(env)
    kwargs = dict(env_kwargs or {})
    try:
        if reference and (not _is_task(spec) or spec.vector_entry_point.keywords["task"].make_compiled is None):
            raise ConfigurationError(
                f"reference: found True, expected False: {env} has no compiled form, it is the reference itself"
            )
        if spec.vector_entry_point is not None and _is_task(spec):
            if add_on_reward is not None:
                raise ConfigurationError(
                    f"add_on_reward: found {add_on_reward!r}, but {env} brings its own add-on reward; expected null, "
                    "or the id of the environment beneath"
                )
            return gym.make_vec(spec, num_envs=num_envs, reward=reward, omega=omega, reference=reference, **kwargs)
        wish = no_wish if add_on_reward is None else import_function(add_on_reward, "add_on_reward")
        return _make_vectorized(num_envs, _task_on(spec.id, wish), reward=reward, omega=omega, **kwargs)
    except RqlError:
        raise
    except (gym.error.Error, TypeError, ValueError) as error:
        raise EnvironmentContractError(f"env {env!r} with env_kwargs {kwargs}: {error}") from error


def _find_spec(env: str) -> gym.envs.registration.EnvSpec:
    module, _, name = env.rpartition(":")
    try:
        if module:
            importlib.import_module(module)
        return gym.spec(name)
    except ImportError as error:
        raise EnvironmentContractError(f"env: found {env!r}, whose module cannot be imported: {error}") from error
    except (gym.error.Error, ValueError) as error:
        raise EnvironmentContractError(f"env: found {env!r}, expected a registered Gymnasium id: {error}") from error


def _is_task(spec: gym.envs.registration.EnvSpec) -> bool:
    """Whether the id's vector environments know the ``reward`` argument, as those of :func:`register_task` do."""
    return isinstance(spec.vector_entry_point, partial) and "task" in spec.vector_entry_point.keywords


def import_function(path: str, name: str) -> Callable[..., Any]:
    """Import ``module.function``.

    Raises:
        ConfigurationError: naming the argument ``name`` if there is no such function.
    """
    module, _, attribute = path.replace(":", ".").rpartition(".")
    try:
        function = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(
            f"{name}: found {path!r}, expected the import path of a function, such as my_module.my_function ({error})"
        ) from error
    if not callable(function):
        raise ConfigurationError(f"{name}: found {path!r}, a {type(function).__name__}, expected a function")
    return function
