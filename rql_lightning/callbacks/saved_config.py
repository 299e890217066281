"""``config.yaml`` in the run's folder: the complete config of the run."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from jsonargparse import Namespace
from pytorch_lightning.cli import SaveConfigCallback

from rql_lightning.callbacks.run_folder import run_folder, writing
from rql_lightning.priors import Prior


class SavedConfig(SaveConfigCallback):
    """Write the complete config into the run's folder during ``fit``, and in other commands if it has none yet.

    Args:
        *args: Arguments of Lightning's callback.
        note: Lines to put at the top of the file as comments.
        **kwargs: Arguments of Lightning's callback.
    """

    def __init__(self, *args: Any, note: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "save_to_log_dir": False})
        self.note = note

    def save_config(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Write the config as UTF-8 into the run's folder; Lightning would use the locale and the logger's folder."""
        path = run_folder(trainer) / "config.yaml"
        if stage == "fit" or not path.exists():
            config, complete = _without_objects(self.config)
            text = self.parser.dump(config, skip_unset=False, skip_validation=not complete)
            comments = "".join(f"# {line}\n" for line in self.note.splitlines())
            with writing(path):
                path.write_text(comments + text, encoding="utf-8")


def _without_objects(config: Namespace) -> tuple[Namespace, bool]:
    """Return a config with a text in place of each prior that was given as an object, and whether there was none."""
    objects = {key: value for key, value in config.items() if isinstance(value, Prior)}
    if not objects:
        return config, True
    config = config.clone()
    for key, prior in objects.items():
        config[key] = f"{prior.origin()}, an object of Python: its class_path and init_args belong here"
    return config, False
