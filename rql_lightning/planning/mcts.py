"""Residual maximum-entropy Monte Carlo tree search: its equations as pure functions.

Sources: *Residual Q-Learning* (NeurIPS 2023), Eq. 13 and 14; Xiao et al., *Maximum Entropy Monte-Carlo Planning*, 2019,
for the rate of exploration. Everything here is about one state at a time; ``A`` is its number of actions. Temperatures
are α̂ everywhere, and ``weighted_log_prior`` is ω′ log π(a|s), with 0 · −∞ = 0.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from rql_lightning.compilation import entry_point

# Written as loops over numbers: array expressions take Numba ten times as long to compile.


@njit
def exploration_rate(visits: np.ndarray, epsilon: float) -> float:
    """Return λ_s = ε |A| / log(Σ_a N(s, a) + 1), at most 1, from N ``[A]`` (Xiao et al. 2019)."""
    total = 0
    for count in visits:
        total += count
    if epsilon == 0.0:
        return 0.0
    return 1.0 if total == 0 else min(1.0, epsilon * len(visits) / math.log(total + 1.0))


@entry_point
def boltzmann(q_residual: np.ndarray, weighted_log_prior: np.ndarray, alpha_hat: float) -> np.ndarray:
    """Return π̂ = softmax((Q_R + ω′ log π) / α̂) (Eq. 6), ``[A]``; ω′ log π may be −∞, but not everywhere."""
    result, highest, total = np.empty(len(q_residual)), -math.inf, 0.0
    for a in range(len(result)):
        result[a] = q_residual[a] + weighted_log_prior[a]
        highest = max(highest, result[a])
    for a in range(len(result)):
        result[a] = math.exp((result[a] - highest) / alpha_hat)
        total += result[a]
    for a in range(len(result)):
        result[a] /= total
    return result


@njit
def tree_policy(
    q_residual: np.ndarray, weighted_log_prior: np.ndarray, visits: np.ndarray, alpha_hat: float, epsilon: float
) -> np.ndarray:
    """Return (1 − λ_s) softmax((Q_R + ω′ log π) / α̂) + λ_s / |A| (Eq. 13), ``[A]``.

    Args:
        q_residual: Q_R(s, a), 0 for actions without visits, ``[A]``.
        weighted_log_prior: ω′ log π(a|s), ``[A]``.
        visits: N(s, a), ``[A]``.
        alpha_hat: Temperature α̂.
        epsilon: ε of :func:`exploration_rate`.
    """
    policy, rate = boltzmann(q_residual, weighted_log_prior, alpha_hat), exploration_rate(visits, epsilon)
    for a in range(len(policy)):
        policy[a] = (1.0 - rate) * policy[a] + rate / len(policy)
    return policy


@njit
def residual_value(q_residual: np.ndarray, weighted_log_prior: np.ndarray, alpha_hat: float) -> float:
    """Return V_R(s) = α̂ log Σ_a exp((Q_R(s, a) + ω′ log π(a|s)) / α̂), as in Eq. 14, from ``[A]`` each."""
    highest, total = -math.inf, 0.0
    for a in range(len(q_residual)):
        highest = max(highest, q_residual[a] + weighted_log_prior[a])
    for a in range(len(q_residual)):
        total += math.exp((q_residual[a] + weighted_log_prior[a] - highest) / alpha_hat)
    return highest + alpha_hat * math.log(total)


@njit
def residual_backup(reward: np.ndarray, value: np.ndarray, times_sampled: np.ndarray, gamma: float) -> float:
    """Return Q_R(s, a) (Eq. 14): the mean of r_R + γ V over sampled successors.

    Args:
        reward: r_R of each transition, ``[k]``.
        value: V_R of each successor, or the return R of the rollout from it, ``[k]``.
        times_sampled: How often the model returned each, ``[k]``.
        gamma: Discount γ.
    """
    total, times = 0.0, 0.0
    for k in range(len(reward)):
        total += times_sampled[k] * (reward[k] + gamma * value[k])
        times += times_sampled[k]
    return total / times


@njit
def authors_value(
    q_residual: np.ndarray, weighted_log_prior: np.ndarray, visits: np.ndarray, alpha_hat: float
) -> float:
    """Return the value in a backup of the authors' code, where Q_R + ω′ log π is 0 for actions without visits."""
    counted, nothing = np.zeros(len(visits)), np.zeros(len(visits))
    for a in range(len(visits)):
        if visits[a] > 0:
            counted[a] = q_residual[a] + weighted_log_prior[a]
    return residual_value(counted, nothing, alpha_hat)
