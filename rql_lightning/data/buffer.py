"""The replay buffer, and its contents as plain tensors for a file."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from tensordict import TensorDict, TensorDictBase
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer

_OBSERVATIONS = ("observation", ("next", "observation"))


def make_replay(capacity: int, sample_size: int) -> TensorDictReplayBuffer:
    """Create a replay buffer on the CPU that drops the oldest transitions and samples uniformly with replacement."""
    return TensorDictReplayBuffer(storage=LazyTensorStorage(capacity), batch_size=sample_size)


def kept_dtype(space: gym.Space[Any]) -> torch.dtype:
    """Return the dtype of stored observations: their own if narrower than float32 (as for images), else float32."""
    return torch.from_numpy(np.empty(0, space.dtype)).dtype if space.dtype.itemsize < 4 else torch.float32


def with_observations(frames: TensorDictBase, dtype: torch.dtype) -> TensorDictBase:
    """Return frames ``[...]`` with observations of a dtype; unchanged if they already have it."""
    if frames["observation"].dtype == dtype:
        return frames
    frames = frames.copy()
    for key in _OBSERVATIONS:
        frames[key] = frames[key].to(dtype)
    return frames


def transition_bytes(observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> int:
    """Return the number of bytes of a transition in the buffer, without entries that an algorithm adds."""
    observation = int(np.prod(observation_space.shape)) * kept_dtype(observation_space).itemsize
    numbers = int(np.prod(action_space.shape))
    action = 8 if isinstance(action_space, gym.spaces.Discrete) else 4 * numbers
    reward, terminated, index = 4, 1, 8
    return 2 * observation + action + reward + terminated + index


def buffer_state(replay: TensorDictReplayBuffer) -> dict[str, Any]:
    """Return TorchRL's state of the buffer without the part that is not yet filled."""
    state, filled = replay.state_dict(), len(replay)
    if 0 < filled < replay.storage.max_size:
        # Copied, because torch.save writes the complete storage of a view.
        state["_storage"]["_storage"] = replay.storage.get(slice(0, filled)).clone().state_dict()
    return state


def restore_buffer(replay: TensorDictReplayBuffer, state: dict[str, Any], dtype: torch.dtype) -> None:
    """Fill an empty buffer from :func:`buffer_state`, or from a state that was written in full capacity.

    Args:
        replay: Empty buffer of the same capacity as the stored one.
        state: State of the stored buffer.
        dtype: Dtype of observations in the buffer; earlier versions stored float32 only.

    Raises:
        KeyError, RuntimeError, TypeError, ValueError: If the state is damaged.
    """
    stored, filled = state["_storage"]["_storage"], state["_storage"]["_len"]
    if filled > 0:
        transitions = TensorDict().load_state_dict(stored, strict=False)[:filled]
        replay.extend(with_observations(transitions, dtype))
    # Extending restores the transitions in their places; the writer's state determines the place of the next one.
    replay.sampler.load_state_dict(state["_sampler"])
    replay.writer.load_state_dict(state["_writer"])


def layout(frames: TensorDictBase) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Return shape and dtype of every entry of a transition, given frames ``[F]``."""
    return {
        ".".join((key,) if isinstance(key, str) else key): (tuple(frames[key].shape[1:]), frames[key].dtype)
        for key in frames.keys(include_nested=True, leaves_only=True)
        if key != "index"
    }
