"""A callback for the distributed test, which the launched processes import."""

from pathlib import Path

import pytorch_lightning as pl
import torch


class WriteWeights(pl.Callback):
    """Every rank writes the weights that it ends with."""

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        folder = Path(trainer.default_root_dir)
        torch.save(pl_module.state_dict(), folder / f"weights-rank{trainer.global_rank}.pt")
