"""What acts: policies over an environment's spaces, and their way in and out of checkpoints."""

from rql_lightning.policies.base import Policy
from rql_lightning.policies.loading import build_policy, load_policy
from rql_lightning.policies.soft_q import CategoricalPolicy, SoftQPolicy
from rql_lightning.policies.squashed_gaussian import ContinuousPolicy, GaussianPolicy, SquashedGaussianPolicy

__all__ = [
    "CategoricalPolicy",
    "ContinuousPolicy",
    "GaussianPolicy",
    "Policy",
    "SoftQPolicy",
    "SquashedGaussianPolicy",
    "build_policy",
    "load_policy",
]
