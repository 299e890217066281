"""The equations of *Residual Q-Learning* (NeurIPS 2023), each as one pure function.

All functions take tensors with arbitrary leading batch dimensions ``...``. ``omega_prime`` is ω′ = ωα and ``alpha_hat``
is α̂; each is a number, or a tensor that broadcasts over the batch ``...``. A soft Q-function without a prior (Haarnoja
et al. 2017) is the case ω′ = 0.

For discrete actions (Eq. 5e to 8), the last dimension of ``q_residual`` and ``prior_log_prob`` runs over the ``A``
actions. Continuous actions (Eq. 9 and 10) are a = tanh(u) in [−1, 1]^A, and the log-densities of π and π̂ are those of
a, computed from the *pre-tanh* action u: this avoids atanh near the bounds and gives the same Jacobian term in both.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

RewardKind = Literal["logit", "gail", "negative"]

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


# -- continuous actions ----------------------------------------------------------------------------------------------


def squash_log_det(pre_tanh: Tensor) -> Tensor:
    r"""Return log |det ∂a/∂u| = Σ log(1 − tanh² u) of a = tanh(u), without overflow or cancellation for any finite u.

    It is computed as 2 Σ (log 2 − u − log(1 + e^(−2u))).

    Args:
        pre_tanh: Pre-tanh actions u, ``[..., A]``.

    Returns:
        ``[...]``.
    """
    return 2.0 * (math.log(2.0) - pre_tanh - F.softplus(-2.0 * pre_tanh)).sum(dim=-1)


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
    return reparameterised_log_prob(standardised, pre_tanh, log_scale)


def reparameterised_log_prob(noise: Tensor, pre_tanh: Tensor, log_scale: Tensor) -> Tensor:
    r"""Return log π̂(a|s) of the sample a = tanh(u), u = location + exp(log_scale) ε, computed from the noise ε.

    Args:
        noise: Standard normal noise ε, ``[..., A]``.
        pre_tanh: Pre-tanh actions u, ``[..., A]``.
        log_scale: Logarithm of the scale of u, ``[..., A]``.

    Returns:
        ``[...]``.
    """
    gaussian = -0.5 * noise.square() - log_scale - 0.5 * math.log(2.0 * math.pi)
    return gaussian.sum(dim=-1) - squash_log_det(pre_tanh)


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


# -- imitation -------------------------------------------------------------------------------------------------------


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
