"""Registration of customised tasks as Gymnasium ids, and creation of vector environments."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import gymnasium as gym
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.wrappers import TimeLimit

from rql_lightning.envs.customization import Customization, RewardName, StepFunction
from rql_lightning.envs.processes import ProcessVectorEnv
from rql_lightning.envs.vector import SameStepAutoreset, StatefulSyncVectorEnv
from rql_lightning.envs.wrappers import CustomizationWrapper, VectorCustomizationWrapper
from rql_lightning.errors import ConfigurationError, EnvironmentContractError, RqlError, is_integer, require

UNNAMED_IDS = "customized-"
"""First letters of ids that stand for an add-on reward without an import path, and mean nothing in another process."""


@dataclass(frozen=True)
class Task:
    """How the environments of an id are made; all three functions take the id's own keyword arguments.

    Attributes:
        customization: Returns the customization of an environment with these arguments.
        make_reference: One environment as it came, uncustomised; takes ``render_mode`` where it can render.
        make_compiled: ``(num_envs, **arguments) →`` a vector environment in ``AutoresetMode.DISABLED`` that does the
            same, faster, and also takes ``render_mode`` and ``max_episode_steps``; ``None`` for a synchronous vector of
            references.
        max_episode_steps: The id's time limit, beside those that the environments have of their own; or ``None``.
        base: Gymnasium id of the environment that is customised; ``None`` if it has none.
    """

    customization: Callable[..., Customization | StepFunction]
    make_reference: Callable[..., gym.Env[Any, Any]]
    make_compiled: Callable[..., VectorEnv] | None = None
    max_episode_steps: int | None = None
    base: str | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Task:  # Gymnasium copies specs, entry points included
        return self

    def make(
        self, reward: RewardName = "total", omega: float = 1.0, render_mode: str | None = None, **kwargs: Any
    ) -> gym.Env[Any, Any]:
        """One customised reference environment: the entry point for ``gym.make``, which adds the time limit."""
        settings = self._settings(kwargs)
        env = self.make_reference(**settings, **_rendering(render_mode))
        return _RegisteredEnv(env, self.customization(**settings), reward, omega, self.max_episode_steps)

    def make_vec(
        self,
        num_envs: int = 1,
        reward: RewardName = "total",
        omega: float = 1.0,
        reference: bool = False,
        autoreset_mode: AutoresetMode | str = AutoresetMode.DISABLED,
        render_mode: str | None = None,
        max_episode_steps: int | None = None,
        processes: int = 0,
        **kwargs: Any,
    ) -> VectorEnv:
        """N customised environments: the entry point for ``gym.make_vec``.

        Args:
            num_envs: N.
            reward: ``basic``, ``add_on`` or ``total``.
            omega: Weight ω of the basic reward in ``total``.
            reference: Make references where there is a compiled form.
            autoreset_mode: DISABLED or SAME_STEP.
            render_mode: What ``render`` returns.
            max_episode_steps: Time limit beside those that the environments have of their own; ``None`` or −1 for none.
            processes: How many environments step at a time, each in a process of its own; 0 for one after another.
            kwargs: The id's own.
        """
        mode, settings = _autoreset_mode(autoreset_mode), self._settings(kwargs)
        limit = None if max_episode_steps == -1 else max_episode_steps
        accepted = limit is None or (isinstance(limit, int) and limit >= 1)
        require(accepted, "max_episode_steps", limit, "an integer >= 1, or -1 for no limit")
        require(is_integer(processes, 0), "processes", processes, "an integer >= 0")
        if self.make_compiled is None or reference:
            maker = partial(self._make_limited, limit, **settings, **_rendering(render_mode))
            makers: list[Callable[[], gym.Env[Any, Any]]] = [maker for _ in range(num_envs)]
            name = self.base or "the reference environment"
            env: VectorEnv
            env = ProcessVectorEnv(makers, processes, name) if processes else StatefulSyncVectorEnv(makers)
        else:
            expected = "0: compiled environments step all together, in one process"
            require(processes == 0, "processes", processes, expected)
            limited = {} if limit is None else {"max_episode_steps": limit}
            env = self.make_compiled(num_envs, **kwargs, **limited, **_rendering(render_mode))
        env = VectorCustomizationWrapper(env, self.customization(**settings), reward=reward, omega=omega)
        return SameStepAutoreset(env) if mode == AutoresetMode.SAME_STEP else env

    def _make_limited(self, max_episode_steps: int | None, **settings: Any) -> gym.Env[Any, Any]:
        env = self.make_reference(**settings)
        return env if max_episode_steps is None else TimeLimit(env, max_episode_steps)

    def _settings(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """The keyword arguments without ``threads``, which only the compiled form takes."""
        return {key: value for key, value in kwargs.items() if self.make_compiled is None or key != "threads"}


class _RegisteredEnv(CustomizationWrapper):
    """What the entry point of an id returns. Its spec is the id's alone, which makes all that is inside again."""

    @property
    def spec(self) -> gym.envs.registration.EnvSpec | None:
        return self.unwrapped.spec


def _rendering(render_mode: str | None) -> dict[str, str]:
    """``render_mode`` as keyword arguments: not every environment takes it."""
    return {} if render_mode is None else {"render_mode": render_mode}


def register_task(id: str, base: str, customization: Customization | StepFunction) -> None:
    """Register a customised environment, for ``gym.make`` and ``gym.make_vec``.

    Both then accept ``reward`` (``basic``, ``add_on`` or ``total``), ``omega`` and the arguments of the base
    environment; ``make_vec`` also accepts ``autoreset_mode`` (DISABLED or SAME_STEP).

    Args:
        id: New id, such as ``my/CartPole-v0``.
        base: Gymnasium id to customise, such as ``CartPole-v1``.
        customization: Customization, or its add-on reward function only.

    Raises:
        EnvironmentContractError: if nothing is registered as ``base``.
    """
    register(id, task_on(base, customization))


def register(id: str, task: Task, module: str | None = None, suffix: str = "") -> None:
    """Register a task whose environments are made in its own way.

    Args:
        id: The new id.
        task: How its environments are made.
        module: A module in which ``make`` and ``make_vec`` are the task's, by which a stored spec finds them.
        suffix: Suffix of these two names in a module of several tasks, such as ``_hopper``.
    """
    names = None if module is None else (f"{module}:make{suffix}", f"{module}:make_vec{suffix}")
    make, make_vec = names or (task.make, task.make_vec)
    gym.register(id, entry_point=make, vector_entry_point=make_vec, max_episode_steps=task.max_episode_steps)


def task_on(base: str, customization: Customization | StepFunction) -> Task:
    """Return the task that customises a registered environment, whose time limit becomes the task's.

    Raises:
        EnvironmentContractError: if nothing is registered as ``base``.
    """
    spec = _find_spec(base, "base")
    # The limit is left to whoever makes the task, so that another can take its place.
    make = partial(_make_base, spec, max_episode_steps=-1, disable_env_checker=True)
    return Task(lambda **_: customization, make, max_episode_steps=spec.max_episode_steps, base=base)


def _make_base(spec: gym.envs.registration.EnvSpec, **kwargs: Any) -> gym.Env[Any, Any]:
    """Make what is registered under the spec's id, or by the spec: a new process may not know the id."""
    return gym.make(gym.registry.get(spec.id, spec), **kwargs)


def _autoreset_mode(found: AutoresetMode | str) -> AutoresetMode:
    expected = "AutoresetMode.DISABLED (finished environments are reset by the caller) or AutoresetMode.SAME_STEP"
    known = {mode.value: mode for mode in (AutoresetMode.DISABLED, AutoresetMode.SAME_STEP)}
    mode = known.get(getattr(found, "value", found))
    require(mode is not None, "autoreset_mode", found, expected)
    return mode


def no_wish(observation: Any, action: Any, next_observation: Any, info: dict[str, Any]) -> float:
    """Return 0, the add-on reward of an environment without customization."""
    return 0.0


def make_vector_env(
    env: str,
    num_envs: int,
    reward: RewardName,
    omega: float = 1.0,
    add_on_reward: str | None = None,
    env_kwargs: dict[str, Any] | None = None,
    reference: bool = False,
    processes: int = 0,
) -> VectorEnv:
    """Create the vector environment for training and evaluation, from any Gymnasium id and an add-on reward.

    Args:
        env: Gymnasium id; ``module:id`` imports ``module`` first, which may register it.
        num_envs: Number of environments.
        reward: ``basic``, ``add_on`` or ``total``.
        omega: Weight ω of the basic reward in ``total``.
        add_on_reward: Import path ``module.function`` of the add-on reward, for an id without one of its own.
        env_kwargs: Further keyword arguments of the environment.
        reference: Whether to create the reference environments of a task that has a compiled form.
        processes: How many environments step at a time, each in a process of its own; 0 for one after another.

    Returns:
        A vector environment in ``AutoresetMode.DISABLED`` with a ``customization`` attribute.

    Raises:
        EnvironmentContractError: if the id is unknown or the environment refuses its arguments.
        ConfigurationError: if the add-on reward cannot be imported, or the task already has one; or if compiled
            environments are to run in processes.
    """
    spec = _find_spec(env)
    kwargs = dict(env_kwargs or {})
    try:
        task = _task_of(spec)
        if reference and (task is None or task.make_compiled is None):
            raise ConfigurationError(
                f"reference: found True, expected False: {env} has no compiled form to compare with"
            )
        if task is not None:
            if add_on_reward is not None:
                raise ConfigurationError(
                    f"add_on_reward: found {add_on_reward!r}, but {env} has its own add-on reward; expected null, "
                    "or the id of the environment without customization as env"
                )
            settings = {"reward": reward, "omega": omega, "reference": reference, "processes": processes}
            return gym.make_vec(spec, num_envs=num_envs, **settings, **kwargs)
        wish = no_wish if add_on_reward is None else import_function(add_on_reward, "add_on_reward")
        task = task_on(spec.id, wish)
        kwargs.setdefault("max_episode_steps", task.max_episode_steps)
        return task.make_vec(num_envs, reward, omega, processes=processes, **kwargs)
    except RqlError as error:
        if str(error).startswith("processes: "):
            raise type(error)(f"data.{error}") from error
        if str(error).partition(":")[0] in kwargs:
            raise type(error)(f"env_kwargs.{error}") from error
        raise
    except (gym.error.Error, TypeError, ValueError) as error:
        raise EnvironmentContractError(f"env {env!r} with env_kwargs {kwargs}: {error}") from error


def _find_spec(env: str, argument: str = "env") -> gym.envs.registration.EnvSpec:
    module, _, name = env.rpartition(":")
    try:
        if module:
            importlib.import_module(module)
        return gym.spec(name)
    except ImportError as error:
        raise EnvironmentContractError(
            f"{argument}: found {env!r}, whose module cannot be imported: {error}"
        ) from error
    except (gym.error.Error, ValueError) as error:
        expected = f"a registered Gymnasium id: {error}"
        if name.startswith(UNNAMED_IDS):
            expected = "the id of the environment, and the import path of its add-on reward as data.add_on_reward: "
            expected += "that of the config was a function or an object without one"
        raise EnvironmentContractError(f"{argument}: found {env!r}, expected {expected}") from error


def same_environment(env: str, other: str) -> bool:
    """Return whether two Gymnasium ids are the same environment, apart from their add-on rewards."""
    return bool(_names(env) & _names(other))


def has_add_on_reward(env: str) -> bool:
    """Return whether a Gymnasium id has an add-on reward of its own; ids that are not registered have none."""
    return _registered_task(env) is not None


def _names(env: str) -> set[str]:
    """Return an id and that of the environment which it customises, if any."""
    name, task = env.rpartition(":")[2], _registered_task(env)
    return {name} if task is None or task.base is None else {name, task.base}


def _registered_task(env: str) -> Task | None:
    """Return the task of an id, without importing the module before its colon."""
    spec = gym.registry.get(env.rpartition(":")[2])
    return None if spec is None else _task_of(spec)


def _task_of(spec: gym.envs.registration.EnvSpec) -> Task | None:
    """The task that an id makes, if it was registered as one."""
    make_vec = spec.vector_entry_point
    if isinstance(make_vec, str):
        make_vec = gym.envs.registration.load_env_creator(make_vec)
    task = getattr(make_vec, "__self__", None)
    return task if isinstance(task, Task) else None


def import_function(path: str, name: str) -> Callable[..., Any]:
    """Import ``module.function``.

    Raises:
        ConfigurationError: If there is no such function; names the argument ``name``.
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
