"""One more wish on any Gymnasium environment: the add-on reward as a wrapper, scalar and vector.

Both wrappers report ``basic_reward``, ``add_on_reward``, ``is_success`` and the task's metric in ``info`` at every
step, and hand out ``basic``, ``add_on`` or ``total`` (= ω · basic + add-on) as the environment's reward.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, get_args

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from gymnasium.vector.utils import iterate

from rql_lightning.errors import EnvironmentContractError, require

RewardName = Literal["basic", "add_on", "total"]
StepFunction = Callable[[Any, Any, Any, dict[str, Any]], Any]
"""``(observation, action, next_observation, info) → float``; in its vector form all are batches, the result ``[N]``."""
Transition = tuple[Any, Any, Any, dict[str, Any]]
"""The four arguments of a step function."""

_REDUCTIONS: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {
    "mean": lambda old, new, step: old + (new - old) / step,
    "sum": lambda old, new, step: np.where(step == 1, new, old + new),
    "min": lambda old, new, step: np.where(step == 1, new, np.minimum(old, new)),
    "max": lambda old, new, step: np.where(step == 1, new, np.maximum(old, new)),
}


@dataclass(frozen=True)
class Metric:
    """A number that tells whether the wish came true: ``value`` of every step, reduced over the episode so far.

    Attributes:
        name: Key in ``info`` and in ``metrics.json``.
        value: Step function.
        reduction: ``mean``, ``sum``, ``min`` or ``max`` over the steps of the episode.
    """

    name: str
    value: StepFunction
    reduction: Literal["mean", "sum", "min", "max"] = "mean"


@dataclass(frozen=True)
class Customization:
    """All that a task adds to an environment.

    Attributes:
        add_on_reward: r_R, a step function.
        basic_reward: r as a step function, or ``None`` for the environment's own reward.
        metric: The task's metric, or ``None``.
        is_success: Step function of bools, whose ``info`` also holds ``terminated``, ``truncated`` and ``step`` (from
            1); ``None`` takes ``info["is_success"]`` where the environment reports it.
        vectorized: Whether the functions also take batches. Those that do not are called once a row by the vector
            wrapper: correct, but slower.
        pictured: ``(label, step function)`` of the quantity whose distribution evaluation draws (computed there, not
            at every step), or ``None``.
    """

    add_on_reward: StepFunction
    basic_reward: StepFunction | None = None
    metric: Metric | None = None
    is_success: StepFunction | None = None
    vectorized: bool = False
    pictured: tuple[str, StepFunction] | None = None

    def functions(self) -> dict[str, StepFunction]:
        """Every step function that there is, by the name that messages give it."""
        named = {key: getattr(self, key) for key in ("add_on_reward", "basic_reward", "is_success")}
        named |= {} if self.metric is None else {self.metric.name: self.metric.value}
        named |= {} if self.pictured is None else {self.pictured[0]: self.pictured[1]}
        return {name: function for name, function in named.items() if function is not None}


class _Bookkeeping:
    """What both wrappers do after a step, on batches of N (the scalar wrapper is a batch of one)."""

    def __init__(
        self, customization: Customization, reward: str, omega: float, env: gym.Env[Any, Any] | VectorEnv
    ) -> None:
        require(reward in get_args(RewardName), "reward", reward, "one of 'basic', 'add_on', 'total'")
        require(bool(np.isfinite(omega)), "omega", omega, "a finite number")
        for name, function in customization.functions().items():
            _check_signature(name, function)
        self.customization, self.reward, self.omega = customization, reward, omega
        self.env, self.batched = env, isinstance(env, VectorEnv)
        self.num_envs = env.num_envs if isinstance(env, VectorEnv) else 1
        self.steps = np.zeros(self.num_envs, dtype=np.int64)
        self.metric = np.zeros(self.num_envs)

    def reset(self, mask: np.ndarray | None = None) -> None:
        self.steps[slice(None) if mask is None else mask] = 0
        self.metric[slice(None) if mask is None else mask] = 0.0

    def evaluate(self, name: str, function: StepFunction, transition: Transition) -> np.ndarray:
        """Call a step function in the form that it has and check what comes back; ``[N]``."""
        described = _described(name, function)
        if self.batched and not self.customization.vectorized:
            rows = (function(*row) for row in self._rows(transition))
            return np.array([self.check(described, value, (), index) for index, value in enumerate(rows)])
        return self.check(described, function(*transition), (self.num_envs,) if self.batched else (), 0).reshape(-1)

    def _rows(self, transition: Transition) -> Iterator[Transition]:
        """Each environment's transition out of a vector environment's, whatever its spaces."""
        observation, action, next_observation, info = transition
        spaces = (self.env.observation_space, self.env.action_space, self.env.observation_space)
        columns = [
            iterate(space, batch) for space, batch in zip(spaces, (observation, action, next_observation), strict=True)
        ]
        for index, row in enumerate(zip(*columns, strict=True)):
            yield (*row, _row_of_info(info, index))

    def check(self, described: str, values: Any, shape: tuple[int, ...], index: int) -> np.ndarray:
        """Numbers, of this shape, finite; ``index`` is the environment of a value that is not a batch."""
        try:
            result = np.asarray(values, dtype=np.float64)
        except (TypeError, ValueError):
            self._refuse(described, repr(values), "a number", index)
        if result.shape != shape:
            self._refuse(described, f"a result of shape {result.shape}", f"the shape {shape}", index)
        if not np.isfinite(result).all():
            index = int(np.argmin(np.isfinite(result))) if shape else index
            self._refuse(described, f"{result.reshape(-1)[index if shape else 0]}", "a finite number", index)
        return result

    def check_observation(self, observation: Any) -> None:
        """Finite numbers, if they are floats: one NaN would be every weight's after the next update."""
        if isinstance(observation, np.ndarray) and observation.dtype.kind == "f" and not np.isfinite(observation).all():
            rows = observation.reshape(self.num_envs, -1)
            index = int(np.argmin(np.isfinite(rows).all(axis=1)))
            found = rows[index][~np.isfinite(rows[index])][0]
            self._refuse("observation", f"{found}", "finite numbers", index)

    def _refuse(self, described: str, found: str, expected: str, index: int) -> NoReturn:
        where = f"environment {index} at step {int(self.steps[index])} of its episode"
        raise EnvironmentContractError(f"{described}: found {found} in {where}, expected {expected}")

    def step(
        self, transition: Transition, own_reward: Any, terminated: Any, truncated: Any
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Account for one step; returns the reward ``[N]`` and the entries for ``info``, ``[N]`` each."""
        self.steps += 1
        self.check_observation(transition[2])
        task = self.customization
        if task.basic_reward is None:
            basic = self.check("reward", own_reward, np.shape(own_reward), 0).reshape(-1)
        else:
            basic = self.evaluate("basic_reward", task.basic_reward, transition)
        add_on = self.evaluate("add_on_reward", task.add_on_reward, transition)
        entries: dict[str, np.ndarray] = {"basic_reward": basic, "add_on_reward": add_on}
        if task.is_success is not None:
            outcome = {"terminated": terminated, "truncated": truncated}
            step = self.steps.copy() if self.batched else int(self.steps[0])
            extended = (*transition[:3], {**transition[3], **outcome, "step": step})
            entries["is_success"] = self.evaluate("is_success", task.is_success, extended).astype(bool)
        if task.metric is not None:
            value = self.evaluate(task.metric.name, task.metric.value, transition)
            self.metric = _REDUCTIONS[task.metric.reduction](self.metric, value, self.steps)
            entries[task.metric.name] = self.metric.copy()
        rewards = {"basic": basic, "add_on": add_on, "total": self.omega * basic + add_on}
        return rewards[self.reward], entries


def _described(name: str, function: StepFunction) -> str:
    return f"{name} ({getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', repr(function))})"


def _check_signature(name: str, function: StepFunction) -> None:
    """Refuse a function that does not take the four arguments, before it is called."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some built-in functions tell no signature
        return
    try:
        signature.bind(None, None, None, None)
    except TypeError:
        expected = "expected one that takes (observation, action, next_observation, info)"
        raise EnvironmentContractError(
            f"{_described(name, function)}: found a function of {signature}, {expected}"
        ) from None


def _row_of_info(info: dict[str, Any], index: int) -> dict[str, Any]:
    """One environment's info out of a vector environment's, whose ``_key`` tell which environments have a ``key``."""
    row = {}
    for key, value in info.items():
        if not key.startswith("_") and (f"_{key}" not in info or info[f"_{key}"][index]):
            row[key] = _row_of_info(value, index) if isinstance(value, dict) else value[index]
    return row


class CustomizationWrapper(gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Add an add-on reward to one environment.

    Args:
        env: Any Gymnasium environment.
        customization: The wish; or, for short, the add-on reward function alone.
        reward: Which reward :meth:`step` returns: ``basic``, ``add_on`` or ``total``.
        omega: Weight ω of the basic reward in ``total``.

    Raises:
        ConfigurationError: for an unknown reward name.
        EnvironmentContractError: at the step where a function returns NaN, infinity or the wrong shape, or the
            environment an observation or reward that is not finite.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        customization: Customization | StepFunction,
        reward: RewardName = "total",
        omega: float = 1.0,
    ) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, customization=customization, reward=reward, omega=omega)
        super().__init__(env)
        self.customization = _as_customization(customization)
        self._bookkeeping = _Bookkeeping(self.customization, reward, omega, env)
        self._observation: Any = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode and its metric."""
        self._observation, info = self.env.reset(seed=seed, options=options)
        self._bookkeeping.reset()
        self._bookkeeping.check_observation(self._observation)
        return self._observation, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step the environment and report both rewards, success and the metric in ``info``."""
        next_observation, own_reward, terminated, truncated, info = self.env.step(action)
        transition = (self._observation, action, next_observation, info)
        reward, entries = self._bookkeeping.step(transition, own_reward, terminated, truncated)
        self._observation = next_observation
        info = {**info, **{key: value[0].item() for key, value in entries.items()}}
        return next_observation, float(reward[0]), terminated, truncated, info


class VectorCustomizationWrapper(VectorWrapper):
    """The same for a vector environment in ``AutoresetMode.DISABLED``, which TorchRL's ``GymWrapper`` takes.

    Args:
        env: A ``gymnasium.vector.VectorEnv`` that honours ``reset(options={"reset_mask": …})``.
        customization: The wish; or the add-on reward function alone (called row by row).
        reward: Which reward :meth:`step` returns.
        omega: Weight ω of the basic reward in ``total``.

    Raises:
        ConfigurationError: for an unknown reward name or another autoreset mode.
    """

    def __init__(
        self,
        env: VectorEnv,
        customization: Customization | StepFunction,
        reward: RewardName = "total",
        omega: float = 1.0,
    ) -> None:
        super().__init__(env)
        mode = getattr(env, "autoreset_mode", env.metadata.get("autoreset_mode"))
        require(mode == AutoresetMode.DISABLED, "autoreset_mode", mode, "AutoresetMode.DISABLED")
        self.autoreset_mode = AutoresetMode.DISABLED  # TorchRL looks for the attribute; VectorWrapper forwards none
        self.customization = _as_customization(customization)
        self._bookkeeping = _Bookkeeping(self.customization, reward, omega, env)
        self._observation: Any = None

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start episodes: all of them, or those of ``options["reset_mask"]``."""
        mask = None if options is None else options.get("reset_mask")
        observation, info = self.env.reset(seed=seed, options=options)
        self._observation = observation
        self._bookkeeping.reset(mask)
        self._bookkeeping.check_observation(observation)
        return observation, info

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step all environments and report both rewards, success and the metric in ``info``."""
        next_observation, own_reward, terminated, truncated, info = self.env.step(actions)
        transition = (self._observation, actions, next_observation, info)
        reward, entries = self._bookkeeping.step(transition, own_reward, terminated, truncated)
        self._observation = next_observation
        everywhere = np.ones(self.num_envs, dtype=bool)
        info = {**info, **entries, **{f"_{key}": everywhere for key in entries}}
        return next_observation, reward, terminated, truncated, info

    def picture(self, transition: Transition) -> np.ndarray:
        """The task's pictured quantity ``[N]`` of a step that :meth:`step` made."""
        label, function = self.customization.pictured  # type: ignore[misc]
        return self._bookkeeping.evaluate(label, function, transition)

    def get_state(self, indices: Any = None) -> dict[str, Any]:
        """The wrapped environments' state and the bookkeeping of their running episodes.

        Args:
            indices: Of which environments, if the wrapped ones know of indices; by default all.

        Raises:
            NotImplementedError: if the wrapped environment cannot be stored.
        """
        if not hasattr(self.env, "get_state"):
            raise NotImplementedError(f"{type(self.env.unwrapped).__name__} has no get_state")
        state = self.env.get_state() if indices is None else self.env.get_state(indices)
        books, rows = self._bookkeeping, slice(None) if indices is None else np.asarray(indices)
        return {**state, "episode_steps": books.steps[rows].copy(), "episode_metric": books.metric[rows].copy()}

    def set_state(self, state: dict[str, Any], indices: Any = None) -> None:
        """Continue from what :meth:`get_state` returned, in these places."""
        self.env.set_state(*(state,) if indices is None else (state, indices))
        rows = slice(None) if indices is None else np.asarray(indices)
        if indices is None or self._observation is None:
            self._observation = np.array(self.env.get_state()["observation"])
        else:
            self._observation = np.array(self._observation)  # the old one is in a caller's hands
            self._observation[rows] = state["observation"]
        self._bookkeeping.steps[rows] = state["episode_steps"]
        self._bookkeeping.metric[rows] = state["episode_metric"]

    def load_reference(self, index: int, env: gym.Env[Any, Any]) -> None:
        """Take over a reference environment's running episode, and its bookkeeping if it is this task's too."""
        self.env.load_reference(index, env)
        self._observation = self.env.get_state()["observation"]
        wrapper = _customization_of(env)
        self._bookkeeping.steps[index] = self.env.steps[index] if wrapper is None else wrapper._bookkeeping.steps[0]
        self._bookkeeping.metric[index] = 0.0 if wrapper is None else wrapper._bookkeeping.metric[0]

    def to_reference(self, index: int, env: gym.Env[Any, Any]) -> None:
        """Write an environment's running episode into a reference environment, bookkeeping included."""
        self.env.to_reference(index, env)
        wrapper = _customization_of(env)
        if wrapper is not None:
            wrapper._observation = np.array(self._observation[index])
            wrapper._bookkeeping.steps[0] = self._bookkeeping.steps[index]
            wrapper._bookkeeping.metric[0] = self._bookkeeping.metric[index]


def _customization_of(env: gym.Env[Any, Any]) -> CustomizationWrapper | None:
    while isinstance(env, gym.Wrapper):
        if isinstance(env, CustomizationWrapper):
            return env
        env = env.env
    return None


def _as_customization(customization: Customization | StepFunction) -> Customization:
    return customization if isinstance(customization, Customization) else Customization(add_on_reward=customization)
