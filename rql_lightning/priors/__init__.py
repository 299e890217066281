"""Frozen prior policies behind one protocol.

``CheckpointPrior`` is defined in :mod:`rql_lightning.loading`, next to the function that reads its file, and is
available here for configs and code.
"""

from typing import TYPE_CHECKING, Any

from rql_lightning.priors.base import Prior
from rql_lightning.priors.function import FunctionPrior
from rql_lightning.priors.guard import Guard
from rql_lightning.priors.module import ModulePrior
from rql_lightning.priors.sampler import SamplerPrior
from rql_lightning.priors.stable_baselines3 import ObservationStatistics, StableBaselines3Prior
from rql_lightning.priors.torchrl import TorchRLPrior

if TYPE_CHECKING:
    from rql_lightning.loading import CheckpointPrior

__all__ = [
    "CheckpointPrior",
    "FunctionPrior",
    "Guard",
    "ModulePrior",
    "ObservationStatistics",
    "Prior",
    "SamplerPrior",
    "StableBaselines3Prior",
    "TorchRLPrior",
]


def __getattr__(name: str) -> Any:
    if name == "CheckpointPrior":
        from rql_lightning.loading import CheckpointPrior

        return CheckpointPrior
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
