"""Eq. 5e to 8, 16 and 17: soft Q-functions over discrete actions, their policies, targets and losses.

The last dimension of ``q_residual`` and ``prior_log_prob`` runs over the ``A`` actions.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

Weight = Tensor | float
"""A number, or a tensor that broadcasts over the batch ``...``."""


def _per_action(weight: Weight) -> Weight:
    """Reshape a weight per state ``[...]`` to broadcast over actions, ``[..., 1]``."""
    return weight.unsqueeze(-1) if isinstance(weight, Tensor) else weight


def weighted_log_prob(prior_log_prob: Tensor | None, omega_prime: Weight) -> Tensor | float:
    r"""Return ω′ log π with 0 · −∞ = 0, so that at ω′ = 0 the prior has no effect, even on actions that it excludes.

    Args:
        prior_log_prob: log π, ``[...]``; unused, and may be ``None``, if ω′ is the number 0.
        omega_prime: ω′ ≥ 0, a number or a tensor that broadcasts with ``prior_log_prob``.

    Returns:
        Weighted log-likelihood, ``[...]``, or 0.0 if ω′ is the number 0.
    """
    if isinstance(omega_prime, Tensor):
        assert prior_log_prob is not None, "prior_log_prob: [...]"
        return omega_prime * torch.where(omega_prime == 0, 0.0, prior_log_prob)
    if omega_prime == 0:
        return 0.0
    assert prior_log_prob is not None, "prior_log_prob: [...]"
    return omega_prime * prior_log_prob


def combine_with_prior(q_residual: Tensor, prior_log_prob: Tensor | None, omega_prime: Weight) -> Tensor:
    r"""Return Q_R(s, a) + ω′ log π(a|s), which the customised policy's most probable action maximises (Eq. 6).

    Args:
        q_residual: Residual Q-values, ``[..., A]``.
        prior_log_prob: log π(a|s), ``[..., A]``; −∞ for actions that the prior never takes
            (see :func:`weighted_log_prob`).
        omega_prime: ω′ ≥ 0, a number or ``[...]``.

    Returns:
        ``[..., A]``.
    """
    assert prior_log_prob is None or prior_log_prob.shape == q_residual.shape, "prior_log_prob: [..., A]"
    return q_residual + weighted_log_prob(prior_log_prob, _per_action(omega_prime))


def policy_log_prob(
    q_residual: Tensor, prior_log_prob: Tensor | None, omega_prime: Weight, alpha_hat: Weight
) -> Tensor:
    r"""Return log π̂(a|s) = log softmax_a ((Q_R(s, a) + ω′ log π(a|s)) / α̂) (Eq. 6).

    Args:
        q_residual: Residual Q-values, ``[..., A]``.
        prior_log_prob: log π(a|s), ``[..., A]`` (see :func:`combine_with_prior`).
        omega_prime: ω′, a number or ``[...]``.
        alpha_hat: Temperature α̂ > 0 of the customised policy, a number or ``[...]``.

    Returns:
        Normalised log-probabilities, ``[..., A]``.
    """
    combined = combine_with_prior(q_residual, prior_log_prob, omega_prime)
    return torch.log_softmax(combined / _per_action(alpha_hat), dim=-1)


def residual_value(q_residual: Tensor, prior_log_prob: Tensor | None, omega_prime: Weight, alpha_hat: Weight) -> Tensor:
    r"""Return V_R(s) = α̂ log Σ_a exp((Q_R(s, a) + ω′ log π(a|s)) / α̂), the bracket of Eq. 5e and Eq. 8.

    Returns:
        ``[...]`` for inputs of shape ``[..., A]``.
    """
    combined = combine_with_prior(q_residual, prior_log_prob, omega_prime)
    return alpha_hat * torch.logsumexp(combined / _per_action(alpha_hat), dim=-1)


def residual_backup(add_on_reward: Tensor, transition: Tensor, v_residual: Tensor, gamma: float) -> Tensor:
    r"""Return Q_R(s, a) = r_R(s, a) + γ Σ_s′ p(s′|s, a) V_R(s′) on a finite MDP (Eq. 5e).

    Args:
        add_on_reward: r_R(s, a), ``[S, A]``.
        transition: p(s′|s, a), ``[S, A, S]``.
        v_residual: V_R(s), ``[S]``; must be 0 at terminal states.
        gamma: Discount γ.

    Returns:
        ``[S, A]``.
    """
    assert add_on_reward.dim() == 2, "add_on_reward: [S, A]"
    states, actions = add_on_reward.shape
    assert transition.shape == (states, actions, states) and v_residual.shape == (states,)
    return add_on_reward + gamma * transition @ v_residual


def residual_target(add_on_reward: Tensor, terminated: Tensor, next_v_residual: Tensor, gamma: float) -> Tensor:
    r"""Return the target r_R + γ V_R(s′) (Eq. 8), with V_R(s′) = 0 if the episode *terminated* (but not if truncated).

    Args:
        add_on_reward: r_R of the transition, ``[...]``.
        terminated: Whether the episode terminated, bool ``[...]``.
        next_v_residual: V_R(s′) under the target network, ``[...]`` (:func:`residual_value`).
        gamma: Discount γ.

    Returns:
        ``[...]``.
    """
    assert add_on_reward.shape == terminated.shape == next_v_residual.shape, "one entry per transition each"
    return torch.where(terminated, add_on_reward, add_on_reward + gamma * next_v_residual)


def td_loss(q_taken: Tensor, q_target: Tensor, huber_delta: float | None = None) -> Tensor:
    r"""Return the mean of ½ (Q^target − Q_R(s, a))² (Eq. 7), or of the Huber loss that equals it for |error| ≤ δ.

    Args:
        q_taken: Q_R(s, a) of the actions taken, ``[...]``.
        q_target: Targets, ``[...]``, without gradient.
        huber_delta: δ > 0, or ``None`` for the squared error.

    Returns:
        Scalar.
    """
    assert q_taken.shape == q_target.shape
    if huber_delta is None:
        return 0.5 * F.mse_loss(q_taken, q_target)
    return F.huber_loss(q_taken, q_target, delta=huber_delta)


def td_slope(q: Tensor, q_target: Tensor, huber_delta: float | None = None) -> Tensor:
    r"""Return the derivative of each term of :func:`td_loss`, whose mean that is, with respect to its Q-value.

    ∂/∂q of ½ (q − t)² is q − t. Huber's loss has the slope ±δ beyond |q − t| = δ, so that the error is clipped to
    [−δ, δ].

    Args:
        q: Q-values, ``[...]``.
        q_target: Targets, which broadcast with ``q``.
        huber_delta: δ > 0, or ``None`` for the squared error.

    Returns:
        ``[...]``.
    """
    error = q - q_target
    return error if huber_delta is None else error.clamp_(-huber_delta, huber_delta)


def residual_value_gradient(
    q_residual: Tensor, prior_log_prob: Tensor | None, omega_prime: Weight, alpha_hat: Weight
) -> Tensor:
    r"""Return the gradient of :func:`residual_value` with respect to Q_R(s, ·), which is π̂(·|s) of Eq. 6.

    With z_a = (Q_R(s, a) + ω′ log π(a|s)) / α̂, ∂/∂Q_R(s, a) of α̂ log Σ_b exp(z_b) is exp(z_a) / Σ_b exp(z_b): the
    factor α̂ cancels the 1 / α̂ of z.

    Returns:
        ``[..., A]``.
    """
    combined = combine_with_prior(q_residual, prior_log_prob, omega_prime)
    return torch.softmax(combined / _per_action(alpha_hat), dim=-1)


def greedy_policy_log_prob(q: Tensor, prior_log_prob: Tensor | None, kl_weight: Weight, alpha_hat: Weight) -> Tensor:
    r"""Return log π̃(a|s) = log softmax_a ((Q̃_R(s, a) + λ log π(a|s)) / (α̂ + λ)) (Eq. 17), the solution of Eq. 15.

    Args:
        q: Q̃_R, the soft Q-function of the add-on reward alone, ``[..., A]``.
        prior_log_prob: log π(a|s), ``[..., A]`` (see :func:`combine_with_prior`).
        kl_weight: λ ≥ 0, a number or ``[...]``.
        alpha_hat: α̂ > 0, a number or ``[...]``.

    Returns:
        Normalised log-probabilities, ``[..., A]``.
    """
    return policy_log_prob(q, prior_log_prob, kl_weight, alpha_hat + kl_weight)


def greedy_value(q: Tensor, prior_log_prob: Tensor | None, kl_weight: Weight, alpha_hat: Weight) -> Tensor:
    r"""Return Σ_a π̃(a|s) (Q̃_R(s, a) − α̂ log π̃(a|s)), the inner expectation of Eq. 16, exactly.

    π̃ is that of Eq. 17, which maximises Eq. 15 and not this expectation, so that no log Σ exp of Q̃_R equals it, unlike
    :func:`residual_value`: the divergence from the prior shapes π̃, but is no part of the value.

    Args:
        q: Q̃_R, the soft Q-function of the add-on reward alone, ``[..., A]``.
        prior_log_prob: log π(a|s), ``[..., A]`` (see :func:`combine_with_prior`).
        kl_weight: λ ≥ 0, a number or ``[...]``.
        alpha_hat: α̂ > 0, a number or ``[...]``.

    Returns:
        ``[...]``; finite where π̃ excludes actions, as 0 log 0 = 0.
    """
    policy = greedy_policy_log_prob(q, prior_log_prob, kl_weight, alpha_hat).exp()
    return (policy * q).sum(dim=-1) + alpha_hat * torch.special.entr(policy).sum(dim=-1)
