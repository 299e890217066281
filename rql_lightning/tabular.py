"""Exact soft and residual value iteration on finite MDPs: the oracle that everything else is tested against.

Written on NumPy in float64 and sharing no code with :mod:`rql_lightning.functional`, so that the two can disagree.

The last digits of exp, log and matrix products differ between processors, so iterations do not wait for an exact fixed
point: each stops once rounding errors can explain the remaining change. Accuracy is stated in units of

    δ = ε (S + A + 8) (max |reward| + max |weight · log prior| + max |v| + temperature · (1 + log A)),

with ε = 2⁻⁵² and the maxima over finite entries: a bound on the rounding error of one backup whose exp and log are
within 4 units in the last place. c is the largest γ Σ p(s′|s, a) over successors s′ that are not terminal: γ, or less.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from rql_lightning.errors import ConfigurationError, require

MAX_ITERATIONS = 500_000
# Number of backups without a new smallest change after which the remaining change counts as rounding. A convergent
# iteration reaches a new minimum far more often, even if it oscillates.
PATIENCE = 1000


def _arrays(like: Any, *values: Any) -> tuple[np.ndarray, ...]:
    return tuple(np.asarray(value, dtype=np.float64) for value in (like, *values))


def _boltzmann(values: np.ndarray, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the policy ∝ exp(values / temperature) ``[S, A]`` and its value temperature · log Σ exp(…) ``[S]``."""
    peak = values.max(axis=-1, keepdims=True)
    weights = np.exp((values - peak) / temperature)
    total = weights.sum(-1, keepdims=True)
    return weights / total, (peak + temperature * np.log(total))[:, 0]


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
    reward: np.ndarray,
    transition: np.ndarray,
    gamma: float,
    terminal: np.ndarray,
    scale: float,
    value: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    contracts: bool = True,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Repeat q = reward + γ P v, (policy, v) = value(q) from v = 0 until rounding explains what a backup changes.

    With a contraction c that falls low enough within ``MAX_ITERATIONS``, q and v end within 4δ / (1 − c) of the fixed
    point. Either the last backup changed v by at most δ, so that (c δ + δ) / (1 − c) is left. Or c^k times the first
    change is at most δ, so that at most δ / (1 − c) is left of the start, and 2δ / (1 − c) is rounding. Without one,
    the last of k backups changed v by at most δ; or by at most k δ, their rounding errors together, and changes have
    stopped shrinking.

    Args:
        reward: ``[S, A]``.
        transition: ``[S, A, S]``.
        gamma: Discount γ.
        terminal: Mask ``[S]``.
        scale: Sum in the definition of δ without max |v|.
        value: q ``[S, A]`` → policy ``[S, A]``, v ``[S]``.
        contracts: Whether ``value`` does not increase the largest difference between two arguments.
    """
    states, actions = reward.shape
    discounted = np.where(terminal, 0.0, gamma * transition)
    contraction = float(discounted[~terminal].sum(-1).max(initial=0.0)) if contracts else math.inf
    noise = np.finfo(np.float64).eps * (states + actions + 8)
    v = np.zeros(states)
    first, smallest, since = 0.0, math.inf, 0
    for k in range(1, MAX_ITERATIONS + 1):
        previous, v = v, np.where(terminal, 0.0, value(reward + discounted @ v)[1])
        change, delta = np.abs(v - previous).max(), noise * (scale + np.abs(v).max())
        first = change if k == 1 else first
        if change <= delta or contraction**k * first <= delta:
            break
        if change < smallest:
            smallest, since = change, k
        elif k - since >= PATIENCE and change <= k * delta and contraction**MAX_ITERATIONS * first > delta:
            break
    else:
        raise ConfigurationError(
            f"gamma: found {gamma}, at which the last of {MAX_ITERATIONS} backups changed a value by {change:.2g}, "
            f"expected a smaller one, or {'an end to every path' if contracts else 'a smaller kl_weight'}"
        )
    q = reward + discounted @ v
    policy, v = value(q)
    return q, np.where(terminal, 0.0, v), policy


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
        ``policy`` holds probabilities. With δ and c of the module's docstring, the error of q and v is at most
        4δ / (1 − c), that of the log-probabilities at most 8δ / ((1 − c) α). At c = 1 the last of k backups changed v
        by at most k δ, so that the error is at most (k + 1) δ times the longest expected number of steps to an end.

    Raises:
        ConfigurationError: for shapes or numbers that make no MDP, or a value that is still changing after
            ``MAX_ITERATIONS`` backups (γ = 1 without an end to every path, or γ just below it).
    """
    r, p = _arrays(reward, transition)
    mask = _check(r, p, gamma, terminal, "reward")
    require(alpha > 0, "alpha", alpha, "a number > 0")
    scale = np.abs(r).max() + alpha * (1 + np.log(r.shape[1]))
    return _like(reward, *_iterate(r, p, gamma, mask, scale, lambda q: _boltzmann(q, alpha)))


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
        ``(q_residual, v_residual, policy)`` of shapes ``[S, A]``, ``[S]``, ``[S, A]`` in float64, as exact as those of
        :func:`soft_value_iteration` (its temperature is α̂ here).

    Raises:
        ConfigurationError: for shapes or numbers that make no MDP, a prior that is no distribution, or a value that is
            still changing after ``MAX_ITERATIONS`` backups.
    """
    r, p, pi = _arrays(add_on_reward, transition, prior)
    mask = _check(r, p, gamma, terminal, "add_on_reward")
    require(alpha_hat > 0, "alpha_hat", alpha_hat, "a number > 0")
    log_weight, weight = _log_weight(pi, r, omega_prime, "omega_prime")
    scale = np.abs(r).max() + weight + alpha_hat * (1 + np.log(r.shape[1]))
    return _like(add_on_reward, *_iterate(r, p, gamma, mask, scale, lambda q: _boltzmann(q + log_weight, alpha_hat)))


def with_clock(
    prior: Any, add_on_reward: Any, transition: Any, horizon: int, terminal: Any = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    r"""Return the MDP whose states also count time, so that every path ends after ``horizon`` steps.

    State t · S + s is s after t steps; its values are those with ``horizon`` − t steps to go.

    Args:
        prior: π(a|s), ``[S, A]``.
        add_on_reward: r_R(s, a), ``[S, A]``.
        transition: p(s'|s, a), ``[S, A, S]``.
        horizon: Number of steps H >= 1.
        terminal: Mask ``[S]`` of states where the value is 0, or ``None``.

    Returns:
        ``(prior, add_on_reward, transition, terminal)`` for :func:`residual_value_iteration`, with S · (H + 1) states.
    """
    r, p, pi = _arrays(add_on_reward, transition, prior)
    mask = _check(r, p, 1.0, terminal, "add_on_reward")
    require(isinstance(horizon, int) and horizon >= 1, "horizon", horizon, "an integer >= 1")
    states, actions = r.shape
    timed = np.zeros((horizon + 1, states, actions, horizon + 1, states))
    for time in range(horizon):
        timed[time, :, :, time + 1] = p
    timed[horizon, range(states), :, horizon, range(states)] = 1.0
    size = (horizon + 1) * states
    ends = np.concatenate([np.tile(mask, horizon), np.ones(states, dtype=bool)])
    tiled = (np.tile(array, (horizon + 1, 1)) for array in (pi, r))
    return *tiled, timed.reshape(size, actions, size), ends  # type: ignore[return-value]


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
        ``(q, v, policy)`` of shapes ``[S, A]``, ``[S]``, ``[S, A]`` in float64. The last of k backups changed v by at
        most δ, or by at most k δ if changes had stopped shrinking; the temperature in δ is α̂ + λ. No bound on the
        distance to a fixed point follows: the policy follows Q̃, so that Eq. 16 is no contraction.

    Raises:
        ConfigurationError: for shapes or numbers that make no MDP, a prior that is no distribution, or an iteration
            that does not come to rest, which is possible for any γ > 0.
    """
    r, p, pi = _arrays(add_on_reward, transition, prior)
    mask = _check(r, p, gamma, terminal, "add_on_reward")
    require(alpha_hat > 0, "alpha_hat", alpha_hat, "a number > 0")
    log_weight, weight = _log_weight(pi, r, kl_weight, "kl_weight")
    temperature = alpha_hat + kl_weight

    def value(q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        policy, _ = _boltzmann(q + log_weight, temperature)
        entropy = -(policy * np.log(np.where(policy > 0, policy, 1.0))).sum(-1)
        return policy, (policy * q).sum(-1) + alpha_hat * entropy

    scale = np.abs(r).max() + weight + temperature * (1 + np.log(r.shape[1]))
    return _like(add_on_reward, *_iterate(r, p, gamma, mask, scale, value, contracts=False))


def _log_weight(prior: np.ndarray, reward: np.ndarray, weight: float, name: str) -> tuple[np.ndarray, float]:
    """Return weight · log prior ``[S, A]``, with 0 · log 0 = 0, and its largest finite magnitude."""
    require(weight >= 0, name, weight, "a number >= 0")
    is_distribution = prior.shape == reward.shape and bool((prior >= 0).all() and np.allclose(prior.sum(-1), 1.0))
    require(
        is_distribution, "prior", f"shape {prior.shape}", f"probabilities of shape {reward.shape}, rows summing to 1"
    )
    if weight == 0:
        return np.zeros_like(prior), 0.0
    with np.errstate(divide="ignore"):
        log_weight = weight * np.log(prior)
    return log_weight, float(np.abs(log_weight[prior > 0]).max())
