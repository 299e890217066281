"""The data module of off-policy learning: a collector and a replay buffer on top of a task."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pytorch_lightning.utilities import rank_zero_warn

from rql_lightning.checkpoints import read_data, write_atomically
from rql_lightning.data.memory import check_memory
from rql_lightning.data.task import EVALUATION_SEEDS, TaskDataModule, require_counts, training_seed
from rql_lightning.errors import CheckpointError, ConfigurationError, is_integer, require
from rql_lightning.spaces import space_from_data, space_to_data

if TYPE_CHECKING:
    from tensordict import TensorDictBase

    from rql_lightning.data.collection import Collection

__all__ = ["EVALUATION_SEEDS", "ReplayDataModule"]

RANK = "rank-of-each"
"""Placeholder for the rank in the name of the replay file that a checkpoint refers to."""

_PARTS = {"replay", "env", "random_state", "noise"}  # entries of replay files of all versions


def _of_rank(name: str, rank: int) -> str:
    return name.replace(RANK, f"rank{rank}")


class ReplayDataModule(TaskDataModule):
    """Collects frames, stores them in a replay buffer, and provides K minibatches after each turn of the collector.

    Args:
        num_envs: Number of environments stepped together on each rank.
        frames_per_batch: Number of frames collected before each training step, over all environments of a rank.
        updates_per_batch: Number of updates per training step.
        batch_size: Number of transitions in the minibatch of one update.
        replay_size: Capacity of the replay buffer in transitions, on each rank; the oldest are replaced.
        warm_up_frames: Number of frames collected before the first update, over all ranks.
        processes: For environments that are slow in Python, how many of them step at a time while frames are collected,
            each environment in a process of its own; 0 to step them one after another in the process of the run.
        **settings: Arguments of TaskDataModule.
    """

    def __init__(
        self,
        *,
        num_envs: int = 64,
        frames_per_batch: int = 256,
        updates_per_batch: int = 64,
        batch_size: int = 64,
        replay_size: int = 100_000,
        warm_up_frames: int = 1024,
        processes: int = 0,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        require_counts(num_envs=num_envs, frames_per_batch=frames_per_batch, updates_per_batch=updates_per_batch)
        require_counts(batch_size=batch_size, replay_size=replay_size)
        budget = f"an integer >= 0 and below data.total_frames = {self.total_frames}"
        accepted = isinstance(warm_up_frames, int) and 0 <= warm_up_frames < self.total_frames
        require(accepted, "data.warm_up_frames", warm_up_frames, budget)
        require(batch_size <= replay_size, "data.batch_size", batch_size, f"at most data.replay_size = {replay_size}")
        expected = f"a multiple of data.num_envs = {num_envs}"
        require(frames_per_batch % num_envs == 0, "data.frames_per_batch", frames_per_batch, expected)
        accepted = is_integer(processes, 0) and processes <= num_envs
        require(accepted, "data.processes", processes, f"an integer >= 0 and at most data.num_envs = {num_envs}")
        self.processes = processes
        self.num_envs, self.frames_per_batch, self.updates_per_batch = num_envs, frames_per_batch, updates_per_batch
        self.batch_size, self.replay_size, self.warm_up_frames = batch_size, replay_size, warm_up_frames
        self.replay_file: str | None = None
        self._collection: Collection | None = None
        self._restored: tuple[Path, dict[str, Any]] | None = None

    @property
    def frames_per_turn(self) -> int:
        """Number of frames collected before each training step, over all ranks."""
        return self.frames_per_batch * self._world_size

    def train_dataloader(self) -> _TrainingBatches:
        """Return an iterable of batches ``[K, B]``, one per turn of the collector, until the budget is spent."""
        self.require_budget()
        self._close()
        self._collection = self._collect()
        self._restored = None
        return _TrainingBatches(self, self._collection)

    def _collect(self) -> Collection:
        # Imported here, so that only training imports TorchRL.
        from rql_lightning.data.buffer import transition_bytes
        from rql_lightning.data.collection import Collection

        processes, rank = (1, 0) if self.trainer is None else (self.trainer.num_devices, self.trainer.global_rank)
        check_memory(self.replay_size, transition_bytes(self.observation_space, self.action_space), processes)
        source, restored = (None, None) if self._restored is None else self._restored
        if restored is None:
            # Each rank explores and samples with its own random numbers, derived from the seed of the run.
            run_seed = torch.initial_seed() % 2**31
            torch.manual_seed(run_seed + rank)
        else:
            generator = torch.Generator().set_state(restored["random_state"]["cpu"])
            run_seed = generator.initial_seed() - rank
            if self.processes > 0:  # their environments cannot continue what others have stored either
                restored = {**restored, "env": None}
            if restored["env"] is None:
                rank_zero_warn(f"{self._why_not_stored()}: running episodes are restarted")
        seed = training_seed(run_seed, self.num_envs, rank, self.frames)
        samples = self.updates_per_batch * self.batch_size
        sizes = (self.frames_per_batch, self.replay_size, samples)
        env = self.make_env(self.num_envs, processes=self.processes)
        return Collection(env, self.algorithm, *sizes, seed, restored, f"{source}")

    def _why_not_stored(self) -> str:
        """Return why running episodes cannot be resumed."""
        if self.processes > 0:
            return f"data.processes is {self.processes}, and environments in processes cannot continue stored episodes"
        return f"{self.env} cannot store its state, or was in processes of its own when the checkpoint was written"

    def complete(self, batch: TensorDictBase) -> TensorDictBase:
        """Add to sampled transitions ``[K, B]`` what a training batch has besides them; nothing here."""
        return batch

    def pop_finished_episodes(self) -> tuple[np.ndarray, np.ndarray]:
        """Training episodes of this rank that ended since the last call.

        Returns:
            Their undiscounted returns of ``data.reward`` and their lengths in steps, ``[episodes]`` each.
        """
        if self._collection is None:
            return np.empty(0), np.empty(0, dtype=np.int64)
        return self._collection.returns.pop()

    def teardown(self, stage: str) -> None:
        """Close the environments."""
        self._close()

    def on_exception(self, exception: BaseException) -> None:
        """Close the environments: after an exception Lightning does not call :meth:`teardown`."""
        with suppress(Exception):  # an error while closing must not hide the original exception
            self._close()

    def _close(self) -> None:
        collection, self._collection = self._collection, None
        if collection is not None:
            collection.close()

    # -- exact resume ------------------------------------------------------------------------------------------------

    def save_beside(self, folder: Path, rank: int) -> None:
        """Write this rank's replay buffer, environments and random states beside a checkpoint, which refers to them."""
        self.replay_file = f"replay-{self.frames}-{RANK}.pt"
        if self._collection is not None:
            write_atomically(self._collection.state(), folder / _of_rank(self.replay_file, rank))

    def forget_beside(self, folder: Path, rank: int) -> None:
        """Remove this rank's files beside a checkpoint that refers to the newest of them."""
        current, self.replay_file = _of_rank(str(self.replay_file), rank), None
        for path in folder.glob(f"replay-*-rank{rank}.pt"):
            if path.name != current:
                path.unlink()

    def state_dict(self) -> dict[str, Any]:
        """Return the state to store in a checkpoint; :meth:`save_beside` stores the replay buffer in its own file."""
        sizes = {"num_envs": self.num_envs, "replay_size": self.replay_size, "world_size": self._world_size}
        return {**super().state_dict(), **sizes, "replay_file": self.replay_file, "meaning": self._meaning()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state from a checkpoint; the replay buffer is read only by ``fit``."""
        super().load_state_dict(state_dict)
        if self.trainer is None or not self.fitting:
            return
        path = self.trainer.ckpt_path
        if state_dict["world_size"] != self._world_size:
            raise CheckpointError(
                f"checkpoint {path}: found a run of {state_dict['world_size']} rank(s), expected {self._world_size}: "
                "each rank resumes with its own replay buffer; set trainer.devices to the same number"
            )
        for name in ("num_envs", "replay_size"):
            expected = f"{state_dict[name]}, as in checkpoint {path}"
            require(getattr(self, name) == state_dict[name], f"data.{name}", getattr(self, name), expected)
        if "meaning" not in state_dict:
            rank_zero_warn(
                f"checkpoint {path} is of an earlier version and does not say with which data.env, data.reward and "
                "other settings its replay buffer was collected; they must be those of the config"
            )
        self._check_meaning(state_dict.get("meaning", {}), f"as in checkpoint {path}")
        if state_dict["replay_file"] is None:
            rank_zero_warn("the checkpoint has no replay buffer: training resumes with an empty one")
            return
        file = Path(str(path)).parent / Path(_of_rank(state_dict["replay_file"], self.trainer.global_rank)).name
        if not file.is_file():
            raise CheckpointError(f"checkpoint {path}: expected its replay buffer {file}, found no such file")
        restored = read_data(file)
        if not isinstance(restored, dict) or not restored.keys() >= _PARTS:
            raise CheckpointError(f"{file}: found a file that is not a replay buffer of this project")
        self._restored = file, restored

    def _meaning(self) -> dict[str, Any]:
        """Return the settings that determine the contents of the replay buffer; ``None`` for those without effect."""
        return {
            "env": self.env,
            "env_kwargs": json.loads(json.dumps(self.env_kwargs, default=_as_plain_data, skipkeys=True)),
            "reward": self.reward,
            "omega": self.omega if self.reward == "total" else None,
            "add_on_reward": None if self.reward == "basic" else self.add_on_reward,
            "observation_space": space_to_data(self.observation_space),
            "action_space": space_to_data(self.action_space),
            "annotation": {} if self.trainer is None else dict(self.algorithm.annotation),
        }

    def _check_meaning(self, stored: dict[str, Any], where: str) -> None:
        """Refuse a buffer collected with other settings; checkpoints of earlier versions do not contain them."""
        meaning = self._meaning()
        for key, found in meaning.pop("annotation").items():
            kept = stored.get("annotation", {}).get(key, found)
            require(kept == found, f"model.{key}", found, f"{kept!r}, {where}, as for its replay buffer")
        for key, found in meaning.items():
            if key in stored and stored[key] != found:
                if key.endswith("_space"):
                    expected = f"{space_from_data(stored[key])}, {where}"
                    raise ConfigurationError(f"data.env: found the {key} {space_from_data(found)}, expected {expected}")
                require(False, f"data.{key}", found, f"{stored[key]!r}, {where}, as for its replay buffer")


def _as_plain_data(value: Any) -> Any:
    """Convert a value for JSON: arrays to lists, classes and functions to names, objects to their class's name."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}"


class _TrainingBatches:
    """Iterable of training batches with a length, because Lightning would otherwise collect one turn ahead."""

    def __init__(self, data: ReplayDataModule, collection: Collection) -> None:
        self.data = data  # and not the collection: finished trainers keep this, and a replay buffer is large

        # Turns that only fill an empty buffer; updates start after the turn that reaches warm_up_frames.
        turns = -(-data.warm_up_frames // data.frames_per_turn) - 1
        self.warm_up_turns = max(0, turns) if len(collection.replay) == 0 else 0

    def __len__(self) -> int:
        return max(0, self.data.turns_left - self.warm_up_turns)

    def __iter__(self) -> Iterator[TensorDictBase]:
        while self.data.frames < self.data.total_frames:
            collection = self.data._collection
            assert collection is not None
            collection.turn()
            self.data.spend_turn()
            if self.warm_up_turns > 0:
                self.warm_up_turns -= 1
            else:
                yield self.data.complete(collection.sample(self.data.updates_per_batch))
