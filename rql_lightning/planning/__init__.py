"""Planning without training: residual maximum-entropy Monte Carlo tree search over any model."""

from rql_lightning.planning.copies import CopyDynamics
from rql_lightning.planning.dynamics import Dynamics, Transition
from rql_lightning.planning.finite import TabularActions, TabularDynamics
from rql_lightning.planning.learned import LearnedDynamics
from rql_lightning.planning.plan import Plan
from rql_lightning.planning.planner import Planner, Settings
from rql_lightning.planning.simulator import SimulatorDynamics, has_simulator

__all__ = [
    "CopyDynamics",
    "Dynamics",
    "LearnedDynamics",
    "Plan",
    "Planner",
    "Settings",
    "SimulatorDynamics",
    "TabularActions",
    "TabularDynamics",
    "Transition",
    "has_simulator",
]
