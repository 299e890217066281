"""The command line: ``python -m rql_lightning.train {fit,validate,test,predict} --config …``."""

from __future__ import annotations

import logging
import os
import re
import shlex
import sys
import warnings
from argparse import ArgumentError
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.cli import ArgsType, LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from rql_lightning.algorithms import Algorithm
from rql_lightning.callbacks import (
    DEMONSTRATION_SEEDS,
    AtomicCheckpointIO,
    DemonstrationWriter,
    EvaluationCallback,
    FrameCheckpoint,
    FrameProgressBar,
    PlanCallback,
    RunFolder,
    RunReport,
    Stopped,
    TrainingMonitor,
    VideoCallback,
)
from rql_lightning.callbacks.quiet import quieten
from rql_lightning.callbacks.run_folder import folder_names, reserve
from rql_lightning.callbacks.saved_config import SavedConfig
from rql_lightning.callbacks.signals import prompt_signals
from rql_lightning.checkpoints import resolve
from rql_lightning.config_files import print_as_utf8, read_as_utf8
from rql_lightning.data import TaskDataModule
from rql_lightning.errors import ConfigurationError, RqlError, require
from rql_lightning.parsers import RunParser
from rql_lightning.reporting.console import command, tell

PREDICT = ("episodes", "deterministic", "epsilon", "seed")
"""Options of ``predict`` alone."""


def _add_predict_arguments(parser: LightningArgumentParser) -> None:
    """Add the options of ``predict`` alone."""
    text = "Number of episodes to write; null for evaluation.episodes."
    parser.add_argument("--episodes", type=int | None, default=None, help=text)
    text = "Whether the policy acts deterministically, as in evaluation, instead of being sampled."
    parser.add_argument("--deterministic", type=bool, default=False, help=text)
    text = "Probability of a uniformly random action in place of the policy's."
    parser.add_argument("--epsilon", type=float, default=0.0, help=text)
    text = "Seed of the first episode, at least 1,000,000; the seed of each further episode is one higher."
    parser.add_argument("--seed", type=int, default=DEMONSTRATION_SEEDS, help=text)


class CommandLine(LightningCLI):
    """LightningCLI with this project's data, callbacks, run folders and error messages.

    Args:
        args: Words, a config by subcommand, or ``None`` for ``sys.argv[1:]``.
        command: Command line to name in the report of a run whose ``args`` is a config.
        **settings: Arguments of LightningCLI.
    """

    def __init__(self, args: ArgsType, command: str | None = None, **settings: Any) -> None:
        words, self._command = sys.argv[1:] if args is None else args, command
        if isinstance(words, list):
            self._first_word = words[0] if words else None
            self._command = shlex.join(["python", "-m", "rql_lightning.train", *map(str, words)])
        else:
            self._first_word = _subcommand_of(words)
        super().__init__(args=args, **settings)

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # Lightning's is static, and called on self
        """The subcommand that is asked for alone, as a parser takes a second to build; all where none is named."""
        known = super().subcommands()
        return {name: known[name] for name in known if self._first_word not in known or name == self._first_word}

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        if subcommand == "predict":
            _add_predict_arguments(parser)
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse the arguments and the config files that they name, which are UTF-8.

        Raises:
            ConfigurationError: If a config of Python is invalid; words end the process instead, as on the command line.
        """
        parser.exit_on_error = args is None or isinstance(args, list)
        with read_as_utf8(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "LightningCLI's args parameter")  # words of another command in sys.argv
            try:
                super().parse_arguments(parser, args)
            except ArgumentError as error:
                raise ConfigurationError(f"args: {' '.join(str(error).split())}") from error

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the arguments other than trainer, model and data."""
        parser.set_defaults({"data": {"class_path": "rql_lightning.data.ReplayDataModule"}})
        parser.add_lightning_class_args(EvaluationCallback, "evaluation")
        parser.add_lightning_class_args(FrameCheckpoint, "checkpoint")
        parser.add_lightning_class_args(VideoCallback, "video")
        parser.add_lightning_class_args(PlanCallback, "plan")
        parser.add_argument(
            "--run_name",
            type=str | None,
            default=None,
            help="Name of the run in its folder, <default_root_dir>/<task>/<run_name>/version_<n>; by default the "
            "name of the algorithm.",
        )
        parser.add_argument(
            "--threads", type=int, default=1, help="Number of CPU threads; one is fastest for small networks."
        )
        parser.add_argument(
            "--matmul_precision",
            type=Literal["highest", "high", "medium"],
            default="highest",
            help="Argument of torch.set_float32_matmul_precision: 'medium' can double the speed of wide layers, and "
            "reduces the precision to bfloat16 on some processors.",
        )

    def _parse_ckpt_path(self) -> None:
        """Check that the checkpoint exists; its hyperparameters do not override those of the config."""
        path = self.config[self.config.subcommand].get("ckpt_path")
        if path is not None:
            resolve(path)

    def _set_seed(self) -> None:
        seed = self._get(self.config, "seed_everything")
        accepted = seed is None or isinstance(seed, bool) or 0 <= seed < 2**32
        require(accepted, "seed_everything", seed, "an integer in [0, 2**32)")
        super()._set_seed()

    def before_instantiate_classes(self) -> None:
        """Apply process-wide settings."""
        threads = self._get(self.config, "threads")
        require(threads >= 1, "threads", threads, "an integer >= 1")
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(self._get(self.config, "matmul_precision"))

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Create the trainer with the project's run folder, default logger, callbacks and checkpoint files."""
        trainer = self._get(self.config_init, "trainer")
        self._check_before_running(trainer)
        parent, folder, reserved = self._folder(trainer)
        self.run = RunFolder(folder, reserved)
        if trainer.logger in (None, True):
            # Only rank 0 writes logs; other ranks receive its folder by broadcast.
            version = "of-rank-0" if folder is None else folder.name
            kwargs["logger"] = TensorBoardLogger(parent, name="", version=version)
        elif trainer.logger is False:
            kwargs["default_root_dir"] = str(folder or parent)
        if trainer.enable_checkpointing is False:
            self._parser(self.subcommand).callback_keys.remove("checkpoint")
        kwargs["callbacks"] = [self.run, *self._callbacks(trainer)]
        plugins = trainer.plugins if isinstance(trainer.plugins, list) else [trainer.plugins] if trainer.plugins else []
        kwargs["plugins"] = [*plugins, AtomicCheckpointIO()]
        try:
            created = super().instantiate_trainer(**kwargs)
        except (MisconfigurationException, TypeError, ValueError) as error:
            self.run.release()
            raise ConfigurationError(f"trainer: {' '.join(str(error).split())}") from error
        created.callbacks.append(RunReport(self._command))  # type: ignore[attr-defined]  # behind all that it reports
        return created

    def _check_before_running(self, trainer: Any) -> None:
        require(not trainer.barebones, "trainer.barebones", True, "false: a run evaluates, logs and saves")
        path = self._get(self.config, "ckpt_path")
        expected = f"a checkpoint to {self.subcommand}, such as …/checkpoints/last.ckpt or pretrained:cartpole-rl"
        needed = self.subcommand != "fit" and self.model.needs_checkpoint
        require(path is not None or not needed, "ckpt_path", path, expected)

    def _callbacks(self, trainer: Any) -> list[pl.Callback]:
        """Return the user's callbacks and the project's; evaluation and videos follow, and checkpoints come last."""
        callbacks = trainer.callbacks if isinstance(trainer.callbacks, list) else [trainer.callbacks]
        callbacks = [callback for callback in callbacks if callback is not None]
        has_bar = any(isinstance(callback, pl.callbacks.ProgressBar) for callback in callbacks)
        if trainer.enable_progress_bar is not False and not has_bar:
            callbacks.append(FrameProgressBar())
        if self.subcommand == "predict":
            callbacks.append(self._writer())
        return [*callbacks, TrainingMonitor()]

    def _writer(self) -> DemonstrationWriter:
        """Return the callback of ``predict``."""
        evaluation = self._get(self.config, "evaluation")
        settings = {name: self._get(self.config, name) for name in PREDICT}
        settings["episodes"] = evaluation.episodes if settings["episodes"] is None else settings["episodes"]
        bounds = {name: evaluation[name] for name in ("max_envs", "max_episode_steps")}
        return DemonstrationWriter(**settings, **bounds)

    def _folder(self, trainer: Any) -> tuple[Path, Path | None, bool]:
        """Reserve ``<root>/<task>/<what>/version_<n>``, or find the folder of the run whose checkpoint is looked at.

        Returns:
            The folder's parent; the folder, ``None`` on ranks that rank 0 will tell; and whether it is a new one.
        """
        path = self._get(self.config, "ckpt_path")
        if path is not None and self.subcommand != "fit":
            folder = resolve(path).resolve().parent
            if folder.name == "checkpoints" and (folder.parent / "config.yaml").is_file():
                return folder.parent.parent, folder.parent, False
        name = self._get(self.config, "run_name") or folder_names("", type(self.model).__name__)[1]
        accepted = re.fullmatch(r"[\w.+=-]+", name) and name.strip(".")
        expected = "the name of one folder, of letters, digits, '_', '-', '.', '+' or '='"
        require(bool(accepted), "run_name", name, expected)
        parent = Path(trainer.default_root_dir or ".", folder_names(self.datamodule.env, "")[0], name)
        if trainer.fast_dev_run:  # writes nothing
            return parent, parent, False
        return (parent, reserve(parent), True) if _rank() == 0 else (parent, None, False)


def main(args: ArgsType = None) -> CommandLine:
    """Run the command line.

    Args:
        args: Arguments to use in place of ``sys.argv[1:]``.

    Raises:
        SystemExit: With code 2 and a one-line message for errors that the user can fix; with code 2 if a figure or
            video failed; with code 130 after Ctrl-C and 143 after SIGTERM.
    """
    with command():
        print_as_utf8(sys.argv[1:] if args is None else args)
        try:
            finished = run(args)
        except Stopped as stopped:
            if _rank() == 0:
                tell(f"stopped by {stopped.signal.name}")
            raise
        if finished.run.failures:
            raise SystemExit(2)
        return finished


def run(args: ArgsType, command: str | None = None, note: str = "") -> CommandLine:
    """Run a command of the command line from Python.

    Args:
        args: Words, or a config as ``{"subcommand": "fit", "fit": {...}}``, which may hold objects.
        command: Command line to name in the report of a run whose ``args`` is a config.
        note: Comments at the top of the run's ``config.yaml``.

    Raises:
        RqlError: For errors that the user can fix.
        Stopped: After Ctrl-C and SIGTERM.
    """
    silence()
    try:
        with prompt_signals():
            return _command_line(args, command, note)
    except Exception as error:
        fixable = _fixable(error)
        if fixable is None:
            raise
        raise fixable from fixable.__cause__


def _command_line(args: ArgsType, command: str | None, note: str) -> CommandLine:
    return CommandLine(
        model_class=Algorithm,
        datamodule_class=TaskDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        save_config_callback=SavedConfig,
        save_config_kwargs={"note": note},
        seed_everything_default=0,
        parser_class=RunParser,
        parser_kwargs={"allow_abbrev": False, "prog": "python -m rql_lightning.train"},  # a shortened key is a typo
        trainer_defaults={
            "default_root_dir": "runs",
            "max_epochs": 1,
            "enable_model_summary": False,
            "log_every_n_steps": 10,
        },
        auto_configure_optimizers=False,
        load_from_checkpoint_support=False,
        args=args,
        command=command,
    )


def _subcommand_of(config: Any) -> str:
    """Return the subcommand of a config of Python.

    Raises:
        ConfigurationError: If it names none.
    """
    name = config.get("subcommand") if hasattr(config, "get") else None
    require(isinstance(name, str), "args", config, "words, or a config as {'subcommand': 'fit', 'fit': {...}}")
    return str(name)


def _rank() -> int:
    """Return the rank of this process according to its environment variables, before a trainer exists."""
    return getattr(rank_zero_only, "rank", 0)


def _fixable(error: BaseException | None) -> RqlError | None:
    """Return the error that the user can fix, or ``None``.

    These are this project's errors, also as the cause of others, Lightning's configuration errors, and file errors.
    """
    if isinstance(error, OSError) and error.filename is not None and not isinstance(error, RqlError):
        return RqlError(f"{error.filename}: {error.strerror}")
    while error is not None:
        if isinstance(error, RqlError):
            return error
        if isinstance(error, MisconfigurationException):
            return RqlError(f"trainer: {error}")
        error = error.__cause__ or error.__context__
    return None


def silence() -> None:
    """Silence device lists, tips and deprecation warnings of other libraries."""
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # no window is ever opened; pygame complains of a missing screen
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
    logging.getLogger("lightning_fabric.utilities.seed").setLevel(logging.WARNING)
    quieten()


if __name__ == "__main__":
    main()
