"""Callbacks: evaluation, checkpoints and progress, all in environment frames; videos."""

from rql_lightning.callbacks.checkpoint import AtomicCheckpointIO, FrameCheckpoint
from rql_lightning.callbacks.evaluation import EvaluationCallback
from rql_lightning.callbacks.progress import FrameProgressBar
from rql_lightning.callbacks.videos import VideoCallback

__all__ = ["AtomicCheckpointIO", "EvaluationCallback", "FrameCheckpoint", "FrameProgressBar", "VideoCallback"]
