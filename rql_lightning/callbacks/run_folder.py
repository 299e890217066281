"""The folder of a run, which belongs to this run only and does not depend on the logger."""

from __future__ import annotations

import itertools
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from pytorch_lightning.strategies.launchers import _SubprocessScriptLauncher
from pytorch_lightning.trainer.connectors.signal_connector import _get_sigkill_signal
from pytorch_lightning.trainer.states import TrainerStatus

from rql_lightning.callbacks.signals import Stopped
from rql_lightning.errors import OutputError
from rql_lightning.reporting.console import tell

RESERVED = ".reserved"
"""Name of an empty file in the folder of every training run; the process that creates it owns the folder."""


def reserve(parent: Path, stem: str = "version_") -> Path:
    """Create the next free folder ``<parent>/<stem><n>``, atomically with respect to other processes.

    Args:
        parent: Folder of runs; created if it does not exist.
        stem: Prefix of the folders' names.

    Raises:
        OutputError: If the folder cannot be created.
    """
    with writing(parent):
        parent.mkdir(parents=True, exist_ok=True)
        numbers = [
            name.removeprefix(stem) for name in (path.name for path in parent.iterdir()) if name.startswith(stem)
        ]
        first = 1 + max((int(number) for number in numbers if number.isdecimal()), default=-1)
        for number in itertools.count(first):
            folder = parent / f"{stem}{number}"
            try:
                folder.mkdir()
            except FileExistsError:
                continue
            if _claim(folder):
                return folder
    raise AssertionError("unreachable: there is always another number")


def _claim(folder: Path) -> bool:
    """Claim a folder; return whether it had not been claimed before."""
    try:
        (folder / RESERVED).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say in one line which file or folder cannot be written.

    Args:
        path: What is written, for errors that do not say.

    Raises:
        OutputError: in place of an OSError, or for a name that the file system cannot write.
    """
    if "\0" in str(path):  # which Python refuses by a ValueError, as it does much else
        raise OutputError(f"{str(path)!r}: found a name with the character NUL, expected one without it")
    try:
        yield
    except OutputError:
        raise
    except UnicodeEncodeError as error:
        expected = f"one that the file system's encoding, {error.encoding}, can write"
        raise OutputError(
            f"{path}: found a name with {error.object[error.start : error.end]!r}, expected {expected}"
        ) from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(
            f"{error.filename or path}: found {reason!r}, expected a place that can be written"
        ) from error


def run_folder(trainer: pl.Trainer) -> Path:
    """Return the folder of a trainer's run, the same on every rank; the first call must be made on all ranks together.

    The command line reserves the folder. In Python, it is the folder of the trainer's TensorBoardLogger or CSVLogger,
    or ``<that folder>_<n>`` if another run was trained into that folder. With other loggers, or none, it is
    ``<default_root_dir>/<task>/<algorithm>/version_<n>``. Every ``fit`` of a trainer has a new folder, in which its
    other commands stay until the next ``fit``.

    Raises:
        OutputError: If the folder cannot be written.
    """
    return _attached(trainer).path


def report_failure(trainer: pl.Trainer, stage: str, error: Exception) -> None:
    """Report a figure or video that failed, without stopping the rest of the report.

    Args:
        trainer: Trainer of the run.
        stage: Name of the figure or video.
        error: Error that occurred.
    """
    message = f"{stage} failed: {error or type(error).__name__}"
    _attached(trainer).failures.append(message)
    tell(f"error: {message}")


def _attached(trainer: pl.Trainer) -> RunFolder:
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, RunFolder):
            if _fitting(trainer) and not callback.open:
                callback.replace(_reserve_for(trainer) if trainer.is_global_zero else None)
            callback.share(trainer)
            return callback
    own = RunFolder(_reserve_for(trainer) if trainer.is_global_zero else None)
    own.open = _fitting(trainer)
    own.share(trainer)
    trainer.callbacks.append(own)  # type: ignore[attr-defined]
    return own


def _fitting(trainer: pl.Trainer) -> bool:
    return trainer.state.fn == "fit" and trainer.state.status == TrainerStatus.RUNNING


def _reserve_for(trainer: pl.Trainer) -> Path:
    logger = trainer.loggers[0] if trainer.loggers else None
    fitting = trainer.state.fn == "fit"
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        return Path(trainer.default_root_dir)
    if isinstance(logger, TensorBoardLogger | CSVLogger):
        folder = Path(logger.log_dir)
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            return folder if not fitting or _claim(folder) else reserve(folder.parent, f"{folder.name}_")
    data = trainer.datamodule  # type: ignore[attr-defined]
    return reserve(Path(trainer.default_root_dir, *folder_names(data.env, type(trainer.lightning_module).__name__)))


def folder_names(env: str, what: str) -> tuple[str, str]:
    """``<task>`` and ``<what>`` of a run's folder ``<root>/<task>/<what>/version_<n>``.

    Args:
        env: Gymnasium id; ``rql_lightning/CartPole-v0`` becomes ``cartpole``.
        what: The run's name, or its algorithm's; ``ResidualSoftQLearning`` becomes ``residual_soft_q_learning``.
    """
    task = re.sub(r"-v\d+$", "", env.rpartition("/")[2].rpartition(":")[2])
    return _snake(task), _snake(what)


def _snake(name: str) -> str:
    """Convert CamelCase to snake_case, as in mountain_car_continuous; CartPole becomes cartpole."""
    name = name.replace("CartPole", "Cartpole")
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|-", "_", name).lower()


class RunFolder(pl.Callback):
    """Knows the run's folder, and what of its report failed.

    Args:
        path: The folder, on rank 0; other ranks are told it.
        reserved: Whether it was created for this run: then it goes again if the run is refused before it starts.

    Attributes:
        open: Whether it is the folder of the running or the next ``fit``, rather than that of an earlier run.
    """

    def __init__(self, path: Path | None, reserved: bool = False) -> None:
        self.replace(path, reserved)

    def replace(self, path: Path | None, reserved: bool = False) -> None:
        """Use another folder, for a further run of the same trainer."""
        self._path, self._reserved, self._shared, self.open = path, reserved, False, True
        self.failures: list[str] = []

    @property
    def path(self) -> Path:
        """Folder of the run."""
        assert self._path is not None, "other ranks receive the folder in setup"
        return self._path

    def share(self, trainer: pl.Trainer) -> None:
        """Broadcast the folder that rank 0 reserved to all ranks, once."""
        if not self._shared:
            self._path, self._shared = trainer.strategy.broadcast(self._path), True

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Broadcast the folder to all ranks."""
        self.share(trainer)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Leave the folder to this run; a further ``fit`` has another."""
        if stage == "fit":
            self.open = False

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """End the other ranks that would wait for this process, which Lightning does on Ctrl-C alone."""
        self.release()
        self.open = self.open and trainer.state.fn != "fit"
        launcher: Any = trainer.strategy.launcher
        if isinstance(exception, Stopped) and isinstance(launcher, _SubprocessScriptLauncher):
            launcher.kill(_get_sigkill_signal())

    def on_sanity_check_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """From here on the folder stays."""
        self._reserved = False

    on_train_start = on_validation_start = on_test_start = on_predict_start = on_sanity_check_start

    def release(self) -> None:
        """Remove the folder that was reserved for a run which never started."""
        if self._reserved and self._path is not None:
            shutil.rmtree(self._path, ignore_errors=True)
            self._reserved = False
