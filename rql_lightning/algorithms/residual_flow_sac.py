"""Residual soft actor-critic whose actor is a neural spline flow, for policies with several modes."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
from torch import Tensor, nn

from rql_lightning import functional
from rql_lightning.algorithms.residual_sac import ResidualSAC
from rql_lightning.algorithms.sac_terms import Sample
from rql_lightning.errors import ConfigurationError
from rql_lightning.policies import Flow, NetworkPolicy


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

    def initialize(self) -> None:
        """Copy the prior's weights to the actor and set Q_R to 0 if ``start_at_prior``; at ω′ = α̂ then π̂ = π.

        Raises:
            ConfigurationError: If the prior is not a flow of the same architecture.
        """
        if not self.start_at_prior:
            return
        prior: Any = getattr(self.prior, "policy", self.prior)
        found, expected = _architecture(prior), _architecture(self.policy)
        if found != expected:
            raise ConfigurationError(
                f"model.start_at_prior: found True, expected a prior with a flow of {expected}, not {found}"
            )
        self.policy.network.load_state_dict(prior.network.state_dict())
        self.policy.flow.load_state_dict(prior.flow.state_dict())
        for parameter in (self.critic.weights[-1], self.critic.biases[-1]):
            nn.init.zeros_(parameter)


def _architecture(policy: Any) -> dict[str, Any]:
    """Return the properties that two flows must share to have interchangeable weights."""
    if not isinstance(policy, NetworkPolicy) or not isinstance(policy.family, Flow):
        family = getattr(policy, "family", None)
        return {"family": type(family).__name__}
    shapes = {"observation": policy.observation_space.shape, "action": policy.action_space.shape}
    sizes = {"hidden_sizes": policy.hidden_sizes, "context": policy.context, "rows": policy.rows}
    return {**shapes, **sizes, "encoder": policy.encoder.describe()}
