"""Callbacks: evaluation, checkpoints and progress, all in environment frames."""

from rql_lightning.callbacks.checkpoint import AtomicCheckpointIO, FrameCheckpoint
from rql_lightning.callbacks.evaluation import EvaluationCallback
from rql_lightning.callbacks.progress import FrameProgressBar

__all__ = ["AtomicCheckpointIO", "EvaluationCallback", "FrameCheckpoint", "FrameProgressBar"]
