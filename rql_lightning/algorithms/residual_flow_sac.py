"""Residual soft actor-critic whose actor is a neural spline flow, for policies with several modes."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
from torch import Tensor

from rql_lightning import functional
from rql_lightning.algorithms.residual_sac import ResidualSAC
from rql_lightning.algorithms.sac_terms import Sample
from rql_lightning.policies import NetworkPolicy


class ResidualFlowSAC(ResidualSAC):
    """Customise a frozen prior as ResidualSAC does, with a neural spline flow as the actor (extra flows).

    The distribution of ResidualSAC's actor has one mode, and settles on one of those of a prior with several. A flow
    can have them all; start_at_prior lets it begin with those of a flow that BehaviorCloning has fitted.

    Args:
        prior: Frozen policy to customise.
        **settings: Arguments of ResidualSAC; start_at_prior requires a prior with family flow, and equal hidden_sizes
            and goal_scales.
    """

    policy: Any

    def make_policy(self, observation_space: gym.Space[Any], action_space: gym.Space[Any], task: str) -> Any:
        """Build the actor."""
        plain = super().make_policy(observation_space, action_space, task)
        spaces = (observation_space, action_space)
        return NetworkPolicy(*spaces, self.hidden_sizes, "flow", encoder=plain.encoder, prior=self.prior, task=task)

    def actor_parameters(self) -> list[Tensor]:
        """Return the weights of the network and of the splines, without those of the prior."""
        return [*super().actor_parameters(), *self.policy.flow.parameters()]

    def sample(self, observation: Tensor, noise: Tensor) -> Sample:
        """Sample a ~ π̂(·|s) at encoded observations ``[B, D]``, reparameterised by standard normal noise ``[B, A]``."""
        family, parameters = self.policy.family, self.policy.parameters_of(observation)
        pre_tanh = family.from_noise(parameters, noise)
        return Sample(functional.squash(pre_tanh), family.pre_tanh_log_prob(parameters, pre_tanh))
