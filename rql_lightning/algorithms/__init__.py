"""LightningModules: one an algorithm."""

from rql_lightning.algorithms.base import Algorithm
from rql_lightning.algorithms.residual_soft_q import ResidualSoftQLearning
from rql_lightning.algorithms.soft_q import SoftQLearning

__all__ = ["Algorithm", "ResidualSoftQLearning", "SoftQLearning"]
