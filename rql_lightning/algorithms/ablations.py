"""Three alternative ways to customise a prior (section 5.4, Appendix F), which the paper argues against.

Each is a :class:`~rql_lightning.algorithms.ResidualSAC`, or for discrete actions a
:class:`~rql_lightning.algorithms.ResidualSoftQLearning`, that uses the prior's log-likelihood in a different place.
Networks, data, options and budget are the same, so that a comparison isolates this one difference. The weight of the
prior's log-likelihood (λ in Eq. 15, β in Eq. 18, ω′ in Appendix F.3) is ``omega_prime`` in all of them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import torch
from torch import Tensor

from rql_lightning import functional
from rql_lightning.algorithms.base import Minibatch
from rql_lightning.algorithms.residual_sac import ResidualSAC
from rql_lightning.algorithms.residual_soft_q import ResidualSoftQLearning
from rql_lightning.algorithms.sac import SoftActorCritic
from rql_lightning.algorithms.sac_terms import Coefficients, Sample
from rql_lightning.policies import SoftQPolicy

if TYPE_CHECKING:
    from tensordict import TensorDictBase


class GreedySoftQLearning(ResidualSoftQLearning):
    """Greedy reward decomposition (Eq. 15 to 17) for discrete actions: :class:`GreedyCustomization` without an actor.

    The Q-network learns the soft Q-function of the add-on reward alone under the customised policy (Eq. 16), and the
    policy is that of Eq. 17, λ = ``omega_prime``. Its form is that of Eq. 6 at the temperature α̂ + λ, which its file
    names ``alpha_hat``.
    """

    def make_policy(self, observation_space: gym.Space[Any], action_space: gym.Space[Any], task: str) -> SoftQPolicy:
        """Build the policy of Eq. 17."""
        self.prior.attach(observation_space, action_space)
        spaces, temperature = (observation_space, action_space), self.alpha_hat + self.omega_prime
        return SoftQPolicy(*spaces, self.hidden_sizes, temperature, self.prior, self.omega_prime, task)

    def next_value(self, next_q: Tensor, minibatch: Minibatch) -> Tensor:
        """Return the inner expectation of Eq. 16 at s′, ``[...]``."""
        return functional.greedy_value(next_q, minibatch.next_prior_parameters, self.omega_prime, self.alpha_hat)


class GreedyCustomization(ResidualSAC):
    """Greedy reward decomposition (Eq. 15 to 17): the prior shapes the policy, but not the critics' targets.

    The critics learn the soft Q-function of the add-on reward alone under the customised policy (Eq. 16), and the actor
    is regularised towards the prior by −λ KL(π̃ ‖ π) at every state (Eq. 15), λ = ``omega_prime``, so that at the
    optimum π̃ ∝ exp((Q̃ + λ log π) / (α̂ + λ)) (Eq. 17). This treats ω Q* + Q̃ as the optimal Q-function of the sum of
    both rewards: the cost of an action to the basic task is estimated as if the *prior* acted from then on, rather than
    the customised policy. The result is optimal if the future does not depend on the action (or if γ = 0).
    """

    def next_value(self, minibatch: Minibatch, next_q: Tensor, sample: Sample, alpha_hat: Tensor) -> Tensor:
        """Return a sample of the inner expectation of Eq. 16, ``[B]``."""
        return functional.actor_critic_value(next_q, sample.log_prob, alpha_hat)

    def actor_loss(self, minibatch: Minibatch, q: Tensor, sample: Sample, alpha_hat: Tensor) -> Tensor:
        """Return the negated objective of Eq. 15, the mean of α̂ log π̃ − Q̃ + λ (log π̃ − log π); scalar."""
        weighted = self.weighted_prior(minibatch.prior_parameters, sample.pre_tanh)
        return functional.actor_loss(sample.log_prob, q, alpha_hat + self.omega_prime_now, weighted)

    def coefficients(self, alpha_hat: Tensor) -> Coefficients:
        """Return those of Eq. 16 and 15."""
        weight = self.omega_prime_now
        return Coefficients(alpha_hat + weight, target_prior=0.0, actor_prior=weight)


class PriorLikelihoodSAC(ResidualSAC):
    """Plain soft actor-critic on the reward r_R + ω′ log π(a|s) (Appendix F.3).

    In theory this equals residual Q-learning: with Q = Q_R + ω′ log π both have the same optimal policy. In practice
    the critics have to learn the log-likelihood, which is already known and can span hundreds of nats next to an add-on
    reward of a few units, and the actor exploits their errors.
    """

    @torch.no_grad()
    def reward(self, batch: TensorDictBase, minibatch: Minibatch) -> Tensor:
        """Return r_R + ω′ log π(a|s) of the actions taken, ``[K, B]``."""
        assert minibatch.pre_tanh is not None
        return minibatch.reward + self.weighted_prior(minibatch.prior_parameters, minibatch.pre_tanh)

    next_value = SoftActorCritic.next_value  # the prior is part of the reward, and of what the critics learn
    actor_loss = SoftActorCritic.actor_loss
    coefficients = SoftActorCritic.coefficients


class KLRewardSAC(PriorLikelihoodSAC):
    """Plain soft actor-critic on the reward r_R − β log(π̃(a|s) / π(a|s)), β = ``omega_prime`` (Eq. 18).

    The expected penalty under π̃ is β KL(π̃ ‖ π), so in theory the optimum is that of residual Q-learning with ω′ = β and
    temperature α̂ + β. In practice the reward changes with the policy, and for actions in the replay buffer, which
    earlier policies took, log π̃ is far from its expectation under the current policy.
    """

    def losses(
        self, minibatch: Minibatch, noise: Tensor, next_noise: Tensor
    ) -> tuple[dict[str, Tensor], Sample, dict[str, Tensor]]:
        """Compute the losses on the reward of Eq. 18 for the actions that were taken and the current policy.

        The prior's part of the reward is recomputed for K minibatches at once (:meth:`reward`). The policy's part is
        not, because the policy changes with each update: a lag of K updates makes training collapse.
        """
        assert minibatch.pre_tanh is not None
        with torch.no_grad():
            location, log_scale = self.policy.location_and_log_scale(minibatch.observation)
            log_prob = functional.squashed_gaussian_log_prob(minibatch.pre_tanh, location, log_scale)
            # Without the bound, an action that the current policy would never take would have a huge reward.
            reward = minibatch.reward - self.omega_prime_now * self.guard.bounded(log_prob)
        return super().losses(replace(minibatch, reward=reward), noise, next_noise)
