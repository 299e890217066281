"""Policies over an environment's spaces."""

from rql_lightning.policies.actor import SquashedGaussianPolicy
from rql_lightning.policies.base import Policy
from rql_lightning.policies.clipped import ClippedNormal
from rql_lightning.policies.decision import Decider, Decision
from rql_lightning.policies.encoders import Encoder, RunningEncoder
from rql_lightning.policies.families import Categorical, Density, Family, SquashedNormal
from rql_lightning.policies.flow import Flow
from rql_lightning.policies.mixture import SquashedNormalMixture
from rql_lightning.policies.network import NetworkPolicy
from rql_lightning.policies.normal import Normal
from rql_lightning.policies.resampled import ResampledPolicy
from rql_lightning.policies.samples import Resampled, Samples
from rql_lightning.policies.sampling import SampledPolicy
from rql_lightning.policies.soft_q import SoftQPolicy

__all__ = [
    "Categorical",
    "ClippedNormal",
    "Decider",
    "Decision",
    "Density",
    "Encoder",
    "Family",
    "Flow",
    "NetworkPolicy",
    "Normal",
    "Policy",
    "Resampled",
    "ResampledPolicy",
    "RunningEncoder",
    "SampledPolicy",
    "Samples",
    "SoftQPolicy",
    "SquashedGaussianPolicy",
    "SquashedNormal",
    "SquashedNormalMixture",
]
