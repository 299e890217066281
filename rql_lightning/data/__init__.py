"""DataModules."""

from rql_lightning.data.replay import EVALUATION_SEEDS, ReplayDataModule

__all__ = ["EVALUATION_SEEDS", "ReplayDataModule"]
