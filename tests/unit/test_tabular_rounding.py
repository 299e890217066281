"""Iterations come to rest on every processor, within the error that their docstrings state."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from rql_lightning import tabular
from rql_lightning.errors import ConfigurationError
from rql_lightning.tabular import greedy_value_iteration, residual_value_iteration, soft_value_iteration

EPSILON = 2.0**-52
TEMPERATURES = (1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2)
SCALES = (1e-6, 1e-3, 1.0, 1e3, 1e6)
# Discounts near 1 take many backups (26,000 at 0.999): ends and middle alone, and corners alone.
GRID = [(gamma, temperature, SCALES) for gamma in (0.0, 0.5, 0.9) for temperature in TEMPERATURES]
GRID += [(0.99, temperature, SCALES[::2]) for temperature in (1e-3, 1.0, 1e2)]
GRID += [(0.999, temperature, SCALES[::4]) for temperature in (1e-3, 1e2)]


@dataclass(frozen=True)
class Problem:
    """An MDP with a prior; the prior's weight is a multiple of the temperature."""

    reward: np.ndarray
    prior: np.ndarray
    transition: np.ndarray
    gamma: float
    temperature: float
    weight: float
    terminal: np.ndarray

    def solve(self, kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if kind == "soft":
            return soft_value_iteration(self.reward, self.transition, self.gamma, self.temperature, self.terminal)
        solve = residual_value_iteration if kind == "residual" else greedy_value_iteration
        return solve(self.prior, self.reward, self.transition, self.gamma, self.weight, self.temperature, self.terminal)

    def delta(self, kind: str, v: np.ndarray) -> float:
        """δ of the module's docstring."""
        states, actions = self.reward.shape
        log_weight = 0.0 if kind == "soft" else np.abs(self.weight * np.log(self.prior)).max()
        temperature = self.temperature + (self.weight if kind == "greedy" else 0.0)
        size = np.abs(self.reward).max() + log_weight + np.abs(v).max() + temperature * (1 + math.log(actions))
        return EPSILON * (states + actions + 8) * size

    def bound(self, kind: str, v: np.ndarray) -> float:
        """4δ / (1 − c)."""
        contraction = (self.gamma * self.transition[~self.terminal][..., ~self.terminal]).sum(-1).max()
        return 4 * self.delta(kind, v) / (1 - contraction)


def problem(seed: int, gamma: float, temperature: float, scale: float, states: int = 4, actions: int = 3) -> Problem:
    rng = np.random.default_rng(seed)
    reward = scale * rng.uniform(-1, 1, (states, actions))
    prior = rng.dirichlet(np.ones(actions), size=states)
    transition = rng.dirichlet(np.full(states, 0.5), size=(states, actions))
    weight = temperature * rng.uniform(0.1, 2)
    return Problem(reward, prior, transition, gamma, temperature, weight, np.arange(states) < seed % 2)


# The oracle: policy iteration, which needs some ten steps whatever γ is, in the 64 bits of an extended double


def extended_solve(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Solve in float64, refined with residuals in extended precision."""
    approximate = matrix.astype(np.float64)
    solution = np.zeros_like(right)
    for _ in range(6):
        solution = solution + np.linalg.solve(approximate, (right - matrix @ solution).astype(np.float64))
    return solution


def extended_policy(q: np.ndarray, log_weight: np.ndarray, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    values = q + log_weight
    peak = values.max(-1, keepdims=True)
    weights = np.exp((values - peak) / temperature)
    total = weights.sum(-1, keepdims=True)
    return weights / total, (peak + temperature * np.log(total))[:, 0]


def extended_solution(mdp: Problem, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """q and v of the soft or the residual fixed point in extended precision."""
    reward, transition = mdp.reward.astype(np.longdouble), mdp.transition.astype(np.longdouble)
    log_weight = 0 * reward if kind == "soft" else mdp.weight * np.log(mdp.prior.astype(np.longdouble))
    moves = mdp.gamma * transition * ~mdp.terminal
    v = np.zeros(len(reward), np.longdouble)
    for _ in range(100):
        policy, value = extended_policy(reward + moves @ v, log_weight, mdp.temperature)
        step = np.where(mdp.terminal, 0, value) - v
        chain = np.einsum("sa,sat->st", policy, moves) * ~mdp.terminal[:, None]
        change = extended_solve(np.eye(len(reward), dtype=np.longdouble) - chain, step)
        v = v + change
        if np.abs(change).max() <= 1e-18 * np.abs(v).max():
            break
    return reward + moves @ v, v


def extended_greedy_value(mdp: Problem, v: np.ndarray) -> np.ndarray:
    """One backup of Eq. 16 in extended precision."""
    log_prior = np.log(mdp.prior.astype(np.longdouble))
    q = mdp.reward + mdp.gamma * (mdp.transition * ~mdp.terminal).astype(np.longdouble) @ v
    policy, _ = extended_policy(q, mdp.weight * log_prior, np.longdouble(mdp.temperature) + mdp.weight)
    entropy = -(policy * np.log(np.where(policy > 0, policy, 1))).sum(-1)
    return np.where(mdp.terminal, 0, (policy * q).sum(-1) + mdp.temperature * entropy)


def assert_within_the_bound(mdp: Problem, kind: str, found: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    q, v, policy = found
    exact_q, exact_v = extended_solution(mdp, kind)
    bound = mdp.bound(kind, v)
    assert np.abs(q - exact_q).max() <= bound
    assert np.abs(v - exact_v).max() <= bound
    log_weight = 0.0 if kind == "soft" else mdp.weight * np.log(mdp.prior)
    exact_policy, _ = extended_policy(exact_q, log_weight, mdp.temperature)
    # Probabilities rather than their logarithms: those of actions that are never taken are 0.
    assert np.abs(policy - exact_policy).max() <= math.expm1(2 * bound / mdp.temperature)


@pytest.mark.parametrize(("gamma", "temperature", "scales"), GRID)
@pytest.mark.parametrize("kind", ["soft", "residual"])
def test_fixed_points_are_as_exact_as_stated(kind, gamma, temperature, scales):
    for seed, scale in enumerate(scales):
        mdp = problem(seed, gamma, temperature, scale)
        assert_within_the_bound(mdp, kind, mdp.solve(kind))


@pytest.mark.parametrize(("gamma", "temperature", "scales"), GRID)
def test_greedy_customization_comes_to_rest(gamma, temperature, scales):
    """What one more backup changes, in a precision at which nothing of it is rounding."""
    for seed, scale in enumerate(scales):
        mdp = problem(seed, gamma, temperature, scale)
        _, v, _ = mdp.solve("greedy")
        assert np.abs(extended_greedy_value(mdp, v) - v).max() <= 4 * mdp.delta("greedy", v)


# Other processors


class Shaken:
    """NumPy with errors in the last places of exp and log: the same for the same argument, or new in every call."""

    def __init__(self, places: int, by_value: bool) -> None:
        self.places, self.by_value, self.rng = places, by_value, np.random.default_rng(0)

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    def shake(self, argument: np.ndarray, result: np.ndarray) -> np.ndarray:
        if np.ndim(argument) == 0:
            return result
        if self.by_value:
            scrambled = argument.copy().view(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
            error = (scrambled >> np.uint64(50)) % np.uint64(2 * self.places + 1)
        else:
            error = self.rng.integers(2 * self.places + 1, size=result.shape)
        return result * (1 + (error.astype(np.float64) - self.places) * EPSILON)

    def exp(self, x: np.ndarray) -> np.ndarray:
        return self.shake(x, np.exp(x))

    def log(self, x: np.ndarray) -> np.ndarray:
        return self.shake(x, np.log(x))


@pytest.fixture(params=[(1, True), (4, False)], ids=["1 by value", "4 by call"])
def another_processor(request, monkeypatch):
    monkeypatch.setattr(tabular, "np", Shaken(*request.param))
    monkeypatch.setattr(tabular, "MAX_ITERATIONS", 20_000)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 0.95])
@pytest.mark.parametrize("kind", ["soft", "residual", "greedy"])
def test_last_digits_of_exp_and_log_do_not_matter(another_processor, kind, gamma):
    for seed, (temperature, scale) in enumerate((t, s) for t in (1e-3, 1.0, 1e2) for s in (1e-6, 1.0, 1e6)):
        mdp = problem(seed, gamma, temperature, scale)
        found = mdp.solve(kind)
        if kind == "greedy":
            v = found[1]
            assert np.abs(extended_greedy_value(mdp, v) - v).max() <= 4 * mdp.delta(kind, v)
        else:
            assert_within_the_bound(mdp, kind, found)


def test_greedy_customization_of_a_prior_near_its_optimum_comes_to_rest(another_processor):
    """MDPs whose iteration can end in a cycle of rounding errors, some of them 1e-14 wide."""
    for seed in range(40, 44):
        rng = np.random.default_rng(seed)
        transition = rng.dirichlet(np.full(6, 0.3), size=(6, 3))
        basic, add_on = rng.uniform(-1, 1, (2, 6, 3))
        prior = soft_value_iteration(basic, transition, 0.9, 0.5)[2]
        mdp = Problem(add_on, prior, transition, 0.9, 1e-3, 0.5, np.zeros(6, bool))
        _, v, _ = mdp.solve("greedy")
        assert np.abs(extended_greedy_value(mdp, v) - v).max() <= 4 * mdp.delta("greedy", v)


@pytest.mark.parametrize("kind", ["soft", "residual", "greedy"])
def test_without_discount_every_path_to_an_end_comes_to_rest(another_processor, kind):
    """No action ends an episode from state 0, so that one backup shrinks no error there."""
    transition = np.zeros((4, 2, 4))
    transition[0, :, 1] = transition[3, :, 3] = 1
    transition[1, :, [0, 2]] = 0.5
    transition[2, :, [1, 3]] = 0.5
    reward = np.array([[-3.0, 1.0], [0.2, 0.1], [1e3, 1e3 - 1], [0.0, 0.0]])
    prior = np.array([[0.5, 0.5], [0.9, 0.1], [0.01, 0.99], [0.5, 0.5]])
    mdp = Problem(reward, prior, transition, 1.0, 0.7, 0.3, np.arange(4) == 3)
    _, v, _ = mdp.solve(kind)
    if kind == "greedy":
        assert np.abs(extended_greedy_value(mdp, v) - v).max() <= 4 * mdp.delta(kind, v)
    else:
        _, exact_v = extended_solution(mdp, kind)
        longest = np.linalg.inv(np.eye(3) - transition[:3, 0, :3]).sum(-1).max()  # steps; no action changes it
        assert np.abs(v - exact_v).max() <= 4 * longest * mdp.delta(kind, v)


# Greedy customization is no contraction


def see_saw(log_odds: float) -> tuple[Problem, float]:
    """One state whose action 0 ends and whose action 1 stays, and its value where both are equally probable.

    There v ↦ v has the slope γ/2 · (1 − λ / (α̂ + λ) · log_odds / 2), log_odds being what the prior prefers to stay by.
    """
    gamma, alpha_hat, kl_weight = 0.9, 0.01, 1.0
    ending = kl_weight * log_odds  # and staying is worth 0, so that Eq. 17 is indifferent
    value = ending / 2 + alpha_hat * math.log(2)
    transition = np.zeros((2, 2, 2))
    transition[0, 0, 1] = transition[0, 1, 0] = transition[1, :, 1] = 1
    leave = 1 / (1 + math.exp(log_odds))
    reward = np.array([[ending, -gamma * value], [0.0, 0.0]])
    prior = np.array([[leave, 1 - leave]] * 2)
    return Problem(reward, prior, transition, gamma, alpha_hat, kl_weight, np.array([False, True])), value


@pytest.mark.parametrize(("log_odds", "tolerance"), [(4.0, 1e-13), (6.0, 1e-12), (6.5, 1e-11)])
def test_greedy_customization_that_oscillates_ever_less_is_accepted(log_odds, tolerance):
    """Slopes −0.44, −0.89 and −0.998: at the last, rounding errors add up to a cycle that is wider than δ."""
    mdp, value = see_saw(log_odds)
    _, v, policy = mdp.solve("greedy")
    assert v[0] == pytest.approx(value, abs=tolerance)
    np.testing.assert_allclose(policy[0], 0.5, rtol=0, atol=tolerance)


@pytest.mark.parametrize("log_odds", [6.52, 7.0, 20.0])
def test_greedy_customization_that_goes_on_oscillating_is_refused(monkeypatch, log_odds):
    """Slopes −1.002, −1.1 and −4: no iteration of Eq. 16 stays at the fixed point, which exists."""
    monkeypatch.setattr(tabular, "MAX_ITERATIONS", 2_000)
    mdp, value = see_saw(log_odds)
    assert abs(extended_greedy_value(mdp, np.array([value, 0.0]))[0] - value) < 1e-12
    with pytest.raises(ConfigurationError, match=r"^gamma: found 0\.9, at which the last of 2000 backups .* kl_weight"):
        mdp.solve("greedy")
