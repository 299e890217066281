"""The command line: ``python -m rql_lightning.train {fit,validate,test,predict} --config …``."""

from __future__ import annotations

import logging
import os
import re
import sys
import warnings
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.cli import ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from rql_lightning.algorithms import Algorithm
from rql_lightning.callbacks import (
    AtomicCheckpointIO,
    EvaluationCallback,
    FrameCheckpoint,
    FrameProgressBar,
    VideoCallback,
)
from rql_lightning.checkpoints import resolve
from rql_lightning.data import ReplayDataModule
from rql_lightning.errors import RqlError, require


class _SaveConfig(SaveConfigCallback):
    """Lightning's, during ``fit`` only: ``test`` of a run writes into the run's own folder."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit":
            super().setup(trainer, pl_module, stage)


class CommandLine(LightningCLI):
    """LightningCLI with this project's data, callbacks, run folders and error messages."""

    def __init__(self, args: ArgsType, **settings: Any) -> None:
        words = sys.argv[1:] if args is None else args
        self._first_word = words[0] if isinstance(words, list) and words else None
        super().__init__(args=args, **settings)

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # Lightning's is static, and called on self
        """The subcommand that is asked for alone, as a parser takes a second to build; all where none is named."""
        known = super().subcommands()
        return {name: known[name] for name in known if self._first_word not in known or name == self._first_word}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Arguments beside trainer, model and data."""
        parser.add_lightning_class_args(EvaluationCallback, "evaluation")
        parser.add_lightning_class_args(FrameCheckpoint, "checkpoint")
        parser.add_lightning_class_args(VideoCallback, "video")
        parser.add_argument(
            "--run_name",
            type=str | None,
            default=None,
            help="What the run is called in its folder, <default_root_dir>/<task>/<run_name>/version_<n>; "
            "by default the algorithm.",
        )
        parser.add_argument(
            "--threads", type=int, default=1, help="CPU threads of this process; one is fastest for small networks."
        )
        parser.add_argument(
            "--matmul_precision",
            type=Literal["highest", "high", "medium"],
            default="highest",
            help="torch.set_float32_matmul_precision: 'medium' can double the speed of wide layers, at the same error "
            "on some processors and with bfloat16's on others.",
        )

    def _parse_ckpt_path(self) -> None:
        """The config alone says what is built; a checkpoint that does not fit it is refused, not obeyed."""
        command = self.config.subcommand
        path = self.config[command].get("ckpt_path")
        expected = f"a checkpoint to {command}, such as …/checkpoints/last.ckpt or pretrained:cartpole-rl"
        require(path is not None or command == "fit", "ckpt_path", path, expected)
        if path is not None:
            resolve(path)

    def _set_seed(self) -> None:
        seed = self._get(self.config, "seed_everything")
        accepted = seed is None or isinstance(seed, bool) or 0 <= seed < 2**32
        require(accepted, "seed_everything", seed, "an integer in [0, 2**32)")
        super()._set_seed()

    def before_instantiate_classes(self) -> None:
        """Process-wide settings."""
        threads = self._get(self.config, "threads")
        require(threads >= 1, "threads", threads, "an integer >= 1")
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(self._get(self.config, "matmul_precision"))

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Fill in what the user left open: run folder, logger, progress bar, safe checkpoint files."""
        trainer = self._get(self.config_init, "trainer")
        if trainer.logger in (None, True):
            kwargs["logger"] = self._logger(Path(trainer.default_root_dir))
        elif trainer.logger is False:  # a folder of its own even so
            kwargs["default_root_dir"] = self._logger(Path(trainer.default_root_dir)).log_dir
        if trainer.enable_checkpointing is False:
            self._parser(self.subcommand).callback_keys.remove("checkpoint")
        callbacks = trainer.callbacks if isinstance(trainer.callbacks, list) else [trainer.callbacks]
        callbacks = [callback for callback in callbacks if callback is not None]
        if trainer.enable_progress_bar is not False and not any(
            isinstance(c, pl.callbacks.ProgressBar) for c in callbacks
        ):
            callbacks.append(FrameProgressBar())
        kwargs["callbacks"] = callbacks
        plugins = trainer.plugins if isinstance(trainer.plugins, list) else [trainer.plugins] if trainer.plugins else []
        kwargs["plugins"] = [*plugins, AtomicCheckpointIO()]
        return super().instantiate_trainer(**kwargs)

    def _logger(self, root: Path) -> TensorBoardLogger:
        """``runs/<task>/<what>/version_<n>``, or the folder of the run whose checkpoint is looked at."""
        path = self._get(self.config, "ckpt_path")
        if path is not None and self.subcommand != "fit":
            folder = resolve(path).resolve().parent
            if folder.name == "checkpoints" and (folder.parent / "config.yaml").is_file():
                return TensorBoardLogger(folder.parent.parent, name="", version=folder.parent.name)
        task = re.sub(r"-v\d+$", "", self.datamodule.env.rpartition("/")[2].rpartition(":")[2])
        name = self._get(self.config, "run_name") or _snake(type(self.model).__name__)
        accepted = re.fullmatch(r"[\w.+=-]+", name) and name.strip(".")
        require(
            bool(accepted), "run_name", name, "the name of one folder, of letters, digits, '_', '-', '.', '+' or '='"
        )
        return TensorBoardLogger(root, name=f"{_snake(task)}/{name}")


def _snake(name: str) -> str:
    """CartPole → cartpole, MountainCarContinuous → mountain_car_continuous, ResidualSoftQLearning → residual_…"""
    name = name.replace("CartPole", "Cartpole")
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|-", "_", name).lower()


def main(args: ArgsType = None) -> CommandLine:
    """Run the command line.

    Args:
        args: In place of ``sys.argv[1:]``.

    Raises:
        SystemExit: with code 2 and the message alone on the screen, for what the user can mend.
    """
    _quieten()
    try:
        return CommandLine(
            model_class=Algorithm,
            datamodule_class=ReplayDataModule,
            subclass_mode_model=True,
            save_config_callback=_SaveConfig,
            seed_everything_default=0,
            trainer_defaults={
                "default_root_dir": "runs",
                "max_epochs": 1,
                "enable_model_summary": False,
                "log_every_n_steps": 10,
            },
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            args=args,
        )
    except Exception as error:
        message = _message(error)
        if message is None:
            raise
        print(f"error: {message}", file=sys.stderr)
        raise SystemExit(2) from None


def _message(error: BaseException | None) -> str | None:
    """What the user can mend: our errors, also beneath one of jsonargparse's, and Lightning's about its flags."""
    while error is not None:
        if isinstance(error, RqlError):
            return str(error)
        if isinstance(error, MisconfigurationException):
            return f"trainer: {error}"
        error = error.__cause__ or error.__context__
    return None


def _quieten() -> None:
    """Keep the screen for what the user asked for: no device lists, tips or other libraries' deprecations."""
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # no window is ever opened; pygame complains of a missing screen
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
    logging.getLogger("lightning_fabric.utilities.seed").setLevel(logging.WARNING)
    for message in (
        ".*is_leaf.*",
        "Total length of .* across ranks is zero.*",
        "Found .* in eval mode at the start of training.*",  # the frozen prior
        "predict returned None.*",  # trajectories go to files
        "torch.distributed.nn.functional.all_gather is deprecated.*",
        "The number of training batches .* is smaller than the logging interval.*",
    ):
        warnings.filterwarnings("ignore", message=message)


if __name__ == "__main__":
    main()
