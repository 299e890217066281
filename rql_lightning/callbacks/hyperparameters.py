"""A run's settings as flat plain values, for loggers: at the start, and with the final metrics at the end."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger

from rql_lightning.algorithms import Algorithm
from rql_lightning.priors import Prior


def settings(trainer: pl.Trainer) -> dict[str, Any]:
    """Return the constructor arguments of the algorithm and the data module that are plain values or lists of them.

    Returns:
        Values by ``model/<name>`` and ``data/<name>``, those of a dictionary by ``data/<name>/<key>``; ``model/class``
        is the algorithm, ``model/prior`` the origin of the prior, and ``seed`` the seed of the run.
    """
    algorithm: Any = trainer.lightning_module
    sections = {"model": _named(algorithm), "data": _named(trainer.datamodule)}  # type: ignore[attr-defined]
    seed = trainer.datamodule.run_seed  # type: ignore[attr-defined]
    flat = {"model/class": type(algorithm).__name__, "seed": torch.initial_seed() if seed is None else seed}
    return flat | {key: _plain(value) for key, value in _flat(sections).items() if _is_plain(value)}


def _named(owner: Any) -> dict[str, Any]:
    """Arguments by name as they were given; attributes of the same name for those not recorded, or replaced if null."""
    names: dict[str, None] = {}
    for parent in type(owner).__mro__:
        if "__init__" in vars(parent):
            names |= dict.fromkeys(inspect.signature(parent).parameters)
    given = getattr(owner, "arguments", {})
    return {name: vars(owner).get(name) if given.get(name) is None else given[name] for name in names}


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested mapping as one, with priors as their origins, and algorithms as their arguments."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}/")
        elif isinstance(value, Algorithm):
            flat |= _flat({"class": type(value).__name__, **_named(value)}, f"{prefix}{name}/")
        else:
            flat[f"{prefix}{name}"] = _origin(value) if isinstance(value, Prior) else value
    return flat


def _origin(prior: Prior) -> str:
    try:
        return prior.origin().removeprefix("prior ")
    except NotImplementedError:
        return type(prior).__name__


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
