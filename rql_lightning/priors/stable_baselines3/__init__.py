"""Models of Stable-Baselines3 as priors, read without that library and without executing anything in a file."""

from rql_lightning.priors.stable_baselines3.normalization import ObservationStatistics
from rql_lightning.priors.stable_baselines3.prior import StableBaselines3Prior

__all__ = ["ObservationStatistics", "StableBaselines3Prior"]
