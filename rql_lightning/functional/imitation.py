"""Rewards and losses of imitation learning."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional as F

RewardKind = Literal["logit", "gail", "negative"]


def imitation_reward(logit: Tensor, kind: RewardKind) -> Tensor:
    r"""Return the reward of a discriminator D = sigmoid(logit), the probability that a step was demonstrated.

    A step like the demonstrated ones has a large D and a large logit, and each kind of reward increases with it. With
    the optimal discriminator, logit = log ρ_E − log ρ_π for the occupancies ρ of expert and policy. The kinds are

    - ``logit``: log D − log(1 − D) = logit, of either sign (as adversarial inverse RL, Fu et al. 2018);
    - ``gail``: −log(1 − D) = softplus(logit) ≥ 0 (Ho & Ermon 2016 minimise E_π[log(1 − D)] with this D);
    - ``negative``: log D = −softplus(−logit) ≤ 0.

    Args:
        logit: Logits, ``[...]``.
        kind: Kind of the reward.

    Returns:
        ``[...]``.
    """
    if kind == "gail":
        return F.softplus(logit)
    return -F.softplus(-logit) if kind == "negative" else logit


def iq_loss(q_taken: Tensor, value: Tensor, q_target: Tensor, expert: int, chi_squared: float) -> Tensor:
    r"""Return the negated objective of inverse soft Q-learning with the χ² regulariser (Garg et al. 2021).

    The implied reward of a transition is r = Q(s, a) − γ V(s′). The loss is −E_E[r] + E[V(s) − γ V(s′)] +
    E[r²] / (4 α_χ), where E_E is the mean over demonstrated transitions, and E that over all. If all are demonstrated,
    the first two terms are −E_E[Q(s, a) − V(s)] = −α E_E[log π(a|s)], the negated log-likelihood.

    Args:
        q_taken: Q(s, a) of the actions taken, ``[..., B]``, demonstrated transitions first.
        value: V(s), ``[..., B]``.
        q_target: γ V(s′) under the target network, ``[..., B]``, without gradient; 0 at terminal states.
        expert: Number of demonstrated transitions, at most B.
        chi_squared: α_χ > 0.

    Returns:
        Scalar.
    """
    assert q_taken.shape == value.shape == q_target.shape
    reward = q_taken - q_target
    return (value - q_target).mean() - reward[..., :expert].mean() + reward.square().mean() / (4.0 * chi_squared)


def iq_gradient(q_taken: Tensor, q_target: Tensor, expert: int, chi_squared: float) -> tuple[Tensor, float]:
    r"""Return the gradients of :func:`iq_loss`, for one minibatch, with respect to Q(s, a) and to each V(s).

    Of the B transitions, V enters as 1/B Σ V(s), which gives 1/B. Q(s, a) enters through r = Q(s, a) − γ V(s′):
    −1/E for the E demonstrated transitions, and 2 r / (4 α_χ B) = r / (2 α_χ B) for all.

    Returns:
        ``[B]``, and a number.
    """
    share = 1.0 / len(q_taken)
    gradient = (q_taken - q_target) * (share / (2.0 * chi_squared))
    gradient[:expert] -= 1.0 / min(expert, len(q_taken))
    return gradient, share
