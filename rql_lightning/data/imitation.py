"""Data modules for learning from demonstrations, with or without interaction with the environment."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from rql_lightning.data.demonstrations import Demonstrations, check_demonstrations, load_demonstrations
from rql_lightning.data.replay import ReplayDataModule
from rql_lightning.data.task import TaskDataModule, require_counts
from rql_lightning.errors import CheckpointError, require

if TYPE_CHECKING:
    from tensordict import TensorDictBase

_STRIDE = 1_000_003
"""Prime factor that separates the seeds of ranks and training steps."""


class HasDemonstrations(TaskDataModule):
    """Base class of data modules that provide demonstrations, split by episode.

    Args:
        demonstrations: Folder of demonstrations, as written by predict or by TorchRL; or minari: followed by the id of
            a local Minari data set.
        episodes: Number of episodes to use, the first ones of the demonstrations; null for all.
        validation_fraction: Fraction of the episodes that is held out of training, in [0, 1); 0 holds none out.
        **settings: Arguments of TaskDataModule.

    Attributes:
        training: Demonstrations to learn from; available after :meth:`setup` for ``fit``.
        held_out: Demonstrations held out of training; ``None`` without any.
    """

    training: Demonstrations
    held_out: Demonstrations | None

    def __init__(
        self,
        *,
        demonstrations: str,
        episodes: int | None = None,
        validation_fraction: float = 0.1,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        if episodes is not None:
            require_counts(episodes=episodes)
        accepted = isinstance(validation_fraction, int | float) and 0 <= validation_fraction < 1
        require(accepted, "data.validation_fraction", validation_fraction, "a number in [0, 1)")
        self.demonstrations, self.episodes, self.validation_fraction = demonstrations, episodes, validation_fraction
        self._identity: list[int] | None = None

    def setup(self, stage: str) -> None:
        """Load, check and split the demonstrations for ``fit``; other commands do not need them."""
        super().setup(stage)
        if stage != "fit":
            return
        everything = load_demonstrations(self.demonstrations)
        check_demonstrations(everything, self.observation_space, self.action_space, self.env)
        if self.episodes is not None:
            expected = f"at most {everything.episodes}, the number of episodes in {self.demonstrations}"
            require(self.episodes <= everything.episodes, "data.episodes", self.episodes, expected)
            everything = everything.select(torch.arange(self.episodes))
        self.training, self.held_out = everything, None
        if self.validation_fraction > 0:
            self.training, self.held_out = everything.split(self.validation_fraction, seed=0)
        self._identity = self._identify()

    def demonstrated(self, updates: int, batch_size: int) -> TensorDictBase:
        """Sample K minibatches from the training episodes, uniformly with replacement, ``[K, B]``."""
        index = torch.randint(len(self.training), (updates * batch_size,))
        batch = self.training.transitions[index].reshape(updates, batch_size)
        for key in ("observation", ("next", "observation")):
            batch[key] = batch[key].float()  # narrow in memory, as for images
        return batch

    def state_dict(self) -> dict[str, Any]:
        """Return the state to store in a checkpoint, with the size of the demonstrations."""
        return {**super().state_dict(), "demonstrations": self._identity}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state from a checkpoint.

        Raises:
            CheckpointError: If ``fit`` resumes with other demonstrations than those of the checkpoint.
        """
        if self.fitting:
            self._check_class(state_dict)
        super().load_state_dict(state_dict)
        if self.fitting and state_dict["demonstrations"] != self._identity:
            names = "episodes and steps for training, held-out steps, and a checksum"
            raise CheckpointError(
                f"data.demonstrations: found {self._identity} ({names}) in {self.demonstrations}, expected "
                f"{state_dict['demonstrations']}, as in the checkpoint to resume"
            )

    def _check_class(self, state_dict: dict[str, Any]) -> None:
        """Refuse the state of a data module with other entries."""
        missing = self.state_dict().keys() - state_dict.keys()
        if missing:
            raise CheckpointError(
                f"data.class_path: found {type(self).__name__}, expected the class of the checkpoint to resume, whose "
                f"state has no {sorted(missing)[0]!r}"
            )

    def _identify(self) -> list[int]:
        """Return numbers that tell these demonstrations from others; reads all of them, so it is called once."""
        held_out = 0 if self.held_out is None else len(self.held_out)
        transitions, checksum = self.training.transitions, 0
        for key in ("observation", "action"):
            checksum = zlib.crc32(transitions[key].contiguous().numpy(), checksum)
        return [self.training.episodes, len(self.training), held_out, checksum]


class DemonstrationDataModule(HasDemonstrations):
    """Minibatches of demonstrations alone, for offline imitation.

    ``frames`` counts the transitions drawn, with repetition, over all ranks. The random numbers of a training step
    depend only on the seed of the run, the rank and ``frames``, so a resumed run needs no state of them.

    Args:
        updates_per_batch: Number of updates per training step.
        batch_size: Number of transitions in the minibatch of one update.
        **settings: Arguments of HasDemonstrations.
    """

    def __init__(self, *, updates_per_batch: int = 64, batch_size: int = 256, **settings: Any) -> None:
        super().__init__(**settings)
        require_counts(updates_per_batch=updates_per_batch, batch_size=batch_size)
        self.updates_per_batch, self.batch_size = updates_per_batch, batch_size

    @property
    def frames_per_turn(self) -> int:
        """Number of transitions drawn for each training step, over all ranks."""
        return self.updates_per_batch * self.batch_size * self._world_size

    def train_dataloader(self) -> _Batches:
        """Return an iterable of batches ``[K, B]`` until the budget is spent.

        Raises:
            ConfigurationError: If the run has already spent the budget.
        """
        self.require_budget()
        self.run_seed = torch.initial_seed() % 2**31 if self.run_seed is None else self.run_seed
        return _Batches(self)

    def state_dict(self) -> dict[str, Any]:
        """Return the state to store in a checkpoint."""
        return {**super().state_dict(), "run_seed": self.run_seed, "ranks": self._world_size}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state from a checkpoint."""
        super().load_state_dict(state_dict)
        self.run_seed = state_dict.get("run_seed")
        if self.fitting and state_dict["ranks"] != self._world_size:
            found = f"a run of {state_dict['ranks']} rank(s)"
            expected = f"{self._world_size}; set trainer.devices to the former"
            raise CheckpointError(f"checkpoint to resume: found {found}, expected {expected}")


class DemonstrationReplayDataModule(HasDemonstrations, ReplayDataModule):
    """Frames collected by the learner and minibatches of demonstrations beside them, for imitation with interaction.

    A training batch is that of ReplayDataModule, with transitions of demonstrations of the same shape ``[K, B]`` under
    the key ``demonstrations``.

    Args:
        **settings: Arguments of HasDemonstrations and ReplayDataModule.
    """

    def complete(self, batch: TensorDictBase) -> TensorDictBase:
        """Add minibatches of demonstrations to sampled transitions ``[K, B]``."""
        return batch.set("demonstrations", self.demonstrated(*batch.batch_size))


class _Batches:
    """Iterable of training batches with a length, because Lightning would otherwise draw one batch ahead."""

    def __init__(self, data: DemonstrationDataModule) -> None:
        self.data = data

    def __len__(self) -> int:
        return self.data.turns_left

    def __iter__(self) -> Iterator[TensorDictBase]:
        data = self.data
        rank = 0 if data.trainer is None else data.trainer.global_rank
        while data.frames < data.total_frames:
            torch.manual_seed((data.run_seed or 0) + _STRIDE * (rank + 1) + 7 * _STRIDE * data.frames)
            batch = data.demonstrated(data.updates_per_batch, data.batch_size)
            data.spend_turn()
            yield batch
