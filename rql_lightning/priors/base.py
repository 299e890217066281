"""The protocol of a frozen prior."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
from torch import Tensor

from rql_lightning.policies.base import Policy
from rql_lightning.spaces import check_same


class Prior(Policy):
    """A frozen policy whose reward nobody knows: all that residual learning asks of it is its log-likelihood.

    Updates never ask it: its ``distribution_parameters`` travel in the replay buffer, and its family says what they
    mean. :meth:`log_prob`, :meth:`act` (``deterministic=False`` samples) and :meth:`distribution` are those of every
    policy.
    """

    def attach(self, observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> None:
        """Check that the prior speaks of this environment's observations and actions.

        Raises:
            SpaceMismatchError: with both spaces in the message.
        """
        check_same(f"{self.origin()}, observation space", self.observation_space, observation_space, False)
        check_same(f"{self.origin()}, action space", self.action_space, action_space, True)

    def probe(self, observation: Tensor) -> None:
        """Try the prior, once attached, where it will be asked, before anything is trained; the default trusts it.

        Args:
            observation: Observations that the environment really gave, ``[n, *observation_shape]``.

        Raises:
            EnvironmentContractError: if its answer is no law of actions.
        """

    def origin(self) -> str:
        """Where the prior came from, for messages."""
        raise NotImplementedError
