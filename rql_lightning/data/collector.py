"""TorchRL's collector over a vector environment, and the transitions that algorithms learn from."""

from __future__ import annotations

import logging
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import VectorEnv, VectorWrapper
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torchrl.collectors import Collector
from torchrl.data.utils import numpy_to_torch_dtype_dict
from torchrl.envs import GymWrapper

from rql_lightning.data.learner import Learner
from rql_lightning.errors import EnvironmentContractError, SpaceMismatchError
from rql_lightning.spaces import as_elements

logging.getLogger("torchrl").setLevel(logging.WARNING)

_LARGEST = float(np.finfo(np.float32).max)


class _Explorer(TensorDictModuleBase):
    """Adapter that presents a learner's ``explore`` as a collector's policy."""

    in_keys = ["observation"]  # noqa: RUF012 (TensorDict's own convention)

    def __init__(self, learner: Learner) -> None:
        super().__init__()
        # The learner itself is not stored: the collector would copy and synchronise the weights of a submodule.
        self.explore, self.device, self.out_keys = learner.explore, learner.device, list(learner.explored)

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        observation = tensordict["observation"].to(self.device, torch.float32)
        for key, value in self.explore(observation).items():
            tensordict.set(key, value.to(tensordict["observation"].device))
        return tensordict


class Resumed(VectorWrapper):
    """A vector environment whose first reset resumes stored episodes instead of starting new ones."""

    def __init__(self, env: VectorEnv, state: dict[str, Any]) -> None:
        super().__init__(env)
        self.autoreset_mode = env.autoreset_mode
        self._state: dict[str, Any] | None = state

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Return the stored observations in the first call, and reset the wrapped environment afterwards."""
        if self._state is None:
            return self.env.reset(**kwargs)
        state, self._state = self._state, None
        self.env.set_state(state)
        return state["observation"].copy(), {}


class Explored(VectorWrapper):
    """A vector environment for learners in float32: actions are converted to elements of the action space.

    Raises:
        EnvironmentContractError: If a step returns a reward that is too large for float32. (Observations are checked by
            the customization wrapper.)
    """

    def __init__(self, env: VectorEnv) -> None:
        super().__init__(env)
        self.autoreset_mode = env.autoreset_mode

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step the environments with actions in the dtype and within the bounds of their action space."""
        elements = as_elements(self.single_action_space, actions)
        observation, reward, terminated, truncated, info = self.env.step(elements)
        _check_reward(reward)
        return observation, reward, terminated, truncated, info


def _check_reward(reward: np.ndarray) -> None:
    """Refuse rewards ``[N]`` that become infinite in float32, as a weighted sum of finite ones may."""
    size = np.abs(reward)
    if size.max() > _LARGEST:
        index = int(size.argmax())
        raise EnvironmentContractError(
            f"reward: found {reward[index]} in environment {index}, expected numbers that float32 can hold, up to "
            f"{_LARGEST:.3g}"
        )


def make_collector(env: VectorEnv, learner: Learner, frames_per_batch: int, seed: int | None) -> Collector:
    """Create a TorchRL collector over a vector environment.

    Args:
        env: Vector environment in ``AutoresetMode.DISABLED``.
        learner: Algorithm that acts, on its own device; environments and frames stay on the CPU.
        frames_per_batch: Number of frames per turn of the collector, over all environments.
        seed: Seed of the first environment; the seed of each further one is one higher. ``None`` sets no seeds.

    Raises:
        SpaceMismatchError: If TorchRL does not support the dtype of observations or actions.
    """
    for what, space in (("observation", env.single_observation_space), ("action", env.single_action_space)):
        _check_dtype(what, space)
    wrapped = GymWrapper(Explored(env), categorical_action_encoding=True)
    if seed is not None:
        wrapped.set_seed(seed)
    return Collector(
        wrapped,
        _Explorer(learner),
        frames_per_batch=frames_per_batch,
        total_frames=-1,
        auto_register_policy_transforms=False,
    )


def _check_dtype(what: str, space: gym.Space[Any]) -> None:
    known = [dtype for dtype in numpy_to_torch_dtype_dict if dtype.kind != "c"]
    if space.dtype not in known:
        names = ", ".join(str(dtype) for dtype in known)
        raise SpaceMismatchError(f"{what} space: found {space} of the type {space.dtype}, expected one of {names}")


def transitions(frames: TensorDictBase, explored: tuple[str, ...]) -> TensorDictBase:
    """Select the entries of frames ``[N, T]`` that algorithms may learn from.

    These are observations and rewards in float32, the entries named in ``explored``, and termination. Infos are not
    read, so the basic reward is not included unless it is the environment's reward.
    """
    following = frames["next"]
    return TensorDict(
        {
            "observation": frames["observation"].float(),
            **{key: frames[key] for key in explored},
            "next": TensorDict(
                {
                    "observation": following["observation"].float(),
                    "reward": following["reward"].squeeze(-1).float(),
                    "terminated": following["terminated"].squeeze(-1),
                },
                batch_size=frames.batch_size,
            ),
        },
        batch_size=frames.batch_size,
    )
