"""Checkpoints in frames: the whole run, at the boundary of a training batch, whole or not at all."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.utilities import rank_zero_only
from rich.console import Console

from rql_lightning.checkpoints import read_checkpoint, read_data, resolve, write_atomically
from rql_lightning.errors import require

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
    """Write ``checkpoints/last.ckpt``, with the replay buffer beside it, every so many frames, at the end, on Ctrl-C.

    Ctrl-C lets the running training batch end, so that the checkpoint goes on exactly where the run stopped; a second
    one stops at once and leaves the previous checkpoint.

    Args:
        every_n_frames: Environment frames between two checkpoints.
    """

    def __init__(self, every_n_frames: int = 25_000) -> None:
        accepted = isinstance(every_n_frames, int) and every_n_frames >= 1
        require(accepted, "checkpoint.every_n_frames", every_n_frames, "an integer >= 1")
        self.every_n_frames = every_n_frames
        self.interrupted = False
        self._saved_frames = -1
        self._previous_handler: Any = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """From here on Ctrl-C means: finish the batch, save, stop."""
        if threading.current_thread() is threading.main_thread():
            self._previous_handler = signal.signal(signal.SIGINT, self._interrupt)

    def _interrupt(self, *_: Any) -> None:
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True
        _tell("Stopping after this training batch, with a checkpoint. Ctrl-C again stops at once.")

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """Save when it is time to."""
        data: ReplayDataModule = trainer.datamodule  # type: ignore[attr-defined]
        frames, before = data.frames, data.frames - data.frames_per_turn
        due = frames // self.every_n_frames > before // self.every_n_frames
        interrupted = trainer.strategy.reduce_boolean_decision(self.interrupted, all=False)
        if due or interrupted or frames >= data.total_frames:
            path = self.save(trainer)
        if interrupted:
            _tell(f"{frames:,} frames saved; to go on: --ckpt_path {path}")
            raise KeyboardInterrupt

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the result, whatever ended the training: the budget, or one of the trainer's limits."""
        if self._saved_frames != trainer.datamodule.frames and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self.save(trainer)

    def save(self, trainer: pl.Trainer) -> Path:
        """Write the replay buffers, then the checkpoint that refers to them, then forget older buffers."""
        folder = Path(trainer.log_dir or trainer.default_root_dir) / "checkpoints"
        data: ReplayDataModule = trainer.datamodule  # type: ignore[attr-defined]
        data.replay_file = data.save_replay(folder, trainer.global_rank)
        trainer.strategy.barrier("replay buffers written")
        trainer.save_checkpoint(folder / "last.ckpt", weights_only=False)
        data.forget_replays(folder, trainer.global_rank)
        self._saved_frames = data.frames
        return folder / "last.ckpt"

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Give Ctrl-C back."""
        if self._previous_handler is not None:
            signal.signal(signal.SIGINT, self._previous_handler)
            self._previous_handler = None


@rank_zero_only
def _tell(message: str) -> None:
    Console(stderr=True).print(f"\n{message}", soft_wrap=True, highlight=False)
