"""What a run leaves behind of its evaluation: files first, loggers and figures next, and the screen last."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytorch_lightning as pl
from pytorch_lightning.loggers import TensorBoardLogger

from rql_lightning.callbacks.run_folder import report_failure, run_folder, writing
from rql_lightning.reporting.console import console, print_line
from rql_lightning.reporting.figures import curves_figure, distribution_figure
from rql_lightning.reporting.metrics import write_metrics
from rql_lightning.reporting.tables import results_table

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.figure import Figure

    from rql_lightning.algorithms import Algorithm
    from rql_lightning.data import ReplayDataModule

Summary = Mapping[str, Any]


def write_summary(trainer: pl.Trainer, name: str, content: Summary) -> Path:
    """Write a file of metrics into the run's folder, on rank 0 alone.

    Args:
        trainer: Whose run it is.
        name: The file's name.
        content: What is in it.

    Returns:
        Its path.

    Raises:
        OutputError: if it cannot be written.
    """
    path = run_folder(trainer) / name
    if trainer.is_global_zero:
        with writing(path):
            write_metrics(content, path)
    return path


def log_summary(pl_module: Algorithm, summary: Summary) -> None:
    """Write an evaluation to every logger, and to their files.

    Args:
        pl_module: Whose evaluation it is.
        summary: Numbers by name; what is ``None`` is left out.
    """
    pl_module.log_metrics({f"eval/{name}": value for name, value in summary.items() if value is not None})
    for logger in pl_module.loggers:
        logger.save()


def print_summaries(
    trainer: pl.Trainer, title: str, columns: Mapping[str, Summary | None], path: Path | None = None
) -> None:
    """Print a table, on rank 0 alone.

    Args:
        trainer: Whose data names the task.
        title: What the table shows.
        columns: Summaries by heading; those that are ``None`` are left out.
        path: The file that holds them.
    """
    if not trainer.is_global_zero:
        return
    data: ReplayDataModule = trainer.datamodule  # type: ignore[attr-defined]
    metric = None if data.customization.metric is None else data.customization.metric.name
    known = {name: summary for name, summary in columns.items() if summary is not None}
    console().print(results_table(f"{data.env}: {title}", known, metric))
    if path is not None:
        print_line(f"metrics: {path}")


def draw_distribution(trainer: pl.Trainer, prior: np.ndarray, policy: np.ndarray) -> None:
    """Draw histograms of the task's pictured quantity.

    Args:
        trainer: Whose data says what the quantity is.
        prior: Samples of the prior's episodes; may be empty.
        policy: Samples of the policy's; if empty there is nothing to draw.
    """
    data: ReplayDataModule = trainer.datamodule  # type: ignore[attr-defined]
    if len(policy) > 0 and data.customization.pictured is not None:
        label = data.customization.pictured[0]
        samples = ({"prior": prior} if len(prior) else {}) | {"policy": policy}
        _save_figure(trainer, "distribution", lambda: distribution_figure(samples, label))


def draw_curves(trainer: pl.Trainer, history: list[dict[str, Any]], prior: Summary | None) -> None:
    """Draw the learning curves.

    Args:
        trainer: Whose run it was.
        history: Summaries in the order of their ``frames``.
        prior: The prior's summary, or ``None``.
    """
    _save_figure(trainer, "learning_curves", lambda: curves_figure(history, prior))


def _save_figure(trainer: pl.Trainer, name: str, draw: Callable[[], Figure]) -> None:
    """A figure that cannot be drawn or written is told of and does not end the run."""
    if not trainer.is_global_zero:
        return
    try:
        figure = draw()
        figure.savefig(run_folder(trainer) / f"{name}.png", dpi=120)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_figure(name, figure, global_step=trainer.lightning_module.frames)
    except Exception as error:
        report_failure(trainer, f"figure {name}", error)
