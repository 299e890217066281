"""What acts: policies over an environment's spaces."""

from rql_lightning.policies.base import Policy
from rql_lightning.policies.decision import Decider, Decision
from rql_lightning.policies.soft_q import CategoricalPolicy, SoftQPolicy
from rql_lightning.policies.squashed_gaussian import ContinuousPolicy, GaussianPolicy, SquashedGaussianPolicy

__all__ = [
    "CategoricalPolicy",
    "ContinuousPolicy",
    "Decider",
    "Decision",
    "GaussianPolicy",
    "Policy",
    "SoftQPolicy",
    "SquashedGaussianPolicy",
]
