"""Three other ways to customise a prior (section 5.4, Appendix F), which the paper argues against.

Each is :class:`~rql_lightning.algorithms.ResidualSAC` with the prior's log-likelihood in another place, so that a
comparison is of that alone: same networks, data, options and budget. Their weight of the prior's log-likelihood, λ in
Eq. 15, β in Eq. 18, ω′ in Appendix F.3, is ``omega_prime`` for all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rql_lightning import functional
from rql_lightning.algorithms.base import Minibatch
from rql_lightning.algorithms.residual_sac import ResidualSAC
from rql_lightning.algorithms.sac import Sample

if TYPE_CHECKING:
    from tensordict import TensorDictBase


class GreedyCustomization(ResidualSAC):
    """Greedy reward decomposition (Eq. 15 to 17): the prior in the policy, but not in what the critics foresee.

    The critics learn the soft Q-function of the add-on reward alone under the customised policy (Eq. 16), and the actor
    is drawn to the prior by −λ KL(π̃ ‖ π) at every state (Eq. 15), λ = ``omega_prime``, so that in the optimum
    π̃ ∝ exp((Q̃ + λ log π) / (α̂ + λ)) (Eq. 17). That takes ω Q* + Q̃ for the optimal Q-function of the sum of both
    rewards: it weighs what an action costs the basic task while the *prior* goes on, and not what it costs once the
    customised policy does. It is optimal where the future does not depend on the action (or γ = 0).
    """

    def next_value(self, minibatch: Minibatch, next_q: Tensor, sample: Sample, alpha_hat: Tensor) -> Tensor:
        """The inner expectation of Eq. 16."""
        return functional.actor_critic_value(next_q, sample.log_prob, alpha_hat)

    def actor_loss(self, minibatch: Minibatch, q: Tensor, sample: Sample, alpha_hat: Tensor) -> Tensor:
        """Eq. 15, negated: α̂ log π̃ − Q̃ + λ (log π̃ − log π)."""
        weighted = self.weighted_prior(minibatch.prior_parameters, sample.pre_tanh)
        return functional.actor_loss(sample.log_prob, q, alpha_hat + self.omega_prime_now, weighted)


class PriorLikelihoodSAC(ResidualSAC):
    """Plain soft actor-critic on the reward r_R + ω′ log π(a|s) (Appendix F.3).

    In theory this is residual Q-learning: with Q = Q_R + ω′ log π both have the same optimal policy. In practice the
    critics have to learn what is known, a log-likelihood of hundreds of nats beside an add-on reward of a few, and what
    they get wrong of it the actor exploits.
    """

    @torch.no_grad()
    def reward(self, batch: TensorDictBase, minibatch: Minibatch) -> Tensor:
        """r_R + ω′ log π(a|s) of the actions that were taken, ``[K, B]``."""
        assert minibatch.pre_tanh is not None
        return minibatch.reward + self.weighted_prior(minibatch.prior_parameters, minibatch.pre_tanh)

    def next_value(self, minibatch: Minibatch, next_q: Tensor, sample: Sample, alpha_hat: Tensor) -> Tensor:
        """Soft actor-critic's: the prior is in the reward."""
        return functional.actor_critic_value(next_q, sample.log_prob, alpha_hat)

    def actor_loss(self, minibatch: Minibatch, q: Tensor, sample: Sample, alpha_hat: Tensor) -> Tensor:
        """Soft actor-critic's: the prior is in the critics."""
        return functional.actor_loss(sample.log_prob, q, alpha_hat)


class KLRewardSAC(PriorLikelihoodSAC):
    """Plain soft actor-critic on the reward r_R − β log(π̃(a|s) / π(a|s)), β = ``omega_prime`` (Eq. 18).

    The penalty's expectation under π̃ is β KL(π̃ ‖ π), so that in theory the optimum is residual Q-learning's at
    ω′ = β and temperature α̂ + β. In practice the reward moves with the policy, and of actions in the replay buffer,
    which an earlier policy took, log π̃ is far off its expectation.
    """

    @torch.no_grad()
    def reward(self, batch: TensorDictBase, minibatch: Minibatch) -> Tensor:
        """Eq. 18 for the actions that were taken and the policy as it is before these K updates, ``[K, B]``."""
        assert minibatch.pre_tanh is not None
        location, log_scale = self.policy.location_and_log_scale(minibatch.observation)
        log_prob = functional.squashed_gaussian_log_prob(minibatch.pre_tanh, location, log_scale)
        # Without the bound an action that the policy would never take now would pay a fortune.
        return super().reward(batch, minibatch) - self.omega_prime_now * self.guard.bounded(log_prob)
