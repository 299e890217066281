"""Inverse soft Q-learning (IQ-Learn, Garg et al. 2021): a soft Q-function from demonstrations.

Each class is a learner with another loss of its critic: a prior learnt in this way is the one that residual Q-learning
assumes, soft-optimal for some reward at a known temperature.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rql_lightning import functional
from rql_lightning.algorithms.base import Minibatch
from rql_lightning.algorithms.hyperparameters import check_hyperparameters
from rql_lightning.algorithms.imitation import Imitates
from rql_lightning.algorithms.sac import SoftActorCritic
from rql_lightning.algorithms.sac_terms import Sample
from rql_lightning.algorithms.soft_q import SoftQLearning
from rql_lightning.errors import require

if TYPE_CHECKING:
    from tensordict import TensorDictBase


class InverseLearner(Imitates):
    """The part of inverse soft Q-learning that does not depend on the kind of actions.

    V(s′) in targets comes from the target network, without gradient. From demonstrations alone, the fixed point then is
    π = π_E · (1 − r / (2 α_χ)), with the implied reward r = α log π + V(s) − γ E[V(s′)]: the expert's policy π_E, less
    certain. V is the discounted sum of −α log π along the demonstrations.

    Args:
        chi_squared: Inverse weight of the regulariser: implied rewards stay near +-2 * chi_squared, or twice that
            beside collected frames. With demonstrations alone, the policy is less certain than the expert by a factor
            of about 1 - alpha / (2 * chi_squared) in its log-probabilities.
        bound_values: Whether values in targets are kept within the range that such rewards and the entropy allow.
        **settings: Arguments of the learner.
    """

    gamma: float

    def __init__(self, chi_squared: float = 0.5, bound_values: bool = False, **settings: Any) -> None:
        check_hyperparameters(locals())
        super().__init__(**settings)
        self.chi_squared, self.bound_values = chi_squared, bound_values
        expected = "a number below 1 with model.bound_values true"
        require(not bound_values or self.gamma < 1, "model.gamma", self.gamma, expected)

    @property
    def entropy_range(self) -> tuple[float | None, float]:
        """Smallest and largest entropy of the policy in a state, times α; ``None`` without a smallest one."""
        raise NotImplementedError

    def minibatches(self, batch: TensorDictBase) -> Minibatch:
        """Return K minibatches of demonstrated transitions, followed by collected ones if there are any.

        Args:
            batch: Demonstrations ``[K, B]``, or collected transitions ``[K, B]`` with demonstrations under a key.

        Returns:
            ``[K, B]``, or ``[K, 2 B]`` with the demonstrations first.
        """
        demonstrations = batch.get("demonstrations", None)
        self._demonstrated = batch.shape[1]
        if demonstrations is None:
            return super().minibatches(self.with_unit_actions(batch))
        collected = batch.exclude("demonstrations")
        expert = self.with_unit_actions(demonstrations).select(*collected.keys(True, True), strict=False)
        return super().minibatches(torch.cat([expert, collected.select(*expert.keys(True, True))], dim=1))

    def inverse_loss(self, q_taken: Tensor, value: Tensor, q_target: Tensor) -> Tensor:
        """Return the loss of a minibatch ``[..., B]``, demonstrations first, scalar (:func:`functional.iq_loss`)."""
        return functional.iq_loss(q_taken, value, self.bounded(q_target), self._demonstrated, self.chi_squared)

    def bounded(self, q_target: Tensor) -> Tensor:
        """Return targets ``[..., B]`` within the range that rewards and the entropy allow, with ``bound_values``."""
        if not self.bound_values:
            return q_target
        # As LS-IQ (Al-Hafez et al. 2023), and a soft value contains entropy besides rewards.
        shares = q_target.shape[-1] / self._demonstrated  # 2 with collected transitions, which double the range
        horizon, reward = self.gamma / (1.0 - self.gamma), 2.0 * shares * self.chi_squared
        least, most = self.entropy_range
        return q_target.clamp(None if least is None else horizon * (least - reward), horizon * (most + reward))


class IQLearn(InverseLearner, SoftQLearning):
    """Learn a soft Q-function from demonstrations with discrete actions, without a reward.

    With DemonstrationDataModule it learns from the demonstrations alone; with DemonstrationReplayDataModule also from
    the states that the policy visits.

    Args:
        **settings: Arguments of InverseLearner, and of SoftQLearning except huber_delta.
    """

    closed_form: tuple[tuple[str, ...], ...] = (("loss_gradient", "loss", "inverse_loss", "descend"),)

    def __init__(self, **settings: Any) -> None:
        super().__init__(huber_delta=None, **settings)

    @property
    def entropy_range(self) -> tuple[float, float]:
        """From 0 to that of the uniform policy, times α."""
        return 0.0, self.alpha_hat * math.log(self.policy.family.size)

    def loss(self, q_values: Tensor, q_taken: Tensor, q_target: Tensor, minibatch: Minibatch) -> Tensor:
        """Return the loss of IQ-Learn, scalar; ``q_target`` is γ V(s′), as the rewards are 0."""
        value = functional.residual_value(q_values, None, 0.0, self.alpha_hat)
        return self.inverse_loss(q_taken, value, q_target)

    def loss_gradient(self, q_values: Tensor, q_target: Tensor, taken: Tensor, minibatch: Minibatch) -> Tensor:
        """Return the gradient of :meth:`loss` with respect to the Q-values of all actions, ``[B, A]``."""
        q_taken, target = (q_values * taken).sum(dim=-1), self.bounded(q_target.squeeze(-1))
        of_taken, of_value = functional.iq_gradient(q_taken, target, self._demonstrated, self.chi_squared)
        gradient = of_value * functional.residual_value_gradient(q_values, None, 0.0, self.alpha_hat)
        return gradient.addcmul_(of_taken.unsqueeze(-1), taken)


class IQLearnSAC(InverseLearner, SoftActorCritic):
    """Learn a soft Q-function and a policy from demonstrations with continuous actions, without a reward.

    With DemonstrationDataModule it learns from the demonstrations alone; with DemonstrationReplayDataModule also from
    the states that the policy visits.

    Args:
        alpha: Temperature, a number: learning it too is unstable.
        **settings: Arguments of InverseLearner, and of SoftActorCritic except normalize_observations.
    """

    alpha: float

    def __init__(self, alpha: float = 0.1, **settings: Any) -> None:
        expected = "a number: a learnt temperature is unstable without a reward"
        require(not isinstance(alpha, str), "model.alpha", alpha, expected)
        # Statistics are of collected frames, and demonstrations are none.
        super().__init__(alpha=alpha, normalize_observations=False, **settings)

    @property
    def entropy_range(self) -> tuple[None, float]:
        """From no smallest entropy to that of the uniform policy on [−1, 1]^A, times α."""
        return None, self.alpha * self.policy.bounds.size * math.log(2.0)

    def critic_loss(self, minibatch: Minibatch, q_target: Tensor, sample: Sample) -> tuple[Tensor, Tensor]:
        """Return the loss of IQ-Learn, the sum of both critics', and their Q-values ``[2, B]``."""
        q_taken = self.critic(minibatch.observation, minibatch.action)
        q_policy = self.critic(minibatch.observation, sample.action.detach())
        value = q_policy - self.log_alpha.exp() * sample.log_prob.detach()
        return 2.0 * self.inverse_loss(q_taken, value, q_target.expand_as(q_taken)), q_taken
