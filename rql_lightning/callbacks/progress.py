"""Progress in environment frames, with rate and time left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ProgressBar
from rich.progress import BarColumn, Progress, ProgressColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column

from rql_lightning.reporting.console import console

if TYPE_CHECKING:
    from rql_lightning.data import TaskDataModule


def _columns() -> list[ProgressColumn]:
    """Return the columns; on narrow screens, only the bar and the last evaluation are shortened."""

    def whole() -> Column:
        return Column(no_wrap=True, overflow="ignore")

    return [
        TextColumn("{task.completed:,.0f}/{task.total:,.0f} frames", table_column=whole()),
        BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=4, max_width=40)),
        TextColumn("{task.fields[rate]}", table_column=whole()),
        TimeRemainingColumn(compact=True, table_column=whole()),
        TextColumn("left", table_column=whole()),
        TextColumn("{task.fields[last]}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
    ]


class FrameProgressBar(ProgressBar):
    """A progress bar for the budget of ``fit``, with the returns of the last evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self._progress: Progress | None = None
        self._task = TaskID(0)
        self._enabled = True

    def disable(self) -> None:
        """Disable the bar; Lightning calls this on ranks other than 0."""
        self._enabled = False

    def enable(self) -> None:
        """Enable the bar."""
        self._enabled = True

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the bar."""
        if not self._enabled:
            return
        data: TaskDataModule = trainer.datamodule  # type: ignore[attr-defined]
        self._progress = Progress(*_columns(), console=console(), refresh_per_second=4)
        self._task = self._progress.add_task("fit", total=data.total_frames, completed=data.frames, rate="", last="")
        self._progress.start()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """Move the bar."""
        if self._progress is None:
            return
        data: TaskDataModule = trainer.datamodule  # type: ignore[attr-defined]
        speed = self._progress.tasks[0].speed
        metrics = trainer.callback_metrics
        last = " ".join(
            f"{name} {metrics[key]:.1f}"
            for name, key in (("basic", "eval/basic_return_mean"), ("add-on", "eval/add_on_return_mean"))
            if key in metrics
        )
        rate = "" if speed is None else f"{speed:,.0f} frames/s"
        self._progress.update(self._task, completed=min(data.frames, data.total_frames), rate=rate, last=last)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave the finished bar on the screen."""
        self._stop()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Stop the bar before an error message is printed."""
        self._stop()

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
