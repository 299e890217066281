"""Data collection of one rank during ``fit``: environments, collector and replay buffer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from tensordict import TensorDictBase

from rql_lightning.data.buffer import buffer_state, kept_dtype, layout, make_replay, restore_buffer, with_observations
from rql_lightning.data.collector import Resumed, make_collector, transitions
from rql_lightning.data.learner import Learner
from rql_lightning.data.returns import TrainingReturns
from rql_lightning.errors import CheckpointError, ConfigurationError


class Collection:
    """Collects turns of frames, keeps them, and samples minibatches.

    Args:
        env: Vector environment; closed with the collection, also if this constructor fails.
        learner: Algorithm that acts and annotates frames.
        frames_per_batch: Number of frames per turn of the collector, over all environments.
        replay_size: Capacity of the buffer, in transitions.
        sample_size: Number of transitions per sample.
        seed: Seed of the first environment; the seed of each further one is one higher. Unused if episodes are resumed.
        restored: Result of :meth:`state` to resume from; its random state is set before the first turn.
        source: File that ``restored`` was read from, for messages.
    """

    def __init__(
        self,
        env: VectorEnv,
        learner: Learner,
        frames_per_batch: int,
        replay_size: int,
        sample_size: int,
        seed: int,
        restored: dict[str, Any] | None = None,
        source: str = "",
    ) -> None:
        self.env, self.learner, self.capacity, self.source = env, learner, replay_size, source
        self.returns = TrainingReturns(env.num_envs)
        self._random_state: dict[str, Any] | None = None
        self._restored_layout: dict[str, Any] = {}
        self._observation_dtype = kept_dtype(env.single_observation_space)
        try:
            self.replay = make_replay(replay_size, sample_size)
            if restored is not None:
                self._restore(restored)
            stored = None if restored is None else restored["env"]
            if stored is not None:
                env = Resumed(env, _convert(stored, torch.Tensor, torch.Tensor.numpy))
            self.collector = make_collector(env, learner, frames_per_batch, None if stored is not None else seed)
        except BaseException:
            self.env.close()
            raise
        self._turns = iter(self.collector)

    def turn(self) -> None:
        """Collect one turn of frames into the replay buffer."""
        if self._random_state is not None:  # set as late as possible, after all other random draws of the set-up
            torch.set_rng_state(self._random_state["cpu"])
            if "cuda" in self._random_state:
                torch.cuda.set_rng_state(self._random_state["cuda"], self.learner.device)
            self.learner.noise_state = self._random_state["noise"]
            self._random_state = None
        frames = next(self._turns)
        reward, done = (frames["next", key].squeeze(-1).numpy() for key in ("reward", "done"))
        self.returns.add(reward, done)
        annotated = self.learner.annotate(transitions(frames, self.learner.explored))
        self._extend(with_observations(annotated.reshape(-1), self._observation_dtype))

    def _extend(self, frames: TensorDictBase) -> None:
        if self._restored_layout:
            _check_layout(self.source, self._restored_layout, layout(frames))
            self._restored_layout = {}
        try:
            self.replay.extend(frames)
        except RuntimeError as error:
            if "memory" not in str(error):
                raise
            expected = f"what memory can hold of transitions of {frames.bytes() // len(frames)} bytes"
            raise ConfigurationError(f"data.replay_size: found {self.capacity}, expected {expected}") from error

    def sample(self, updates: int) -> TensorDictBase:
        """Sample K minibatches in one call, ``[K, B]``, with observations in float32."""
        batch = self.replay.sample().exclude("index").reshape(updates, -1)
        return with_observations(batch, torch.float32)

    def close(self) -> None:
        """Close the environments."""
        self.collector.shutdown()

    # -- exact resume ------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return the state for exact resume as tensors and plain data, which load with ``weights_only=True``."""
        try:
            env = _convert(self.env.get_state(), np.ndarray, lambda array: torch.from_numpy(array.copy()))
        except NotImplementedError:
            env = None
        random_state = {"cpu": torch.get_rng_state()}
        if self.learner.device.type == "cuda":
            random_state["cuda"] = torch.cuda.get_rng_state(self.learner.device)
        return {
            "replay": buffer_state(self.replay),
            "env": env,
            "random_state": random_state,
            "noise": self.learner.noise_state,
            "returns": self.returns.state(),
        }

    def _restore(self, state: dict[str, Any]) -> None:
        try:
            restore_buffer(self.replay, state["replay"], self._observation_dtype)
            self.returns.restore(state.get("returns"), same_episodes=state["env"] is not None)
            self._random_state = {**state["random_state"], "noise": state["noise"]}
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise CheckpointError(f"{self.source}: found a damaged replay buffer ({reason})") from error
        if len(self.replay) > 0:
            self._restored_layout = layout(self.replay.storage.get(slice(0, 1)))


def _check_layout(source: str, found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Refuse to mix transitions of different entries, shapes or types in one buffer."""
    for key in sorted(found.keys() | expected.keys()):
        if found.get(key) != expected.get(key):
            raise CheckpointError(
                f"{source}: found transitions with {_described(key, found)}, expected {_described(key, expected)}, as "
                "the environment and the algorithm give them now"
            )


def _described(key: str, entries: dict[str, Any]) -> str:
    if key not in entries:
        return f"no entry {key!r}"
    shape, dtype = entries[key]
    return f"an entry {key!r} of shape {shape} and type {str(dtype).removeprefix('torch.')}"


def _convert(state: Any, kind: type, convert: Callable[[Any], Any]) -> Any:
    """Convert every leaf of a given type in nested dictionaries and lists."""
    if isinstance(state, dict):
        return {key: _convert(value, kind, convert) for key, value in state.items()}
    if isinstance(state, list):
        return [_convert(value, kind, convert) for value in state]
    return convert(state) if isinstance(state, kind) else state
