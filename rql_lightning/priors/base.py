"""The protocol of a frozen prior."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
from torch import Tensor

from rql_lightning.policies.base import Policy
from rql_lightning.spaces import check_same


class Prior(Policy):
    """A frozen policy whose reward is unknown; residual learning requires only its log-likelihood.

    Updates do not evaluate the prior: the replay buffer stores its ``distribution_parameters``, which its family
    interprets. :meth:`log_prob`, :meth:`act` and :meth:`distribution` work as for every policy.
    """

    def attach(self, observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> None:
        """Check that the prior's observation and action spaces fit those of the environment.

        Raises:
            SpaceMismatchError: If the spaces differ; names both.
        """
        check_same(f"{self.origin()}, observation space", self.observation_space, observation_space, False)
        check_same(f"{self.origin()}, action space", self.action_space, action_space, True)

    def probe(self, observation: Tensor) -> None:
        """Check the attached prior's outputs before anything is trained; by default nothing is checked.

        Args:
            observation: Observations returned by the environment, ``[n, *observation_shape]``.

        Raises:
            EnvironmentContractError: If an output is not a distribution over actions.
        """

    def origin(self) -> str:
        """Return the source of the prior, for messages."""
        raise NotImplementedError
