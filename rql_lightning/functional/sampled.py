"""Eq. 6 and 8 at ω′ = α̂ from samples of the prior alone, for priors whose log-likelihood is unknown.

With ω′ = α̂ the sum of Eq. 8 is an expectation over the prior: V_R(s) = α̂ log E_{a ~ π}[exp(Q_R(s, a) / α̂)], and the
policy of Eq. 6 is π(a|s) exp(Q_R(s, a) / α̂), normalised. K samples of the prior estimate both. For any other ω′ the
factor π(a|s)^(ω′ − α̂) / α̂ would be needed.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rql_lightning.functional.discrete import Weight, _per_action


def sampled_value(q_residual: Tensor, alpha_hat: Weight) -> Tensor:
    r"""Return α̂ log (1/K Σ_k exp(Q_R(s, a_k) / α̂)), an estimate of V_R(s) (Eq. 8 at ω′ = α̂) from a_k ~ π(·|s).

    Its expectation is V_R(s) − α̂ χ² / (2 K) + O(1 / K²), where χ² = E_π[(π̂/π)²] − 1 is the divergence of the policy
    from the prior: too small, as the logarithm is concave.

    Args:
        q_residual: Q_R(s, a_k) of K independent samples of the prior, ``[..., K]``.
        alpha_hat: α̂, a number or ``[...]``.

    Returns:
        ``[...]``.
    """
    scaled = q_residual / _per_action(alpha_hat)
    return alpha_hat * (torch.logsumexp(scaled, dim=-1) - math.log(q_residual.shape[-1]))


def resampling_log_weights(q_residual: Tensor, alpha_hat: Weight) -> Tensor:
    r"""Return log softmax_k (Q_R(s, a_k) / α̂): one of the samples a_k ~ π drawn by these weights is a sample of Eq. 6.

    The law of the action that is drawn differs from Eq. 6 by O(1 / K).

    Args:
        q_residual: Q_R(s, a_k) of K independent samples of the prior, ``[..., K]``.
        alpha_hat: α̂, a number or ``[...]``.

    Returns:
        Normalised log-weights, ``[..., K]``.
    """
    return torch.log_softmax(q_residual / _per_action(alpha_hat), dim=-1)


def sampled_divergence(log_weights: Tensor) -> Tensor:
    r"""Return Σ_k w_k log(K w_k), an estimate of KL(π̂ ‖ π) from the weights of K samples of the prior.

    It is at most log K, whatever the divergence is.

    Args:
        log_weights: Normalised log-weights, ``[..., K]`` (:func:`resampling_log_weights`).

    Returns:
        Nats, ``[...]``.
    """
    weights = log_weights.exp()
    return math.log(log_weights.shape[-1]) - torch.special.entr(weights).sum(dim=-1)


def empirical_log_prob(samples: Tensor, actions: int) -> Tensor:
    r"""Return log(n_a / K), where n_a of K samples are the discrete action a; −∞ where none is.

    In its place for log π, :func:`residual_value` at ω′ = α̂ is :func:`sampled_value`, and :func:`policy_log_prob` adds
    up the :func:`resampling_log_weights` of equal samples: the counts say all that the samples do.

    Args:
        samples: Integer actions, ``[..., K]``.
        actions: Number of actions A.

    Returns:
        ``[..., A]``.
    """
    counts = torch.zeros(*samples.shape[:-1], actions, device=samples.device)
    counts.scatter_add_(-1, samples.long(), torch.ones(samples.shape, device=samples.device))
    return (counts / samples.shape[-1]).log()
