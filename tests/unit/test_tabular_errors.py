"""What makes no MDP is refused by name."""

import math

import numpy as np
import pytest

from rql_lightning.errors import ConfigurationError
from rql_lightning.tabular import residual_value_iteration, soft_value_iteration

SHARED = {
    "transition: of fewer actions": {"transition": np.full((2, 2, 2), 0.5)},
    "transition: of more states": {"transition": np.full((3, 3, 3), 1 / 3)},
    "transition: rows do not sum to 1": {"transition": np.full((2, 3, 2), 0.4)},
    "transition: negative probabilities": {"transition": np.broadcast_to([1.5, -0.5], (2, 3, 2))},
    "transition: not a number": {"transition": np.full((2, 3, 2), np.nan)},
    "gamma: negative": {"gamma": -0.1},
    "gamma: above 1": {"gamma": 1.1},
    "gamma: not a number": {"gamma": np.nan},
    "terminal: of more states": {"terminal": np.zeros(3, bool)},
    "terminal: of state and action": {"terminal": np.zeros((2, 3), bool)},
}
SOFT = {
    "reward: of states only": {"reward": np.zeros(2)},
    "reward: of successors too": {"reward": np.zeros((2, 3, 2))},
    "reward: not a number": {"reward": np.full((2, 3), np.nan)},
    "alpha: zero": {"alpha": 0.0},
    "alpha: negative": {"alpha": -1.0},
    "alpha: not a number": {"alpha": np.nan},
}
RESIDUAL = {
    "add_on_reward: of states only": {"add_on_reward": np.zeros(2)},
    "add_on_reward: infinite": {"add_on_reward": np.full((2, 3), np.inf)},
    "alpha_hat: zero": {"alpha_hat": 0.0},
    "alpha_hat: negative": {"alpha_hat": -1.0},
    "omega_prime: negative": {"omega_prime": -0.1},
    "omega_prime: not a number": {"omega_prime": np.nan},
    "prior: of fewer actions": {"prior": np.full((2, 2), 0.5)},
    "prior: rows do not sum to 1": {"prior": np.full((2, 3), 0.3)},
    "prior: negative probabilities": {"prior": np.broadcast_to([1.5, -0.25, -0.25], (2, 3))},
    "prior: logarithms": {"prior": np.full((2, 3), -math.log(3))},
    "prior: not a number": {"prior": np.full((2, 3), np.nan)},
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("what", SHARED | SOFT)
def test_soft_value_iteration_refuses(what):
    arguments = {"reward": np.zeros((2, 3)), "transition": np.full((2, 3, 2), 0.5), "gamma": 0.9, "alpha": 1.0}
    with pytest.raises(ConfigurationError, match=f"^{what.split(':')[0]}:"):
        soft_value_iteration(**{**arguments, **(SHARED | SOFT)[what]})


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("what", SHARED | RESIDUAL)
def test_residual_value_iteration_refuses(what):
    arguments = {"prior": np.full((2, 3), 1 / 3), "add_on_reward": np.zeros((2, 3)), "gamma": 0.9}
    arguments |= {"transition": np.full((2, 3, 2), 0.5), "omega_prime": 1.0, "alpha_hat": 1.0}
    with pytest.raises(ConfigurationError, match=f"^{what.split(':')[0]}:"):
        residual_value_iteration(**{**arguments, **(SHARED | RESIDUAL)[what]})
