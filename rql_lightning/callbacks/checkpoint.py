"""Checkpoints of the whole run, scheduled in frames and written atomically between training batches."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.utilities import rank_zero_only

from rql_lightning.callbacks.run_folder import run_folder, writing
from rql_lightning.callbacks.signals import Stopped, StopRequest
from rql_lightning.checkpoints import read_checkpoint, read_data, resolve, write_atomically
from rql_lightning.errors import require
from rql_lightning.reporting.console import tell

if TYPE_CHECKING:
    from rql_lightning.data import TaskDataModule


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint files, written atomically and always read with ``weights_only=True``."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint atomically (:func:`rql_lightning.checkpoints.write_atomically`)."""
        write_atomically(checkpoint, Path(path))

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = True) -> dict[str, Any]:
        """Read a checkpoint, and add the entries that Lightning expects and exported policies lack."""
        if Path(path).name == ".temp.ckpt":  # how Lightning's ddp_spawn brings bare weights back from its processes
            return read_data(Path(path))
        lightning = {"pytorch-lightning_version": pl.__version__, "epoch": 0, "global_step": 0}
        return {**lightning, **read_checkpoint(resolve(path))}


class FrameCheckpoint(Checkpoint):
    """Write checkpoints/last.ckpt and the replay buffer every so many frames, at the end of training and on signals.

    On Ctrl-C and SIGTERM, the current training batch is finished, a checkpoint is written from which the run resumes
    exactly, and the process exits with code 130 or 143. A second signal stops at once and leaves the previous
    checkpoint.

    The last checkpoint is written at the end of the training epoch, before the final evaluation, figures and videos
    (``on_train_end``), so that a failure there does not lose the policy.

    Args:
        every_n_frames: Number of environment frames between two checkpoints.
    """

    def __init__(self, every_n_frames: int = 25_000) -> None:
        accepted = isinstance(every_n_frames, int) and every_n_frames >= 1
        require(accepted, "checkpoint.every_n_frames", every_n_frames, "an integer >= 1")
        self.every_n_frames = every_n_frames
        self.request = StopRequest()
        self._saved_frames = -1

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Determine the run's folder, together on all ranks."""
        if stage == "fit":
            self._folder, self._saved_frames = run_folder(trainer) / "checkpoints", -1

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Install the signal handlers, which let the current batch finish, save and stop."""
        self.request.install()

    def stop_requested(self, trainer: pl.Trainer) -> bool:
        """Return whether any rank received a signal; must be called on all ranks together."""
        return trainer.strategy.reduce_boolean_decision(self.request.received is not None, all=False)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """Save a checkpoint if one is due or a signal requested it."""
        data: TaskDataModule = trainer.datamodule  # type: ignore[attr-defined]
        frames, before = data.frames, data.frames - data.frames_per_turn
        due = frames // self.every_n_frames > before // self.every_n_frames
        requested = self.stop_requested(trainer)
        if (due or requested or frames >= data.total_frames) and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self.save(trainer)
        if requested:
            self._stop(trainer)

    def _stop(self, trainer: pl.Trainer) -> None:
        data: TaskDataModule = trainer.datamodule  # type: ignore[attr-defined]
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            _tell(f"{data.frames:,} frames saved; to go on: --ckpt_path {self._folder / 'last.ckpt'}")
        trainer.strategy.barrier("stopping")  # the first rank that exits ends the others
        raise Stopped(self.request.received or signal.SIGTERM)  # SIGTERM if only another rank received it

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the result at the end of training, whether the budget or a limit of the trainer ended it."""
        if self._saved_frames != trainer.datamodule.frames and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self.save(trainer)
        requested = self.stop_requested(trainer)
        self.request.restore()
        if requested:
            self._stop(trainer)

    def save(self, trainer: pl.Trainer) -> Path:
        """Write the replay buffers, then the checkpoint that refers to them, then remove older buffers.

        Returns:
            Path of the checkpoint.

        Raises:
            OutputError: If the files cannot be written.
        """
        data: TaskDataModule = trainer.datamodule  # type: ignore[attr-defined]
        with writing(self._folder):
            data.save_beside(self._folder, trainer.global_rank)
            trainer.strategy.barrier("replay buffers written")
            trainer.save_checkpoint(self._folder / "last.ckpt", weights_only=False)
            data.forget_beside(self._folder, trainer.global_rank)
        self._saved_frames = data.frames
        return self._folder / "last.ckpt"

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Restore the previous signal handlers."""
        self.request.restore()


@rank_zero_only
def _tell(message: str) -> None:
    tell(f"\n{message}")
