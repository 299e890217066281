"""What both customization wrappers do after a step: rewards, success, the metric, and checks of all of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from numbers import Real
from typing import Any, NoReturn, get_args

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv

from rql_lightning.envs.customization import Customization, RewardName, StepFunction
from rql_lightning.envs.transition import Transition, copied, numbers, rows
from rql_lightning.errors import EnvironmentContractError, RqlError, described, require

OWN_KEYS = ("basic_reward", "add_on_reward")
LARGEST = float(np.finfo(np.float32).max)  # learning is in float32

_REDUCTIONS: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {
    "mean": lambda old, new, step: old + (new - old) / step,
    "sum": lambda old, new, step: np.where(step == 1, new, old + new),
    "min": lambda old, new, step: np.where(step == 1, new, np.minimum(old, new)),
    "max": lambda old, new, step: np.where(step == 1, new, np.maximum(old, new)),
}


class Bookkeeping:
    """The running episodes' steps and metric, on batches of N (the scalar wrapper is a batch of one).

    Args:
        customization: The task.
        reward: ``basic``, ``add_on`` or ``total``.
        omega: Weight ω of the basic reward in ``total``.
        env: The environment that is customised, scalar or vector.

    Raises:
        ConfigurationError: for an unknown reward name or a weight that is not finite.
        EnvironmentContractError: for a step function that does not take the four arguments.
    """

    def __init__(
        self, customization: Customization, reward: str, omega: float, env: gym.Env[Any, Any] | VectorEnv
    ) -> None:
        require(reward in get_args(RewardName), "reward", reward, "one of 'basic', 'add_on', 'total'")
        require(isinstance(omega, Real) and bool(abs(omega) <= LARGEST), "omega", omega, "a finite number")
        for name, function in customization.functions().items():
            _check_signature(name, function)
        self.customization, self.reward, self.omega = customization, reward, omega
        self.env, self.batched = env, isinstance(env, VectorEnv)
        self.num_envs = env.num_envs if isinstance(env, VectorEnv) else 1
        self.steps = np.zeros(self.num_envs, dtype=np.int64)
        self.metric = np.zeros(self.num_envs)

    def reset(self, mask: np.ndarray | None = None) -> None:
        """Start episodes: all of them, or those of ``mask [N]``."""
        self.steps[slice(None) if mask is None else mask] = 0
        self.metric[slice(None) if mask is None else mask] = 0.0

    def step(
        self, transition: Transition, own_reward: Any, terminated: Any, truncated: Any
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Account for one step.

        Args:
            transition: Arguments of the step functions, which get copies.
            own_reward: The environment's: a number, or ``[N]``.
            terminated: As the environment returned it.
            truncated: As the environment returned it.

        Returns:
            The reward ``[N]`` and the entries for ``info``, ``[N]`` each, in arrays that nobody else has.

        Raises:
            EnvironmentContractError: naming the step function, or the environment's observation or reward, that is
                not what it should be, with environment and step.
        """
        self.steps += 1
        self.check_observation(transition[2])
        task = self.customization
        if task.basic_reward is None:
            basic = self._own_reward(own_reward)
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
        if self.reward == "total":
            return self.omega * basic + add_on, entries
        return entries[f"{self.reward}_reward"].copy(), entries

    def evaluate(self, name: str, function: StepFunction, transition: Transition) -> np.ndarray:
        """Call a step function, row by row unless it is vectorized, and check the results; ``[N]``."""
        given = transition if self.customization.read_only else copied(transition)
        if self.batched and not self.customization.vectorized:
            each = rows(given, self.env.observation_space, self.env.action_space)
            return np.array([self._call(name, function, row, (), index) for index, row in enumerate(each)])
        if self.batched:
            return self._call(name, function, given, (self.num_envs,), None)
        return self._call(name, function, given, (), 0).reshape(1)

    def _call(
        self, name: str, function: StepFunction, transition: Transition, shape: tuple[int, ...], index: int | None
    ) -> np.ndarray:
        """Call a step function once, and check the result; ``index`` as for :meth:`_check`."""
        try:
            values = function(*transition)
        except RqlError:  # says what is wrong already
            raise
        except Exception as error:
            found = described(error)
            missing = isinstance(error, KeyError) and error.args[:1] in [(key,) for key in OWN_KEYS]
            subject = "a wish" if name == "add_on_reward" else name
            hint = f" (info does not hold it before the step is rewarded, and {subject} must not depend on it)"
            self._refuse(_described(name, function), found + hint * missing, "a result", index, error)
        return self._check(name, values, shape, index, function)

    def _own_reward(self, reward: Any) -> np.ndarray:
        """The environment's reward, ``[N]``; of one environment also an array that holds one number."""
        if self.batched:
            return self._check("reward", reward, (self.num_envs,), None)
        if np.size(reward) != 1:
            self._refuse("reward", repr(reward), "a number", 0)
        return self._check("reward", np.reshape(reward, ()), (), 0).reshape(1)

    def _check(
        self, name: str, values: Any, shape: tuple[int, ...], index: int | None, function: StepFunction | None = None
    ) -> np.ndarray:
        """A copy in float64: numbers of this shape, finite; ``index`` is the environment, ``None`` for all of them."""
        try:
            given = np.asarray(values)
            # NumPy would take None for NaN, and read text.
            numeric = given.dtype.kind in "biuf" or not any(
                each is None or isinstance(each, str) for each in given.flat
            )
            result = given.astype(np.float64) if numeric else None
        except (RuntimeError, TypeError, ValueError):  # a tensor with a gradient, a list of different lengths
            result = None
        if result is None:
            forgotten = "a number (is a return missing?)" if values is None else "a number"
            self._refuse(_described(name, function), repr(values), forgotten, index)
        if result.shape != shape:
            found = f"a result of shape {result.shape}"
            self._refuse(_described(name, function), found, f"the shape {shape}", index)
        if not np.abs(result).max() <= LARGEST:  # False for NaN, too
            worst = int(np.argmin(np.abs(result) <= LARGEST))
            index, found = worst if index is None else index, f"{result.reshape(-1)[worst]}"
            self._refuse(_described(name, function), found, "a finite number that float32 can hold", index)
        return result

    def check_observation(self, observation: Any) -> None:
        """Refuse floats that are not finite in float32: one NaN would be every weight's after the next update."""
        for leaf in (observation,) if isinstance(observation, np.ndarray) else numbers(observation):
            if leaf.dtype.kind != "f" or (self.batched and leaf.shape[:1] != (self.num_envs,)):
                continue
            fits = _fits(leaf)
            if not fits.all():
                index = int(np.argmin(fits.reshape(self.num_envs, -1).all(axis=1)))
                found = leaf.reshape(self.num_envs, -1)[index][~fits.reshape(self.num_envs, -1)[index]][0]
                self._refuse("observation", f"{found}", "finite numbers that float32 can hold", index)

    def _refuse(
        self, described: str, found: str, expected: str, index: int | None, cause: Exception | None = None
    ) -> NoReturn:
        """Raise the error of one environment, or of a batch of all of them if ``index`` is ``None``."""
        if index is None:
            first, last = int(self.steps.min()), int(self.steps.max())
            steps = f"step {first}" if first == last else f"steps {first} to {last}"
            where = f"the batch of environments 0 to {self.num_envs - 1} at {steps} of their episodes"
        else:
            where = f"environment {index} at step {int(self.steps[index])} of its episode"
        raise EnvironmentContractError(f"{described}: found {found} in {where}, expected {expected}") from cause


def reported_success(info: dict[str, Any], num_envs: int) -> dict[str, np.ndarray]:
    """The environments' own ``is_success`` as bools with its mask, ``[N]`` each; nothing where none reported it.

    False stands both for a failure and for an environment that reported nothing: ``_is_success`` tells them apart.
    """
    if "is_success" not in info:
        return {}
    mask = np.array(info.get("_is_success", np.ones(num_envs, dtype=bool)), dtype=bool)
    success = [bool(np.all(value)) for value in info["is_success"]]  # None where an array of objects has nothing
    return {"is_success": np.array(success) & mask, "_is_success": mask}


def _fits(values: np.ndarray) -> np.ndarray:
    if values.dtype.itemsize <= 4:
        return np.isfinite(values)
    with np.errstate(over="ignore"):
        return np.isfinite(values.astype(np.float32))


def _described(name: str, function: StepFunction | None) -> str:
    if function is None:
        return name
    return f"{name} ({getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', repr(function))})"


def _check_signature(name: str, function: StepFunction) -> None:
    """Refuse a function that does not take the four arguments, before it is called."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some built-in functions have no signature
        return
    try:
        signature.bind(None, None, None, None)
    except TypeError:
        expected = "expected one that takes (observation, action, next_observation, info)"
        raise EnvironmentContractError(
            f"{_described(name, function)}: found a function of {signature}, {expected}"
        ) from None
