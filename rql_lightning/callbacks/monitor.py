"""Speed of training, and returns of training episodes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl

from rql_lightning.callbacks.hyperparameters import log_start

if TYPE_CHECKING:
    from rql_lightning.algorithms import Algorithm
    from rql_lightning.data import TaskDataModule


class TrainingMonitor(pl.Callback):
    """Log speed, wall-clock time and training episodes, and flush the loggers, every ``log_every_n_steps`` batches."""

    def __init__(self) -> None:
        self._clock, self._frames, self._updates = 0.0, 0, 0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Log the run's settings."""
        if stage == "fit":
            log_start(trainer)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Algorithm) -> None:  # type: ignore[override]
        """Start the clock and the counts of this process, which exclude earlier parts of a resumed run."""
        self._restart(trainer, pl_module)

    def _restart(self, trainer: pl.Trainer, pl_module: Algorithm) -> None:
        data: TaskDataModule = trainer.datamodule  # type: ignore[attr-defined]
        self._clock, self._frames, self._updates = time.monotonic(), data.frames, pl_module.updates

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: pl.Trainer, pl_module: Algorithm, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log every ``trainer.log_every_n_steps`` batches."""
        if batch_idx % max(1, trainer.log_every_n_steps) != 0:  # type: ignore[attr-defined]
            return
        data: TaskDataModule = trainer.datamodule  # type: ignore[attr-defined]
        seconds = max(time.monotonic() - self._clock, 1e-9)
        metrics = {
            "frames_per_second": (data.frames - self._frames) / seconds,
            "updates_per_second": (pl_module.updates - self._updates) / seconds,
            "seconds": pl_module.train_seconds,
        }
        returns, lengths = data.pop_finished_episodes()
        if len(returns) > 0:
            metrics |= {"episode_return": float(returns.mean()), "episode_length": float(lengths.mean())}
        pl_module.log_metrics({f"train/{name}": value for name, value in metrics.items()})
        for logger in trainer.loggers:
            logger.save()
        self._restart(trainer, pl_module)
