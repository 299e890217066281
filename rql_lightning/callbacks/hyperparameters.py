"""A run's settings as flat plain values, for loggers: at the start, and with the final metrics at the end."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers import TensorBoardLogger


def settings(trainer: pl.Trainer) -> dict[str, Any]:
    """Return the constructor arguments of the algorithm and the data module that are plain values or lists of them.

    Returns:
        Values by ``model/<name>`` and ``data/<name>``; ``model/class`` is the algorithm.
    """
    owners = {"model": trainer.lightning_module, "data": trainer.datamodule}  # type: ignore[attr-defined]
    flat: dict[str, Any] = {"model/class": type(trainer.lightning_module).__name__}
    for section, owner in owners.items():
        flat |= {f"{section}/{name}": value for name, value in _arguments(owner).items()}
    return flat


def _arguments(owner: Any) -> dict[str, Any]:
    names: dict[str, None] = {}
    for parent in type(owner).__mro__:
        if "__init__" in vars(parent):
            names |= dict.fromkeys(inspect.signature(parent).parameters)
    values = {name: vars(owner).get(name) for name in names}
    return {name: _plain(value) for name, value in values.items() if _is_plain(value)}


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_plain(item) for item in value)
    return isinstance(value, bool | int | float | str)


def _plain(value: Any) -> Any:
    return str(list(value)) if isinstance(value, list | tuple) else value


def log_start(trainer: pl.Trainer) -> None:
    """Log the settings. TensorBoard shows only the first set, so it gets them with the final metrics instead."""
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            vars(logger)["hparams"].update(settings(trainer))
        else:
            logger.log_hyperparams(settings(trainer))


def log_final(trainer: pl.Trainer, summary: Mapping[str, Any]) -> None:
    """Fill TensorBoard's HPARAMS tab: settings, and the final metrics as ``final/<name>``.

    Args:
        trainer: Trainer of the run.
        summary: Numbers by name; ``None`` values are omitted.
    """
    metrics = {f"final/{name}": float(value) for name, value in summary.items() if value is not None}
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.log_hyperparams(settings(trainer), metrics, step=trainer.lightning_module.frames)  # type: ignore[arg-type]
