"""Eq. 9 and 10: actor-critics over continuous actions.

Actions are a = tanh(u) in [−1, 1]^A, and the log-densities of π and π̂ are those of a, computed from the *pre-tanh*
action u: this avoids atanh near the bounds and gives the same Jacobian term in both.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from rql_lightning.functional.discrete import Weight


def squash_log_det(pre_tanh: Tensor) -> Tensor:
    r"""Return log |det ∂a/∂u| = Σ log(1 − tanh² u) of a = tanh(u), without overflow or cancellation for any finite u.

    It is computed as 2 A log 2 − 2 Σ (u + log(1 + e^(−2u))).

    Args:
        pre_tanh: Pre-tanh actions u, ``[..., A]``.

    Returns:
        ``[...]``.
    """
    return torch.rsub(_log_two_cosh(pre_tanh).sum(dim=-1), 2.0 * math.log(2.0) * pre_tanh.shape[-1], alpha=2)


def _log_two_cosh(pre_tanh: Tensor) -> Tensor:
    """Return log(2 cosh u) = u + log(1 + e^(−2u)), ``[..., A]``; softplus with β = −2 is −½ log(1 + e^(−2u))."""
    return torch.sub(pre_tanh, F.softplus(pre_tanh, beta=-2.0, threshold=40.0), alpha=2.0)


class Squashed(NamedTuple):
    """Actions a = tanh(u), with what their log-densities are computed from.

    Attributes:
        pre_tanh: u, ``[..., A]``.
        action: a, ``[..., A]``.
        log_two_cosh: log(2 cosh u) = log 2 − ½ log(1 − a²), ``[..., A]``.
    """

    pre_tanh: Tensor
    action: Tensor
    log_two_cosh: Tensor


def squash(pre_tanh: Tensor) -> Squashed:
    """Return the actions of pre-tanh actions u, ``[..., A]``."""
    return Squashed(pre_tanh, torch.tanh(pre_tanh), _log_two_cosh(pre_tanh))


def squashed_gaussian_log_prob(pre_tanh: Tensor, location: Tensor, log_scale: Tensor) -> Tensor:
    r"""Return log π(a|s) = log N(u) − log |det ∂a/∂u| of a = tanh(u), u ~ N(location, exp(log_scale)²).

    Args:
        pre_tanh: Pre-tanh actions u, ``[..., A]``.
        location: Location of u, ``[..., A]``.
        log_scale: Logarithm of the scale of u, ``[..., A]``.

    Returns:
        ``[...]``.
    """
    standardised = (pre_tanh - location) * torch.exp(-log_scale)
    return reparameterised_log_prob(standardised, log_scale, log_two_cosh=_log_two_cosh(pre_tanh))


def reparameterised_log_prob(noise: Tensor, log_scale: Tensor, *, log_two_cosh: Tensor) -> Tensor:
    r"""Return log π̂(a|s) of the sample a = tanh(u), u = location + exp(log_scale) ε, computed from the noise ε.

    Args:
        noise: Standard normal noise ε, ``[..., A]``.
        log_scale: Logarithm of the scale of u, ``[..., A]``.
        log_two_cosh: log(2 cosh u), ``[..., A]`` (:func:`squash`).

    Returns:
        ``[...]``.
    """
    negative = torch.addcmul(log_scale, noise, noise, value=0.5)
    total = torch.sub(negative, log_two_cosh, alpha=2.0).sum(dim=-1)
    return torch.rsub(total, -math.log(4.0 * math.sqrt(2.0 * math.pi)) * noise.shape[-1])


def actor_critic_value(
    next_q: Tensor, next_log_prob: Tensor, alpha_hat: Weight, weighted_prior: Weight = 0.0
) -> Tensor:
    r"""Return Q_R(s′, a′) + ω′ log π(a′|s′) − α̂ log π̂(a′|s′), the bracket of Eq. 9 for one sample a′ ~ π̂(·|s′).

    Args:
        next_q: The smaller of the twin target critics, ``[...]``.
        next_log_prob: log π̂(a′|s′), ``[...]``.
        alpha_hat: α̂.
        weighted_prior: ω′ log π(a′|s′), ``[...]`` (:func:`weighted_log_prob`); 0 gives soft actor-critic's value.

    Returns:
        ``[...]``.
    """
    return next_q + weighted_prior - alpha_hat * next_log_prob


def actor_loss(log_prob: Tensor, q: Tensor, alpha_hat: Weight, weighted_prior: Weight = 0.0) -> Tensor:
    r"""Return the mean of α̂ log π̂(a|s) − Q_R(s, a) − ω′ log π(a|s) over states and reparameterised a ~ π̂ (Eq. 10).

    Args:
        log_prob: log π̂(a|s), ``[...]``.
        q: The smaller of the twin critics at (s, a), ``[...]``.
        alpha_hat: α̂.
        weighted_prior: ω′ log π(a|s), ``[...]`` (:func:`weighted_log_prob`); 0 gives soft actor-critic's loss.

    Returns:
        Scalar.
    """
    return (alpha_hat * log_prob - q - weighted_prior).mean()


def squashed_gaussian_log_prob_and_gradient(
    squashed: Squashed, location: Tensor, log_scale: Tensor
) -> tuple[Tensor, Tensor]:
    r"""Return :func:`squashed_gaussian_log_prob`, ``[...]``, and its gradient with respect to u, ``[..., A]``.

    The gradient of log N(u) is −(u − location) / scale². The Jacobian term is −Σ log(1 − tanh² u), and
    ∂/∂u log(1 − tanh² u) = −2 tanh u, so that it adds 2 tanh u.

    Args:
        squashed: Actions, ``[..., A]`` (:func:`squash`).
        location: Location of u, ``[..., A]``.
        log_scale: Logarithm of the scale of u, ``[..., A]``.
    """
    inverse_scale = torch.exp(-log_scale)
    standardised = (squashed.pre_tanh - location) * inverse_scale
    gradient = torch.addcmul(squashed.action + squashed.action, standardised, inverse_scale, value=-1.0)
    return reparameterised_log_prob(standardised, log_scale, log_two_cosh=squashed.log_two_cosh), gradient


def actor_gradient(
    noise: Tensor,
    action: Tensor,
    scale: Tensor,
    q_gradient: Tensor,
    alpha_hat: Tensor,
    prior_gradient: Tensor | None = None,
    omega_prime: Weight = 0.0,
) -> tuple[Tensor, Tensor]:
    r"""Return the gradients of :func:`actor_loss`, over n states, with respect to location and log-scale of u.

    The loss is 1/n Σ α̂ log π̂ − Q_R(s, a) − ω′ log π(a|s), with u = location + scale · ε and a = tanh u, and
    log π̂ = −½ ε² − log-scale − ½ log 2π − log(1 − a²), in which ε is fixed. Hence ∂ log π̂/∂u = 2 a, and

    - g = ∂ loss/∂u = 2 α̂ a / n − (1 − a²) ∂Q_R/∂a / n − ω′ ∂ log π/∂u / n, which is that with respect to the location;
    - ∂ loss/∂ log-scale = g · scale · ε − α̂ / n, since ∂u/∂ log-scale = scale · ε.

    Args:
        noise: ε, ``[n, A]``.
        action: a, ``[n, A]``.
        scale: Scale of u, ``[n, A]``.
        q_gradient: −1/n ∂Q_R/∂a of the smaller of the twin critics, ``[n, A]``.
        alpha_hat: α̂, a scalar or ``[n]``.
        prior_gradient: ∂ log π(a|s)/∂u, ``[n, A]``; unused, and may be ``None``, if ω′ is the number 0.
        omega_prime: ω′, a number, a scalar or ``[n]``.

    Returns:
        Two tensors ``[n, A]``.
    """
    share, per_action = 1.0 / len(action), alpha_hat.unsqueeze(-1)
    location = torch.ops.aten.tanh_backward(q_gradient, action)
    location = torch.addcmul(location, action, per_action, value=2.0 * share)
    if isinstance(omega_prime, Tensor):
        assert prior_gradient is not None, "prior_gradient: [n, A]"
        weight = omega_prime.unsqueeze(-1)
        weighted = weight * torch.where(weight == 0, 0.0, prior_gradient)
        location = torch.add(location, weighted, alpha=-share)
    elif omega_prime != 0:
        assert prior_gradient is not None, "prior_gradient: [n, A]"
        location = torch.add(location, prior_gradient, alpha=-omega_prime * share)
    return location, torch.addcmul(per_action * -share, location, scale * noise)


def minimum_gradient(q: Tensor, smaller: Tensor) -> Tensor:
    r"""Return the gradient of −1/n Σ min(q_1, q_2): −1/n for the smaller of the twins, half of it for two equal ones.

    Args:
        q: Both Q-values, ``[2, n]``.
        smaller: Their minimum, ``[n]``.

    Returns:
        ``[2, n]``.
    """
    attained = q == smaller
    return attained / (attained.sum(dim=0, dtype=q.dtype) * -q.shape[-1])


def temperature_loss(log_alpha: Tensor, log_prob: Tensor, target_entropy: float) -> Tensor:
    r"""Return the temperature loss −log α̂ · mean(log π̂(a|s) + target entropy) (Haarnoja et al. 2018, section 5).

    Args:
        log_alpha: log α̂, scalar.
        log_prob: log π̂(a|s), ``[...]``.
        target_entropy: Target entropy in nats, for actions in [−1, 1].

    Returns:
        Scalar.
    """
    return -log_alpha * (log_prob.detach() + target_entropy).mean()


def temperature_gradient(log_prob: Tensor, target_entropy: float) -> Tensor:
    r"""Return the derivative of :func:`temperature_loss` with respect to log α̂: −mean(log π̂ + target entropy)."""
    return -(log_prob.mean() + target_entropy)
