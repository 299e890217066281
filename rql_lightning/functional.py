"""Every equation of *Residual Q-Learning* (NeurIPS 2023) that has been built, one pure function each.

All functions take tensors whose leading dimensions ``...`` are any batch shape. Actions are discrete: the last
dimension of ``q_residual`` and ``prior_log_prob`` runs over the ``A`` actions. ``omega_prime`` is ω′ = ωα,
``alpha_hat`` is α̂. A soft Q-function without a prior (Haarnoja et al. 2017) is the case ω′ = 0.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def combine_with_prior(q_residual: Tensor, prior_log_prob: Tensor | None, omega_prime: float) -> Tensor:
    r"""Q_R(s, a) + ω′ log π(a|s): what the customised policy is greedy in (exponent of Eq. 6, times α̂).

    Args:
        q_residual: Residual Q-values, ``[..., A]``.
        prior_log_prob: log π(a|s), ``[..., A]``; −∞ for actions that the prior never takes. Unused at ω′ = 0, where
            the prior is forgotten (so 0 · −∞ counts as 0).
        omega_prime: ω′ ≥ 0.

    Returns:
        ``[..., A]``.
    """
    if omega_prime == 0:
        return q_residual
    assert prior_log_prob is not None and prior_log_prob.shape == q_residual.shape, "prior_log_prob: [..., A]"
    return q_residual + omega_prime * prior_log_prob


def policy_log_prob(q_residual: Tensor, prior_log_prob: Tensor | None, omega_prime: float, alpha_hat: float) -> Tensor:
    r"""Eq. 6: log π̂(a|s) = log softmax_a ((Q_R(s, a) + ω′ log π(a|s)) / α̂).

    Args:
        q_residual: ``[..., A]``.
        prior_log_prob: ``[..., A]`` (see :func:`combine_with_prior`).
        omega_prime: ω′.
        alpha_hat: Temperature α̂ > 0 of the customised policy.

    Returns:
        Normalised log-probabilities, ``[..., A]``.
    """
    return torch.log_softmax(combine_with_prior(q_residual, prior_log_prob, omega_prime) / alpha_hat, dim=-1)


def residual_value(q_residual: Tensor, prior_log_prob: Tensor | None, omega_prime: float, alpha_hat: float) -> Tensor:
    r"""V_R(s) = α̂ log Σ_a exp((Q_R(s, a) + ω′ log π(a|s)) / α̂): the bracket of Eq. 5e and Eq. 8.

    Returns:
        ``[...]`` for inputs of shape ``[..., A]``.
    """
    combined = combine_with_prior(q_residual, prior_log_prob, omega_prime)
    return alpha_hat * torch.logsumexp(combined / alpha_hat, dim=-1)


def residual_backup(add_on_reward: Tensor, transition: Tensor, v_residual: Tensor, gamma: float) -> Tensor:
    r"""Eq. 5e on a finite MDP: Q_R(s, a) = r_R(s, a) + γ Σ_s′ p(s′|s, a) V_R(s′).

    Args:
        add_on_reward: ``[S, A]``.
        transition: p(s′|s, a), ``[S, A, S]``.
        v_residual: ``[S]``, 0 at terminal states.
        gamma: Discount γ.

    Returns:
        ``[S, A]``.
    """
    assert add_on_reward.dim() == 2, "add_on_reward: [S, A]"
    states, actions = add_on_reward.shape
    assert transition.shape == (states, actions, states) and v_residual.shape == (states,)
    return add_on_reward + gamma * transition @ v_residual


def residual_target(add_on_reward: Tensor, terminated: Tensor, next_v_residual: Tensor, gamma: float) -> Tensor:
    r"""Eq. 8: the target r_R + γ V_R(s′), with V_R = 0 where the episode *terminated* (never where it was truncated).

    Args:
        add_on_reward: r_R of the transition, ``[...]``.
        terminated: bool ``[...]``.
        next_v_residual: V_R(s′) under the target network, ``[...]`` (:func:`residual_value`).
        gamma: Discount γ.

    Returns:
        ``[...]``.
    """
    assert add_on_reward.shape == terminated.shape == next_v_residual.shape, "one entry a transition each"
    return torch.where(terminated, add_on_reward, add_on_reward + gamma * next_v_residual)


def td_loss(q_taken: Tensor, q_target: Tensor, huber_delta: float | None = None) -> Tensor:
    r"""Eq. 7: mean of ½ (Q^target − Q_R(s, a))², or of the Huber function that equals it for |error| ≤ δ.

    Args:
        q_taken: Q_R(s, a) of the actions taken, ``[...]``.
        q_target: Targets, ``[...]``, without gradient.
        huber_delta: δ > 0, or ``None`` for the square.

    Returns:
        Scalar.
    """
    assert q_taken.shape == q_target.shape
    if huber_delta is None:
        return 0.5 * F.mse_loss(q_taken, q_target)
    return F.huber_loss(q_taken, q_target, delta=huber_delta)
