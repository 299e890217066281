"""``config.yaml`` in the run's folder: the complete config of the run."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from jsonargparse import Namespace
from pytorch_lightning.cli import SaveConfigCallback

from rql_lightning.callbacks.run_folder import run_folder, writing
from rql_lightning.plain import is_plain
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
    """Return a config with texts in place of what was given as objects, and whether there was nothing of the kind.

    Nothing accepts these texts, so that the config is refused when it is read. One in place of a single argument of an
    environment would be passed on to the environment.
    """
    texts = {key: text for key, value in config.items() if (text := _instead_of(key, value)) is not None}
    if not texts:
        return config, True
    config = config.clone()
    for key, text in texts.items():
        config[key] = text
    return config, False


def _instead_of(key: str, value: Any) -> str | None:
    """Return the text in place of a value that no file can hold, or ``None``."""
    if isinstance(value, Prior):
        return f"{value.origin()}, an object of Python: its class_path and init_args belong here"
    if not key.endswith(".env_kwargs") or is_plain(value):
        return None
    names = ", ".join(str(name) for name, each in value.items() if not is_plain(each))
    # Without a colon, with which it would be read as a dictionary.
    return f"a dictionary with objects of Python as {names.replace(':', ' ')}, which no config can hold"
