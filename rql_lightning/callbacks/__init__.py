"""Callbacks: evaluation, checkpoints, speed and progress, all in environment frames; videos, plans, report."""

from rql_lightning.callbacks.checkpoint import AtomicCheckpointIO, FrameCheckpoint
from rql_lightning.callbacks.demonstrations import DEMONSTRATION_SEEDS, DemonstrationWriter
from rql_lightning.callbacks.evaluation import EvaluationCallback
from rql_lightning.callbacks.monitor import TrainingMonitor
from rql_lightning.callbacks.plans import PlanCallback
from rql_lightning.callbacks.progress import FrameProgressBar
from rql_lightning.callbacks.run_folder import RunFolder, run_folder
from rql_lightning.callbacks.run_report import RunReport
from rql_lightning.callbacks.signals import Stopped
from rql_lightning.callbacks.videos import VideoCallback

__all__ = [
    "DEMONSTRATION_SEEDS",
    "AtomicCheckpointIO",
    "DemonstrationWriter",
    "EvaluationCallback",
    "FrameCheckpoint",
    "FrameProgressBar",
    "PlanCallback",
    "RunFolder",
    "RunReport",
    "Stopped",
    "TrainingMonitor",
    "VideoCallback",
    "run_folder",
]
