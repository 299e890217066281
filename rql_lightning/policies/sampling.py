"""Stochastic actions of a policy, for demonstrations."""

from __future__ import annotations

from typing import Any

import torch

from rql_lightning.errors import EnvironmentContractError, require
from rql_lightning.policies.base import Policy
from rql_lightning.policies.decision import Decision
from rql_lightning.policies.randomness import OwnRandom
from rql_lightning.spaces import as_elements


class SampledPolicy:
    """Decider that samples the actions of a policy, some of which are replaced by uniformly random ones.

    Its random numbers are its own: they do not depend on those of PyTorch's global generator, and do not affect them.

    Args:
        policy: Policy to sample.
        epsilon: Probability of a uniformly random action, in [0, 1].
        seed: Seed of the random numbers.

    Raises:
        EnvironmentContractError: If the decider is not a policy that can be sampled.
    """

    needs_state = False

    def __init__(self, policy: Any, epsilon: float, seed: int) -> None:
        require(0 <= epsilon <= 1, "epsilon", epsilon, "a probability in [0, 1]")
        if not isinstance(policy, Policy) or not policy.can_act:
            expected = "a policy that can be sampled; deterministic true writes the actions of any that can act"
            raise EnvironmentContractError(f"policy: found {type(policy).__name__}, expected {expected}")
        self.policy, self.epsilon = policy, epsilon
        self._random = OwnRandom(seed)

    @torch.no_grad()
    def decide(self, observation: Any, state: Any = None) -> Decision:
        """Sample actions at observations ``[N, *observation_shape]``."""
        with self._random:
            parameters = self.policy.distribution_parameters(self.policy.as_input(observation))
            action = self.policy.sample(parameters)
            if self.epsilon > 0:
                at_random = torch.rand(len(action)).to(action.device) < self.epsilon
                uniform = self.policy.uniform(parameters)
                action = torch.where(at_random.reshape(-1, *[1] * (action.dim() - 1)), uniform, action)
        return Decision(as_elements(self.policy.action_space, action.cpu().numpy()))
