"""Output of evaluations: files, loggers, figures and tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytorch_lightning as pl
from PIL import Image
from pytorch_lightning.loggers import TensorBoardLogger

from rql_lightning.callbacks.run_folder import report_failure, run_folder, writing
from rql_lightning.envs.registration import UNNAMED_IDS
from rql_lightning.reporting.console import console, print_line
from rql_lightning.reporting.figures import curves_figure, distribution_figure
from rql_lightning.reporting.histograms import histograms, write_histograms
from rql_lightning.reporting.metrics import write_history, write_metrics
from rql_lightning.reporting.tables import results_table

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.figure import Figure

    from rql_lightning.algorithms import Algorithm
    from rql_lightning.data import TaskDataModule

Summary = Mapping[str, Any]


def write_summary(trainer: pl.Trainer, name: str, content: Summary) -> Path:
    """Write a file of metrics into the run's folder, on rank 0 only.

    Args:
        trainer: Trainer of the run.
        name: Name of the file.
        content: Metrics to write.

    Returns:
        Path of the file.

    Raises:
        OutputError: If the file cannot be written.
    """
    path = run_folder(trainer) / name
    if trainer.is_global_zero:
        with writing(path):
            write_metrics(content, path)
    return path


def write_curves(trainer: pl.Trainer, history: list[dict[str, Any]]) -> None:
    """Write the learning curves as numbers into the run's folder, on rank 0 only.

    Args:
        trainer: Trainer of the run.
        history: Summaries in the order of their ``frames``.

    Raises:
        OutputError: If the file cannot be written.
    """
    path = run_folder(trainer) / "learning_curves.json"
    if trainer.is_global_zero:
        with writing(path):
            write_history(history, path)


def log_summary(pl_module: Algorithm, summary: Summary) -> None:
    """Write an evaluation to every logger and flush it.

    Args:
        pl_module: Algorithm that was evaluated.
        summary: Numbers by name; ``None`` values are omitted.
    """
    pl_module.log_metrics({f"eval/{name}": value for name, value in summary.items() if value is not None})
    for logger in pl_module.loggers:
        logger.save()


def report_model(trainer: pl.Trainer, pl_module: Algorithm) -> None:
    """Write and print the results of a model that does not act, after training.

    Args:
        trainer: Trainer of the run.
        pl_module: Model, which has a ``summary``.
    """
    seconds = round(pl_module.train_seconds, 2)
    counters = {"frames": pl_module.frames, "updates": pl_module.updates, "train_seconds": seconds}
    summary = pl_module.summary()
    for logger in pl_module.loggers:
        logger.save()
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        return
    path = write_summary(trainer, "metrics.json", {**summary, **counters})
    if trainer.is_global_zero:
        for name, value in summary.items():
            print_line(f"{name}: {value:.4g}")
        print_line(f"{path}")


def print_summaries(
    trainer: pl.Trainer, title: str, columns: Mapping[str, Summary | None], path: Path | None = None
) -> None:
    """Print a table of results, on rank 0 only.

    Args:
        trainer: Trainer whose data module defines the task.
        title: Title of the table.
        columns: Summaries by heading; ``None`` values are omitted.
        path: File that holds the metrics, to print below the table.
    """
    if not trainer.is_global_zero:
        return
    data: TaskDataModule = trainer.datamodule  # type: ignore[attr-defined]
    metric = None if data.customization.metric is None else data.customization.metric.name
    known = {name: summary for name, summary in columns.items() if summary is not None}
    task = data.env.partition("/")[2] if data.env.startswith(UNNAMED_IDS) else data.env
    console().print(results_table(f"{task}: {title}", known, metric))
    if path is not None:
        print_line(f"metrics: {path}")


def draw_distribution(trainer: pl.Trainer, prior: np.ndarray, policy: np.ndarray) -> None:
    """Draw histograms of the task's pictured quantity.

    Args:
        trainer: Trainer whose data module defines the quantity.
        prior: Samples from the prior's episodes; may be empty.
        policy: Samples from the policy's episodes; if empty, nothing is drawn.
    """
    data: TaskDataModule = trainer.datamodule  # type: ignore[attr-defined]
    if len(policy) > 0 and data.customization.pictured is not None:
        label = data.customization.pictured[0]
        samples = ({"prior": prior} if len(prior) else {}) | {"policy": policy}

        def draw() -> Figure:
            content = histograms(samples, label)
            write_histograms(content, run_folder(trainer) / "distribution.json")
            return distribution_figure(content)

        save_figure(trainer, "distribution", draw)


def draw_curves(trainer: pl.Trainer, history: list[dict[str, Any]], prior: Summary | None) -> None:
    """Draw the learning curves.

    Args:
        trainer: Trainer of the run.
        history: Summaries in the order of their ``frames``.
        prior: Summary of the prior, or ``None``.
    """
    save_figure(trainer, "learning_curves", lambda: curves_figure(history, prior))


def save_figure(trainer: pl.Trainer, name: str, draw: Callable[[], Figure]) -> None:
    """Draw a figure, write it and log it to TensorBoard, on rank 0; an error is reported and does not end the run.

    Args:
        trainer: Trainer of the run.
        name: Name of the file and in TensorBoard.
        draw: Returns the figure.
    """
    if not trainer.is_global_zero:
        return
    try:
        path = run_folder(trainer) / f"{name}.png"
        draw().savefig(path, dpi=120)
        pixels = np.asarray(Image.open(path).convert("RGB"))  # add_figure would draw it once more, for half a second
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                frames = trainer.lightning_module.frames
                logger.experiment.add_image(name, pixels, global_step=frames, dataformats="HWC")
    except Exception as error:
        report_failure(trainer, f"figure {name}", error)
