"""``report.html`` in the run's folder: one file that shows what the run did."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl

from rql_lightning.callbacks.evaluation import EvaluationCallback
from rql_lightning.callbacks.hyperparameters import settings
from rql_lightning.callbacks.run_folder import report_failure, run_folder
from rql_lightning.callbacks.signals import prompt_signals
from rql_lightning.reporting.console import print_line
from rql_lightning.reporting.html.provenance import commit, machine, peak_memory, versions
from rql_lightning.reporting.html.run import write_origin, write_run_report
from rql_lightning.reporting.paper import paper_rows

if TYPE_CHECKING:
    from rql_lightning.algorithms import Algorithm
    from rql_lightning.data import TaskDataModule

TASKS = {
    "rql_lightning/CartPole-v0": "cartpole",
    "rql_lightning/MountainCarContinuous-v0": "mountain_car",
    "rql_lightning/Highway-v0": "highway",
    "rql_lightning/Parking-v0": "parking",
}
"""Tasks of the paper by Gymnasium id."""

_CUSTOMISED = {"ResidualSoftQLearning": "Customized", "ResidualSAC": "Customized", "ResidualMCTS": "ME-MCTS"}
_IMITATION = ("BehaviorCloning", "GAIL", "IQLearn", "IQLearnSAC")
_TRAINED = {"basic": "RL Prior Policy", "total": "RL Full Policy"}


class RunReport(pl.Callback):
    """Write ``report.html`` at the end of fit and of test, unless the evaluation's ``figures`` is false.

    It belongs behind all callbacks whose results it shows: the command line adds it last.

    Args:
        command: The exact command line, or ``None`` for a run that was started in Python.
    """

    def __init__(self, command: str | None = None) -> None:
        self.command = command

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Start the clock, and determine the run's folder, together on all ranks."""
        self._started = time.monotonic()
        run_folder(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: Algorithm) -> None:  # type: ignore[override]
        """Write the report of the run."""
        self._write(trainer, pl_module, "fit")

    def on_test_end(self, trainer: pl.Trainer, pl_module: Algorithm) -> None:  # type: ignore[override]
        """Write the report anew, as the run's ``metrics.json`` was."""
        self._write(trainer, pl_module, "test")

    def _write(self, trainer: pl.Trainer, pl_module: Algorithm, stage: str) -> None:
        """Write the report on rank 0; an error is reported and does not end the run."""
        drawn = any(isinstance(c, EvaluationCallback) and c.figures for c in trainer.callbacks)  # type: ignore[attr-defined]
        dry = trainer.fast_dev_run  # type: ignore[attr-defined]
        if not (drawn and pl_module.acts and trainer.is_global_zero) or dry:
            return
        with prompt_signals():
            try:
                self._write_report(trainer, stage)
            except Exception as error:
                report_failure(trainer, "report", error)

    def _write_report(self, trainer: pl.Trainer, stage: str) -> None:
        data: TaskDataModule = trainer.datamodule  # type: ignore[attr-defined]
        folder, metric, known = run_folder(trainer), data.customization.metric, settings(trainer)
        about = {
            "title": f"{data.env.rpartition('/')[2]}: {folder.parent.name}, {folder.name}",
            "metric": None if metric is None else metric.name,
            "paper": paper_of(known) if data.omega == 1.0 and not data.env_kwargs else None,
        }
        facts = {
            "command": self.command,
            "seed": known["seed"],
            "seconds": round(time.monotonic() - self._started, 2),
            "peak_memory_bytes": peak_memory(),
            "versions": versions(),
            "machine": machine(),
            "commit": commit(),
        }
        write_origin(folder, about, stage, facts)
        print_line(f"report: {write_run_report(folder)}")


def paper_of(known: dict[str, Any]) -> tuple[str, str] | None:
    """Return task and policy of the paper's row that a run is comparable with, or ``None``.

    Args:
        known: Settings of the run (:func:`rql_lightning.callbacks.hyperparameters.settings`).
    """
    task, algorithm, prior = TASKS.get(known["data/env"]), known["model/class"], str(known.get("model/prior", ""))
    row = None
    if algorithm in _CUSTOMISED and prior.startswith("pretrained:"):
        row = f"{'RL' if prior.endswith('-rl') else 'IL'} {_CUSTOMISED[algorithm]}"
    elif algorithm in _IMITATION:
        row = "IL Prior Policy"
    elif algorithm in ("SoftQLearning", "SoftActorCritic"):
        row = _TRAINED.get(known["data/reward"])
    return (task, row) if task is not None and row is not None and (task, row) in paper_rows() else None
