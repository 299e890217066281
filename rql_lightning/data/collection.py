"""Where TorchRL comes in: a collector over a vector environment, and what it hands to the replay buffer."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from gymnasium.vector import VectorEnv, VectorWrapper
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor
from torchrl.collectors import Collector
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
from torchrl.envs import GymWrapper

Explore = Callable[[Tensor], dict[str, Tensor]]

logging.getLogger("torchrl").setLevel(logging.WARNING)


class _Explorer(TensorDictModuleBase):
    """An algorithm's ``explore`` as the policy that a collector calls."""

    in_keys = ["observation"]  # noqa: RUF012 (TensorDict's own convention)

    def __init__(self, explore: Explore, device: torch.device, keys: tuple[str, ...]) -> None:
        super().__init__()
        self.explore, self.device, self.out_keys = explore, device, list(keys)

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        observation = tensordict["observation"].to(self.device, torch.float32)
        for key, value in self.explore(observation).items():
            tensordict.set(key, value.to(tensordict["observation"].device))
        return tensordict


class Resumed(VectorWrapper):
    """A vector environment whose first reset goes on with stored episodes instead of starting new ones."""

    def __init__(self, env: VectorEnv, state: dict[str, Any]) -> None:
        super().__init__(env)
        self.autoreset_mode = env.autoreset_mode
        self._state: dict[str, Any] | None = state

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """The stored observations at first, then the wrapped environment's reset."""
        if self._state is None:
            return self.env.reset(**kwargs)
        state, self._state = self._state, None
        self.env.set_state(state)
        return state["observation"].copy(), {}


def make_collector(
    env: VectorEnv,
    explore: Explore,
    explored: tuple[str, ...],
    device: torch.device,
    frames_per_batch: int,
    seed: int | None,
) -> Collector:
    """A TorchRL collector over a vector environment.

    Args:
        env: In ``AutoresetMode.DISABLED``.
        explore: Observations ``[N, ...]`` to actions ``[N, ...]`` and what else is kept of how they were chosen.
        explored: The keys of what ``explore`` returns.
        device: Where ``explore`` runs; environments and frames stay on the CPU.
        frames_per_batch: Frames of one turn, over all environments.
        seed: Of the first environment, the next one's is one higher; ``None`` leaves them as they are.
    """
    wrapped = GymWrapper(env, categorical_action_encoding=True)
    if seed is not None:
        wrapped.set_seed(seed)
    return Collector(
        wrapped,
        _Explorer(explore, device, explored),
        frames_per_batch=frames_per_batch,
        total_frames=-1,
        auto_register_policy_transforms=False,
    )


def transitions(frames: TensorDictBase, explored: tuple[str, ...]) -> TensorDictBase:
    """What learning may see of a turn ``[N, T]``: ``[N · T]`` transitions with the reward the environment was made for.

    Numbers are float32, as networks take them, whatever the environment's observations are. Of the acting there is what
    ``explored`` names.

    No basic reward, unless it *is* that reward: infos are not read at all.
    """
    flat = frames
    following = flat["next"]
    return TensorDict(
        {
            "observation": flat["observation"].float(),
            **{key: flat[key] for key in explored},
            "next": TensorDict(
                {
                    "observation": following["observation"].float(),
                    "reward": following["reward"].squeeze(-1).float(),
                    "terminated": following["terminated"].squeeze(-1),
                },
                batch_size=flat.batch_size,
            ),
        },
        batch_size=flat.batch_size,
    )


def make_replay(capacity: int, sample_size: int) -> TensorDictReplayBuffer:
    """A replay buffer on the CPU that forgets the oldest transitions and samples uniformly with replacement."""
    return TensorDictReplayBuffer(storage=LazyTensorStorage(capacity), batch_size=sample_size)
