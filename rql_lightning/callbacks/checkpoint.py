"""Checkpoints in frames: the whole run, at the boundary of a training batch, whole or not at all."""

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
    from rql_lightning.data import ReplayDataModule


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint files, renamed into place and read with ``weights_only=True`` whatever the caller says."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """See :func:`rql_lightning.checkpoints.write_atomically`."""
        write_atomically(checkpoint, Path(path))

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = True) -> dict[str, Any]:
        """See :func:`rql_lightning.checkpoints.read_checkpoint`; exported policies lack what Lightning expects."""
        if Path(path).name == ".temp.ckpt":  # how Lightning's ddp_spawn brings bare weights back from its processes
            return read_data(Path(path))
        lightning = {"pytorch-lightning_version": pl.__version__, "epoch": 0, "global_step": 0}
        return {**lightning, **read_checkpoint(resolve(path))}


class FrameCheckpoint(Checkpoint):
    """Write ``checkpoints/last.ckpt``, with the replay buffer beside it, in frames, at the end and on signals.

    Ctrl-C and SIGTERM let the running training batch end, so that the checkpoint goes on exactly where the run stopped,
    and exit with code 130 or 143; a second signal stops at once and leaves the previous checkpoint.

    The last checkpoint is written when the training epoch ends: before the callbacks' ``on_train_end``, in which the
    result is evaluated, drawn and filmed, so that a failure there loses no policy.

    Args:
        every_n_frames: Environment frames between two checkpoints.
    """

    def __init__(self, every_n_frames: int = 25_000) -> None:
        accepted = isinstance(every_n_frames, int) and every_n_frames >= 1
        require(accepted, "checkpoint.every_n_frames", every_n_frames, "an integer >= 1")
        self.every_n_frames = every_n_frames
        self.request = StopRequest()
        self._saved_frames = -1

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Find the run's folder: a question that all ranks ask together."""
        if stage == "fit":
            self._folder = run_folder(trainer) / "checkpoints"

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """From here on signals mean: finish the batch, save, stop."""
        self.request.install()

    def stop_requested(self, trainer: pl.Trainer) -> bool:
        """Whether any rank got a signal; all ranks have to ask together."""
        return trainer.strategy.reduce_boolean_decision(self.request.received is not None, all=False)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """Save when it is time to."""
        data: ReplayDataModule = trainer.datamodule  # type: ignore[attr-defined]
        frames, before = data.frames, data.frames - data.frames_per_turn
        due = frames // self.every_n_frames > before // self.every_n_frames
        requested = self.stop_requested(trainer)
        if (due or requested or frames >= data.total_frames) and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self.save(trainer)
        if requested:
            self._stop(trainer)

    def _stop(self, trainer: pl.Trainer) -> None:
        data: ReplayDataModule = trainer.datamodule  # type: ignore[attr-defined]
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            _tell(f"{data.frames:,} frames saved; to go on: --ckpt_path {self._folder / 'last.ckpt'}")
        trainer.strategy.barrier("stopping")  # the first rank to leave ends the others
        raise Stopped(self.request.received or signal.SIGTERM)  # where only another rank got the signal: SIGTERM

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the result, whatever ended the training: the budget, or one of the trainer's limits."""
        if self._saved_frames != trainer.datamodule.frames and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self.save(trainer)
        requested = self.stop_requested(trainer)
        self.request.restore()
        if requested:
            self._stop(trainer)

    def save(self, trainer: pl.Trainer) -> Path:
        """Write the replay buffers, then the checkpoint that refers to them, then forget older buffers.

        Returns:
            The checkpoint's path.

        Raises:
            OutputError: if the files cannot be written.
        """
        data: ReplayDataModule = trainer.datamodule  # type: ignore[attr-defined]
        with writing(self._folder):
            data.replay_file = data.save_replay(self._folder, trainer.global_rank)
            trainer.strategy.barrier("replay buffers written")
            trainer.save_checkpoint(self._folder / "last.ckpt", weights_only=False)
            data.forget_replays(self._folder, trainer.global_rank)
        self._saved_frames = data.frames
        return self._folder / "last.ckpt"

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Give the signals back."""
        self.request.restore()


@rank_zero_only
def _tell(message: str) -> None:
    tell(f"\n{message}")
