"""LightningModules, one per algorithm."""

from rql_lightning.algorithms.ablations import GreedyCustomization, GreedySoftQLearning, KLRewardSAC, PriorLikelihoodSAC
from rql_lightning.algorithms.base import Algorithm
from rql_lightning.algorithms.behavior_cloning import BehaviorCloning
from rql_lightning.algorithms.dynamics_learning import DynamicsEnsemble
from rql_lightning.algorithms.frozen import FrozenPolicy
from rql_lightning.algorithms.gail import GAIL
from rql_lightning.algorithms.iq_learn import IQLearn, IQLearnSAC
from rql_lightning.algorithms.residual_flow_sac import ResidualFlowSAC
from rql_lightning.algorithms.residual_mcts import ResidualMCTS
from rql_lightning.algorithms.residual_sac import ResidualSAC
from rql_lightning.algorithms.residual_soft_q import ResidualSoftQLearning
from rql_lightning.algorithms.sac import SoftActorCritic
from rql_lightning.algorithms.sampled_residual_q import SampledResidualQLearning
from rql_lightning.algorithms.soft_q import SoftQLearning

__all__ = [
    "GAIL",
    "Algorithm",
    "BehaviorCloning",
    "DynamicsEnsemble",
    "FrozenPolicy",
    "GreedyCustomization",
    "GreedySoftQLearning",
    "IQLearn",
    "IQLearnSAC",
    "KLRewardSAC",
    "PriorLikelihoodSAC",
    "ResidualFlowSAC",
    "ResidualMCTS",
    "ResidualSAC",
    "ResidualSoftQLearning",
    "SampledResidualQLearning",
    "SoftActorCritic",
    "SoftQLearning",
]
