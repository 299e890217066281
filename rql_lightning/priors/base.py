"""The protocol of a frozen prior."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
from torch import Tensor

from rql_lightning.errors import EnvironmentContractError
from rql_lightning.policies.base import Policy
from rql_lightning.spaces import check_same


class Prior(Policy):
    """A frozen policy whose reward nobody knows: all that residual learning asks of it is its log-likelihood.

    Updates never ask it: its ``distribution_parameters`` travel in the replay buffer. :meth:`log_prob`,
    :meth:`act` (``deterministic=False`` samples) and :meth:`distribution` are those of every policy.
    """

    @property
    def gaussian(self) -> bool:
        """Whether its parameters are location and log-scale of a squashed Gaussian (a floor of scale makes sense)."""
        return False

    def attach(self, observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> None:
        """Check that the prior speaks of this environment's observations and actions.

        Raises:
            SpaceMismatchError: with both spaces in the message.
        """
        check_same(f"{self.origin()}, observation space", self.observation_space, observation_space, False)
        check_same(f"{self.origin()}, action space", self.action_space, action_space, True)

    def pre_tanh_log_prob(self, parameters: Tensor, pre_tanh: Tensor) -> Tensor:
        """Log π(tanh u|s) of continuous actions: see :class:`rql_lightning.policies.ContinuousPolicy`.

        Raises:
            EnvironmentContractError: if the prior has no density.
        """
        raise EnvironmentContractError(
            f"{self.origin()}: found no method pre_tanh_log_prob, expected a density over continuous actions"
        )

    def origin(self) -> str:
        """Where the prior came from, for messages."""
        raise NotImplementedError
