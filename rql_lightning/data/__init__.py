"""Lightning data modules: tasks, data collection and replay."""

from rql_lightning.data.imitation import DemonstrationDataModule, DemonstrationReplayDataModule
from rql_lightning.data.learner import Learner
from rql_lightning.data.replay import ReplayDataModule
from rql_lightning.data.task import EVALUATION_SEEDS, TaskDataModule

__all__ = [
    "EVALUATION_SEEDS",
    "DemonstrationDataModule",
    "DemonstrationReplayDataModule",
    "Learner",
    "ReplayDataModule",
    "TaskDataModule",
]
