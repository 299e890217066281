"""Exact soft and residual value iteration on finite MDPs: the oracle that everything else is tested against.

Written on NumPy in float64 and sharing no code with :mod:`rql_lightning.functional`, so that the two can disagree.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from rql_lightning.errors import ConfigurationError, require

MAX_ITERATIONS = 500_000


def _arrays(like: Any, *values: Any) -> tuple[np.ndarray, ...]:
    return tuple(np.asarray(value, dtype=np.float64) for value in (like, *values))


def _soft_max(values: np.ndarray, temperature: float) -> np.ndarray:
    """Temperature · log Σ exp(values / temperature) over the last axis; ``[S, A]`` → ``[S]``."""
    peak = values.max(axis=-1, keepdims=True)
    return (peak + temperature * np.log(np.exp((values - peak) / temperature).sum(-1, keepdims=True)))[..., 0]


def _boltzmann(values: np.ndarray, temperature: float) -> np.ndarray:
    weights = np.exp((values - values.max(axis=-1, keepdims=True)) / temperature)
    return weights / weights.sum(-1, keepdims=True)


def _check(reward: np.ndarray, transition: np.ndarray, gamma: float, terminal: Any, reward_name: str) -> np.ndarray:
    require(reward.ndim == 2, reward_name, reward.shape, "a shape [S, A]")
    states, actions = reward.shape
    require(
        transition.shape == (states, actions, states), "transition", transition.shape, f"{(states, actions, states)}"
    )
    require(bool(np.isfinite(reward).all()), reward_name, "NaN or infinity", "finite numbers")
    is_distribution = bool((transition >= 0).all() and np.allclose(transition.sum(-1), 1.0))
    require(is_distribution, "transition", "rows that are no distributions", "p(s'|s, a) >= 0, summing to 1 over s'")
    require(0 <= gamma <= 1, "gamma", gamma, "a number in [0, 1]")
    mask = np.zeros(states, dtype=bool) if terminal is None else np.asarray(terminal, dtype=bool)
    require(mask.shape == (states,), "terminal", mask.shape, f"a mask of shape {(states,)}")
    return mask


def _iterate(
    reward: np.ndarray, transition: np.ndarray, gamma: float, log_weight: np.ndarray, alpha: float, terminal: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Iterate q = reward + γ P v, v = α log Σ exp((q + log_weight) / α) to a fixed point in floating point."""
    v = np.zeros(len(reward))
    # The backup is a γ-contraction: after this many the distance to the fixed point has shrunk by 1e-18, so that what
    # change is left is rounding. At γ = 1 only the change itself can tell.
    contractions = MAX_ITERATIONS if gamma == 1 else 1 + int(np.ceil(np.log(1e-18) / np.log(max(gamma, 1e-18))))
    for _ in range(min(contractions, MAX_ITERATIONS)):
        q = reward + gamma * transition @ v
        previous, v = v, np.where(terminal, 0.0, _soft_max(q + log_weight, alpha))
        if np.abs(v - previous).max() <= 1e-15 * np.abs(v).max():
            break
    else:
        if contractions >= MAX_ITERATIONS:
            raise ConfigurationError(
                f"gamma: found {gamma}, at which value iteration did not converge in {MAX_ITERATIONS} iterations; "
                "expected a smaller one, or an end to every path"
            )
    q = reward + gamma * transition @ v
    return q, v, _boltzmann(q + log_weight, alpha)


def _like(reference: Any, *values: np.ndarray) -> tuple[Any, ...]:
    if isinstance(reference, torch.Tensor):
        return tuple(torch.from_numpy(value) for value in values)
    return values


def soft_value_iteration(
    reward: Any, transition: Any, gamma: float, alpha: float, terminal: Any = None
) -> tuple[Any, Any, Any]:
    r"""Solve the maximum-entropy MDP exactly (Eq. 1 and 2).

    Args:
        reward: r(s, a), ``[S, A]``.
        transition: p(s′|s, a), ``[S, A, S]``.
        gamma: Discount γ in [0, 1] (below 1 unless every path ends).
        alpha: Temperature α > 0.
        terminal: Mask ``[S]`` of states where the value is 0, or ``None``.

    Returns:
        ``(q, v, policy)`` of shapes ``[S, A]``, ``[S]``, ``[S, A]`` in float64, as arrays or tensors like ``reward``;
        ``policy`` holds probabilities.

    Raises:
        ConfigurationError: for shapes or numbers that make no MDP.
    """
    r, p = _arrays(reward, transition)
    mask = _check(r, p, gamma, terminal, "reward")
    require(alpha > 0, "alpha", alpha, "a number > 0")
    return _like(reward, *_iterate(r, p, gamma, np.zeros_like(r), alpha, mask))


def residual_value_iteration(
    prior: Any,
    add_on_reward: Any,
    transition: Any,
    gamma: float,
    omega_prime: float,
    alpha_hat: float,
    terminal: Any = None,
) -> tuple[Any, Any, Any]:
    r"""Solve for the residual fixed point (Eq. 5e) and its policy (Eq. 6) from the prior's probabilities alone.

    Args:
        prior: π(a|s), probabilities, ``[S, A]``.
        add_on_reward: r_R(s, a), ``[S, A]``.
        transition: p(s′|s, a), ``[S, A, S]``.
        gamma: Discount γ in [0, 1].
        omega_prime: ω′ = ωα ≥ 0.
        alpha_hat: Temperature α̂ > 0.
        terminal: Mask ``[S]`` of states where the value is 0, or ``None``.

    Returns:
        ``(q_residual, v_residual, policy)`` of shapes ``[S, A]``, ``[S]``, ``[S, A]`` in float64.

    Raises:
        ConfigurationError: for shapes or numbers that make no MDP, or a prior that is no distribution.
    """
    r, p, pi = _arrays(add_on_reward, transition, prior)
    mask = _check(r, p, gamma, terminal, "add_on_reward")
    require(alpha_hat > 0, "alpha_hat", alpha_hat, "a number > 0")
    log_weight = _log_weight(pi, r, omega_prime, "omega_prime")
    return _like(add_on_reward, *_iterate(r, p, gamma, log_weight, alpha_hat, mask))


def greedy_value_iteration(
    prior: Any,
    add_on_reward: Any,
    transition: Any,
    gamma: float,
    kl_weight: float,
    alpha_hat: float,
    terminal: Any = None,
) -> tuple[Any, Any, Any]:
    r"""Solve for the fixed point of greedy customization: Q̃ of Eq. 16 under its own policy, that of Eq. 17.

    Args:
        prior: π(a|s), probabilities, ``[S, A]``.
        add_on_reward: r_R(s, a), ``[S, A]``.
        transition: p(s′|s, a), ``[S, A, S]``.
        gamma: Discount γ in [0, 1].
        kl_weight: λ ≥ 0.
        alpha_hat: Temperature α̂ > 0.
        terminal: Mask ``[S]`` of states where the value is 0, or ``None``.

    Returns:
        ``(q, v, policy)`` of shapes ``[S, A]``, ``[S]``, ``[S, A]`` in float64.

    Raises:
        ConfigurationError: for shapes or numbers that make no MDP, a prior that is no distribution, or an iteration
            that does not come to rest (Eq. 16 is no contraction: its policy follows Q̃).
    """
    r, p, pi = _arrays(add_on_reward, transition, prior)
    mask = _check(r, p, gamma, terminal, "add_on_reward")
    require(alpha_hat > 0, "alpha_hat", alpha_hat, "a number > 0")
    log_weight = _log_weight(pi, r, kl_weight, "kl_weight")
    v = np.zeros(len(r))
    for _ in range(MAX_ITERATIONS):
        q = r + gamma * p @ v
        policy = _boltzmann(q + log_weight, alpha_hat + kl_weight)
        with np.errstate(divide="ignore", invalid="ignore"):
            entropy = -np.where(policy > 0, policy * np.log(policy), 0.0).sum(-1)
        previous, v = v, np.where(mask, 0.0, (policy * q).sum(-1) + alpha_hat * entropy)
        if np.abs(v - previous).max() <= 1e-14 * max(1.0, np.abs(v).max()):
            return _like(add_on_reward, q, v, policy)
    raise ConfigurationError(
        f"gamma: found {gamma}, at which Eq. 16 did not come to rest in {MAX_ITERATIONS} iterations"
    )


def _log_weight(prior: np.ndarray, reward: np.ndarray, weight: float, name: str) -> np.ndarray:
    """The prior's weighted log-probabilities; 0 · log 0 counts as 0."""
    require(weight >= 0, name, weight, "a number >= 0")
    is_distribution = prior.shape == reward.shape and bool((prior >= 0).all() and np.allclose(prior.sum(-1), 1.0))
    require(
        is_distribution, "prior", f"shape {prior.shape}", f"probabilities of shape {reward.shape}, rows summing to 1"
    )
    with np.errstate(divide="ignore"):
        return weight * np.log(prior) if weight > 0 else np.zeros_like(prior)
