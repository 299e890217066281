"""Adapter of this project's vector environments to the interface of Stable-Baselines3."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import iterate
from stable_baselines3.common.vec_env import VecEnv

from rql_lightning.envs.transition import copied, unshared
from rql_lightning.errors import require


class StableBaselinesVecEnv(VecEnv):
    """A Gymnasium vector environment as Stable-Baselines3's ``VecEnv``.

    Finished environments are reset in the same step. Stable-Baselines3 gets the infos that it uses, at the ends of
    episodes: ``terminal_observation``, ``TimeLimit.truncated``, ``episode`` (return and length) and, where the
    environment reported it at its last step, ``is_success``.

    Args:
        env: In ``AutoresetMode.DISABLED``, as ``gym.make_vec("rql_lightning/Highway-v0", num_envs=64)`` makes it. What
            it returns is copied, unless its class sets ``returns_new_arrays = True``.

    Raises:
        ConfigurationError: If the autoreset mode is not DISABLED.
    """

    def __init__(self, env: VectorEnv) -> None:
        mode = getattr(env, "autoreset_mode", env.metadata.get("autoreset_mode"))
        require(mode == AutoresetMode.DISABLED, "autoreset_mode", mode, "AutoresetMode.DISABLED")
        self.env = env
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)
        self.metadata |= {key: env.metadata[key] for key in ("render_fps",) if key in env.metadata}
        self._returns, self._lengths = np.zeros(env.num_envs), np.zeros(env.num_envs, dtype=np.int64)
        self._actions: np.ndarray | None = None

    def reset(self) -> np.ndarray:
        """Start all episodes, with the seeds of :meth:`seed` in the first call after it."""
        observation, _ = unshared(self.env, self.env.reset(seed=self._seeds if self._seeds[0] is not None else None))
        self._reset_seeds()
        self._reset_options()
        self._returns[:], self._lengths[:] = 0.0, 0
        return observation

    def step_async(self, actions: np.ndarray) -> None:
        """Keep the actions for :meth:`step_wait`."""
        self._actions = copied(actions)

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Step all environments, and reset those that are done."""
        observation, reward, terminated, truncated, info = unshared(self.env, self.env.step(self._actions))
        self._returns += reward
        self._lengths += 1
        done = terminated | truncated
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        if done.any():
            rows = list(iterate(self.env.observation_space, observation))
            reported = info.get("_is_success", np.full(self.num_envs, "is_success" in info))
            for index in np.flatnonzero(done):
                episode = {"r": float(self._returns[index]), "l": int(self._lengths[index])}
                infos[index] = {
                    "terminal_observation": copied(rows[index]),
                    "TimeLimit.truncated": bool(truncated[index] and not terminated[index]),
                    "episode": episode,
                }
                if reported[index]:
                    infos[index]["is_success"] = bool(info["is_success"][index])
            observation, _ = unshared(self.env, self.env.reset(options={"reset_mask": done}))
            self._returns[done], self._lengths[done] = 0.0, 0
        return observation, reward.astype(np.float32), done, infos

    def get_images(self) -> list[np.ndarray | None]:
        """A picture of each environment, where its ``render_mode`` is ``rgb_array``; ``render`` tiles them."""
        pictures = self.env.render()
        return [None] * self.num_envs if pictures is None else list(pictures)

    def close(self) -> None:
        """Close the environments."""
        self.env.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """The vector environment's attribute, once for each environment."""
        return [getattr(self.env, attr_name) for _ in self._indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Refuse to set attributes: the environments are rows of arrays."""
        raise NotImplementedError("the environments of a compiled simulator have no attributes of their own")

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        """Refuse to call methods: the environments are rows of arrays."""
        raise NotImplementedError("the environments of a compiled simulator have no methods of their own")

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: Any = None) -> list[bool]:
        """Whether returns and lengths of episodes are reported (Stable-Baselines3 asks for its ``Monitor``)."""
        return [wrapper_class.__name__ == "Monitor" for _ in self._indices(indices)]

    def _indices(self, indices: Any) -> Sequence[int]:
        return list(self._get_indices(indices))
