"""The add-on reward as a wrapper, scalar and vector.

Both wrappers report ``basic_reward``, ``add_on_reward``, ``is_success`` and the task's metric in ``info`` at every
step, and hand out ``basic``, ``add_on`` or ``total`` (= ω · basic + add-on) as the environment's reward.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper

from rql_lightning.envs.bookkeeping import Bookkeeping, reported_success
from rql_lightning.envs.customization import Customization, RewardName, StepFunction, as_customization
from rql_lightning.envs.transition import Transition, copied, unshared
from rql_lightning.errors import require


class CustomizationWrapper(gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Add an add-on reward to one environment.

    Args:
        env: Any Gymnasium environment.
        customization: Customization, or its add-on reward function only.
        reward: Which reward :meth:`step` returns: ``basic``, ``add_on`` or ``total``.
        omega: Weight ω of the basic reward in ``total``.
        max_episode_steps: Of a time limit around this wrapper, which ``is_success`` then knows as ``truncated``;
            ``None`` for no such limit.

    Raises:
        ConfigurationError: for an unknown reward name.
        EnvironmentContractError: at the step where a function returns NaN, infinity or the wrong shape, or the
            environment an observation or reward that is not finite in float32.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        customization: Customization | StepFunction,
        reward: RewardName = "total",
        omega: float = 1.0,
        max_episode_steps: int | None = None,
    ) -> None:
        arguments = {"customization": customization, "reward": reward, "omega": omega}
        gym.utils.RecordConstructorArgs.__init__(self, **arguments, max_episode_steps=max_episode_steps)
        super().__init__(env)
        self.customization = as_customization(customization)
        self._max_episode_steps = max_episode_steps
        self._bookkeeping = Bookkeeping(self.customization, reward, omega, env)
        self._observation: Any = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode and reset its metric."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._observation = copied(observation)  # some environments return the array that they go on to write into
        self._bookkeeping.reset()
        self._bookkeeping.check_observation(observation)
        return copied(observation), copied(info)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step the environment and report both rewards, success and the metric in ``info``."""
        next_observation, own_reward, terminated, truncated, info = self.env.step(copied(action))
        following, limit = copied(next_observation), self._max_episode_steps
        transition = (self._observation, action, following, info)
        out_of_time = limit is not None and self._bookkeeping.steps[0] + 1 >= limit
        reward, entries = self._bookkeeping.step(transition, own_reward, terminated, bool(truncated or out_of_time))
        self._observation = following
        info = {**copied(info), **{key: value[0].item() for key, value in entries.items()}}
        return copied(following), float(reward[0]), terminated, truncated, info


class VectorCustomizationWrapper(VectorWrapper):
    """Add an add-on reward to a vector environment in ``AutoresetMode.DISABLED``, as TorchRL's ``GymWrapper`` takes it.

    Args:
        env: A ``gymnasium.vector.VectorEnv`` that honours ``reset(options={"reset_mask": …})``. What it returns is
            copied, unless its class sets ``returns_new_arrays = True``.
        customization: Customization, or its add-on reward function only, which is called once per environment.
        reward: Which reward :meth:`step` returns.
        omega: Weight ω of the basic reward in ``total``.

    Raises:
        ConfigurationError: for an unknown reward name or another autoreset mode.
    """

    returns_new_arrays = True

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
        self.customization = as_customization(customization)
        self._bookkeeping = Bookkeeping(self.customization, reward, omega, env)
        self._observation: Any = None

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start episodes: all of them, or those of ``options["reset_mask"]``."""
        mask = None if options is None else options.get("reset_mask")
        options = None if options is None else dict(options)  # Gymnasium's SyncVectorEnv takes the mask out of it
        observation, info = unshared(self.env, self.env.reset(seed=seed, options=options))
        self._observation = copied(observation)
        self._bookkeeping.reset(mask)
        self._bookkeeping.check_observation(observation)
        return observation, info

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step all environments and report both rewards, success and the metric in ``info``.

        ``info["_is_success"]`` tells which environments reported their success at this step.
        """
        result = unshared(self.env, self.env.step(copied(actions)))
        next_observation, own_reward, terminated, truncated, info = result
        following = copied(next_observation)
        transition = (self._observation, actions, following, info)
        reward, entries = self._bookkeeping.step(transition, own_reward, terminated, truncated)
        self._observation = following
        everywhere = np.ones((len(entries), self.num_envs), dtype=bool)
        masks = {f"_{key}": mask for key, mask in zip(entries, everywhere, strict=True)}
        reported = {} if "is_success" in entries else reported_success(info, self.num_envs)
        info = {**info, **reported, **entries, **masks}
        return next_observation, reward, terminated, truncated, info

    def picture(self, transition: Transition) -> np.ndarray:
        """Return the task's pictured quantity for a step, ``[N]``."""
        label, function = self.customization.pictured  # type: ignore[misc]
        return self._bookkeeping.evaluate(label, function, transition)

    def get_state(self, indices: Any = None) -> dict[str, Any]:
        """Return the wrapped environments' state and the bookkeeping of their running episodes.

        Args:
            indices: Indices of the environments, if the wrapped environment supports them; by default all.

        Raises:
            NotImplementedError: if the wrapped environment cannot be stored.
        """
        if not hasattr(self.env, "get_state"):
            raise NotImplementedError(f"{type(self.env.unwrapped).__name__} has no get_state")
        state = self.env.get_state() if indices is None else self.env.get_state(indices)
        books, rows = self._bookkeeping, slice(None) if indices is None else np.asarray(indices)
        return {**state, "episode_steps": books.steps[rows].copy(), "episode_metric": books.metric[rows].copy()}

    def set_state(self, state: dict[str, Any], indices: Any = None) -> None:
        """Restore the result of :meth:`get_state`, in the environments of these indices."""
        self.env.set_state(*(state,) if indices is None else (state, indices))
        rows = slice(None) if indices is None else np.asarray(indices)
        if indices is None or self._observation is None:
            self._observation = np.array(self.env.get_state()["observation"])
        else:
            self._observation = np.array(self._observation)  # copied, because a caller holds the old array
            self._observation[rows] = state["observation"]
        self._bookkeeping.steps[rows] = state["episode_steps"]
        self._bookkeeping.metric[rows] = state["episode_metric"]

    def load_reference(self, index: int, env: gym.Env[Any, Any]) -> None:
        """Copy a reference environment's running episode, and its bookkeeping if it is customised as well."""
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
