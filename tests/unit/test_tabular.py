"""The theorem that everything rests on (spec, section 1), on random finite MDPs, and the oracle that shows it."""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rql_lightning import functional, tabular
from rql_lightning.errors import ConfigurationError
from rql_lightning.tabular import residual_value_iteration, soft_value_iteration

CLOSE = {"rtol": 0, "atol": 1e-8}


@dataclass(frozen=True)
class Mdp:
    """A finite MDP with a basic and an add-on reward; ``terminal`` is a mask or None."""

    basic: np.ndarray
    add_on: np.ndarray
    transition: np.ndarray
    gamma: float
    terminal: np.ndarray | None

    def soft(self, reward: np.ndarray, alpha: float):
        return soft_value_iteration(reward, self.transition, self.gamma, alpha, self.terminal)

    def residual(self, prior: np.ndarray, omega_prime: float, alpha_hat: float, add_on: np.ndarray | None = None):
        reward = self.add_on if add_on is None else add_on
        return residual_value_iteration(
            prior, reward, self.transition, self.gamma, omega_prime, alpha_hat, self.terminal
        )


def random_mdp(seed: int, states: int, actions: int, gamma: float, terminal: np.ndarray | None = None) -> Mdp:
    """Rewards in [−2, 2]; some transitions impossible, some certain."""
    rng = np.random.default_rng(seed)
    transition = rng.dirichlet(np.full(states, 0.5), size=(states, actions))
    certain = rng.random((states, actions)) < 0.2
    transition[certain] = np.eye(states)[rng.integers(states, size=int(certain.sum()))]
    basic, add_on = rng.uniform(-2, 2, (2, states, actions))
    return Mdp(basic, add_on, transition, gamma, terminal)


@st.composite
def mdps(draw) -> Mdp:
    states = draw(st.integers(1, 6))
    terminal = draw(st.none() | st.lists(st.booleans(), min_size=states, max_size=states).map(np.array))
    return random_mdp(
        draw(st.integers(0, 2**32 - 1)), states, draw(st.integers(1, 4)), draw(st.floats(0, 0.9)), terminal
    )


def random_policy(seed: int, states: int, actions: int) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(actions), size=states)


def evaluate(policy: np.ndarray, reward: np.ndarray, transition: np.ndarray, gamma: float, alpha: float, terminal):
    """V of a policy with its entropy, (I − γ P_π)⁻¹ Σ_a π (r − α log π), and 0 at terminal states."""
    with np.errstate(divide="ignore", invalid="ignore"):
        earned = np.where(policy > 0, policy * (reward - alpha * np.log(policy)), 0.0).sum(-1)
    alive = np.ones(len(reward)) if terminal is None else 1.0 - terminal
    moves = alive[:, None] * np.einsum("sa,sat->st", policy, transition)
    return np.linalg.solve(np.eye(len(reward)) - gamma * moves, alive * earned)


weights = st.floats(0.05, 3)
temperatures = st.floats(0.3, 3)
quick = settings(max_examples=60)


# The theorem


@given(mdp=mdps(), omega=weights, alpha=temperatures, alpha_hat=temperatures)
@quick
def test_residual_fixed_point_is_the_difference_of_the_optimal_values(mdp, omega, alpha, alpha_hat):
    q_prior, v_prior, prior = mdp.soft(mdp.basic, alpha)
    q_full, v_full, policy_full = mdp.soft(omega * mdp.basic + mdp.add_on, alpha_hat)
    q_residual, v_residual, policy = mdp.residual(prior, omega * alpha, alpha_hat)
    np.testing.assert_allclose(q_residual, q_full - omega * q_prior, **CLOSE)
    np.testing.assert_allclose(v_residual, v_full - omega * v_prior, **CLOSE)
    np.testing.assert_allclose(policy, policy_full, **CLOSE)


@given(mdp=mdps(), seed=st.integers(0, 2**32 - 1), alpha_hat=temperatures)
@quick
def test_at_weight_zero_the_prior_is_forgotten(mdp, seed, alpha_hat):
    prior = random_policy(seed, *mdp.add_on.shape)
    found, expected = mdp.residual(prior, 0.0, alpha_hat), mdp.soft(mdp.add_on, alpha_hat)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, **CLOSE)


@given(mdp=mdps(), seed=st.integers(0, 2**32 - 1), alpha_hat=temperatures)
@quick
def test_without_a_wish_at_equal_weights_any_prior_comes_back(mdp, seed, alpha_hat):
    prior = random_policy(seed, *mdp.add_on.shape)
    q_residual, v_residual, policy = mdp.residual(prior, alpha_hat, alpha_hat, np.zeros_like(mdp.add_on))
    np.testing.assert_allclose(policy, prior, **CLOSE)
    np.testing.assert_allclose(v_residual, 0.0, **CLOSE)
    np.testing.assert_allclose(q_residual, 0.0, **CLOSE)


@given(mdp=mdps(), seed=st.integers(0, 2**32 - 1), omega_prime=weights, alpha_hat=temperatures)
@quick
def test_any_prior_has_the_fixed_point_of_its_log_probability_as_a_reward(mdp, seed, omega_prime, alpha_hat):
    """Appendix F.3: Q_R + ω′ log π is the soft Q-function of r_R + ω′ log π, whatever the prior was made for."""
    prior = random_policy(seed, *mdp.add_on.shape)
    assume(prior.min() > 1e-12)
    q_residual, v_residual, policy = mdp.residual(prior, omega_prime, alpha_hat)
    q, v, expected = mdp.soft(mdp.add_on + omega_prime * np.log(prior), alpha_hat)
    np.testing.assert_allclose(q_residual + omega_prime * np.log(prior), q, **CLOSE)
    np.testing.assert_allclose(v_residual, v, **CLOSE)
    np.testing.assert_allclose(policy, expected, **CLOSE)


@given(seed=st.integers(0, 2**32 - 1), omega_prime=weights)
@quick
def test_actions_that_the_prior_never_takes_are_never_taken(seed, omega_prime):
    mdp = random_mdp(seed, 4, 3, 0.9)
    prior = random_policy(seed, 4, 3)
    prior[:, 0] = 0
    prior /= prior.sum(-1, keepdims=True)
    restricted = Mdp(mdp.basic[:, 1:], mdp.add_on[:, 1:], mdp.transition[:, 1:], mdp.gamma, None)
    q_residual, v_residual, policy = mdp.residual(prior, omega_prime, 0.7)
    expected = restricted.residual(prior[:, 1:], omega_prime, 0.7)
    assert (policy[:, 0] == 0).all() and np.isfinite(q_residual).all()
    np.testing.assert_allclose(q_residual[:, 1:], expected[0], **CLOSE)
    np.testing.assert_allclose(v_residual, expected[1], **CLOSE)
    np.testing.assert_allclose(policy[:, 1:], expected[2], **CLOSE)


# The oracle itself


def test_two_states_by_hand():
    """State 0: action 0 stays for reward 1, action 1 ends in the terminal state 1 for reward 2; γ = ½, α = 1.

    With x = e^(v/2), v = log(e^(1 + v/2) + e²) reads x² = e x + e², so x = e (1 + √5) / 2: the golden ratio φ. Action 0
    has the probability e x / x² = 1/φ.
    """
    golden = (1 + math.sqrt(5)) / 2
    reward = np.array([[1.0, 2.0], [0.0, 0.0]])
    transition = np.zeros((2, 2, 2))
    transition[0, 0, 0] = transition[0, 1, 1] = transition[1, :, 1] = 1
    q, v, policy = soft_value_iteration(reward, transition, 0.5, 1.0, np.array([False, True]))
    np.testing.assert_allclose(v, [2 * (1 + math.log(golden)), 0], **CLOSE)
    np.testing.assert_allclose(q[0], [2 + math.log(golden), 2], **CLOSE)
    np.testing.assert_allclose(policy[0], [1 / golden, 1 - 1 / golden], **CLOSE)


def test_residual_of_two_states_by_hand():
    """One step from the end, nothing to bootstrap from: Q_R = r_R, and Eq. 6 is a logistic function."""
    add_on = np.array([[1.0, 0.0], [5.0, 5.0]])
    transition = np.zeros((2, 2, 2))
    transition[:, :, 1] = 1
    prior = np.array([[0.2, 0.8], [0.5, 0.5]])
    q_residual, v_residual, policy = residual_value_iteration(
        prior, add_on, transition, 0.9, 0.5, 2.0, np.array([False, True])
    )
    odds = math.exp(0.5) * (0.2 / 0.8) ** 0.25
    np.testing.assert_allclose(q_residual, add_on, **CLOSE)
    np.testing.assert_allclose(v_residual, [2 * math.log(0.2**0.25 * math.exp(0.5) + 0.8**0.25), 0], **CLOSE)
    np.testing.assert_allclose(policy[0], [odds / (1 + odds), 1 / (1 + odds)], **CLOSE)


@given(mdp=mdps(), alpha=temperatures)
@quick
def test_value_is_what_the_policy_earns(mdp, alpha):
    _, v, policy = mdp.soft(mdp.basic, alpha)
    earned = evaluate(policy, mdp.basic, mdp.transition, mdp.gamma, alpha, mdp.terminal)
    np.testing.assert_allclose(v, earned, **CLOSE)


@given(mdp=mdps(), alpha=temperatures, seed=st.integers(0, 2**32 - 1), step=st.floats(1e-3, 1))
@quick
def test_no_other_policy_earns_more(mdp, alpha, seed, step):
    _, v, policy = mdp.soft(mdp.basic, alpha)
    other = (1 - step) * policy + step * random_policy(seed, *policy.shape)
    earned = evaluate(other, mdp.basic, mdp.transition, mdp.gamma, alpha, mdp.terminal)
    assert (earned <= v + 1e-9).all()
    # The loss is α KL(other ‖ policy) here and what the change costs later: not nothing.
    alive = np.ones(len(v), bool) if mdp.terminal is None else ~mdp.terminal
    divergence = np.where(alive, (other * np.log(np.maximum(other, 1e-300) / policy)).sum(-1), 0.0)
    assert (v - earned >= alpha * divergence - 1e-9).all()


@given(mdp=mdps(), seed=st.integers(0, 2**32 - 1), omega_prime=weights, alpha_hat=temperatures)
@quick
def test_no_other_policy_earns_more_of_the_wish_and_the_prior(mdp, seed, omega_prime, alpha_hat):
    prior, other = (random_policy(seed + k, *mdp.add_on.shape) for k in range(2))
    assume(prior.min() > 1e-12)
    augmented = mdp.add_on + omega_prime * np.log(prior)
    _, v, policy = mdp.residual(prior, omega_prime, alpha_hat)
    arguments = (augmented, mdp.transition, mdp.gamma, alpha_hat, mdp.terminal)
    np.testing.assert_allclose(evaluate(policy, *arguments), v, **CLOSE)
    assert (evaluate((policy + other) / 2, *arguments) <= v + 1e-9).all()


def test_as_the_temperature_falls_the_best_of_all_deterministic_policies_remains():
    mdp = random_mdp(11, 3, 3, 0.9)
    values = [
        evaluate(np.eye(3)[list(choice)], mdp.basic, mdp.transition, mdp.gamma, 0.0, None)
        for choice in itertools.product(range(3), repeat=3)
    ]
    _, v, policy = mdp.soft(mdp.basic, 1e-4)
    np.testing.assert_allclose(v, np.max(values, axis=0), rtol=0, atol=1e-3 * math.log(3) / (1 - mdp.gamma))
    assert (policy.max(-1) > 0.99).all()


@given(mdp=mdps(), alpha=temperatures)
@quick
def test_terminal_states_are_worth_nothing(mdp, alpha):
    mask = np.arange(len(mdp.basic)) == 0
    ended = Mdp(mdp.basic, mdp.add_on, mdp.transition, mdp.gamma, mask)
    _, v, policy = ended.soft(mdp.basic, alpha)
    _, v_residual, _ = ended.residual(policy, alpha, alpha)
    assert v[0] == v_residual[0] == 0


# Against functional, which shares no code


@pytest.mark.parametrize("omega_prime", [0.0, 0.4, 2.0])
@pytest.mark.parametrize("terminal", [None, np.array([False, True, False, False])])
def test_equations_on_tensors_iterate_to_the_same_fixed_point(omega_prime, terminal):
    mdp = random_mdp(5, 4, 3, 0.9, terminal)
    alpha_hat = 0.7
    add_on, transition, prior = map(torch.from_numpy, (mdp.add_on, mdp.transition, random_policy(6, 4, 3)))
    alive = torch.ones(4).double() if terminal is None else torch.from_numpy(1.0 - terminal)
    q_residual = torch.zeros(4, 3).double()
    for _ in range(400):  # 0.9 ** 400 = 5e-19
        v_residual = alive * functional.residual_value(q_residual, prior.log(), omega_prime, alpha_hat)
        q_residual = functional.residual_backup(add_on, transition, v_residual, mdp.gamma)
    policy = functional.policy_log_prob(q_residual, prior.log(), omega_prime, alpha_hat).exp()
    found = (q_residual, v_residual, policy)
    for ours, exact in zip(found, mdp.residual(prior.numpy(), omega_prime, alpha_hat), strict=True):
        np.testing.assert_allclose(ours.numpy(), exact, **CLOSE)


def test_sampled_targets_average_to_the_fixed_point():
    """Eq. 8 over all successors, weighted by their probability, leaves the fixed point of Eq. 5e where it is."""
    terminal = np.array([False, False, True])
    mdp = random_mdp(8, 3, 2, 0.9, terminal)
    prior = random_policy(9, 3, 2)
    q_residual, v_residual, _ = mdp.residual(prior, 0.5, 0.8)
    junk = torch.from_numpy(np.where(terminal, 1e6, v_residual))  # no network says 0 where an episode ended
    shape = (3, 2, 3)
    targets = functional.residual_target(
        torch.from_numpy(mdp.add_on)[..., None].expand(shape),
        torch.from_numpy(terminal).expand(shape),
        junk.expand(shape),
        mdp.gamma,
    )
    average = (torch.from_numpy(mdp.transition) * targets).sum(-1)
    np.testing.assert_allclose(average.numpy(), q_residual, **CLOSE)


# Types


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_arrays_in_arrays_out_in_double_precision(dtype):
    reward = np.array([[1, 2], [3, 4]], dtype=dtype)
    transition = np.full((2, 2, 2), 0.5)
    prior = np.full((2, 2), 0.5, dtype=np.float32)
    found = (
        *soft_value_iteration(reward, transition, 0.9, 1.0),
        *residual_value_iteration(prior, reward, transition, 0.9, 1.0, 1.0),
    )
    assert all(isinstance(value, np.ndarray) and value.dtype == np.float64 for value in found)
    assert [value.shape for value in found] == [(2, 2), (2,), (2, 2)] * 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tensors_in_tensors_out_in_double_precision(dtype):
    mdp = random_mdp(1, 3, 2, 0.9, np.array([False, False, True]))
    basic, add_on, transition = (torch.from_numpy(x) for x in (mdp.basic, mdp.add_on, mdp.transition))
    terminal = torch.from_numpy(mdp.terminal)
    soft = soft_value_iteration(basic.to(dtype), transition, 0.9, 1.0, terminal)
    residual = residual_value_iteration(soft[2], add_on.to(dtype), transition, 0.9, 1.0, 1.0, terminal)
    assert all(isinstance(value, torch.Tensor) and value.dtype == torch.float64 for value in (*soft, *residual))
    tolerance = 1e-8 if dtype == torch.float64 else 1e-5
    for ours, expected in zip(soft, mdp.soft(mdp.basic, 1.0), strict=True):
        np.testing.assert_allclose(ours.numpy(), expected, rtol=0, atol=tolerance)
    for ours, expected in zip(residual, mdp.residual(soft[2].numpy(), 1.0, 1.0), strict=True):
        np.testing.assert_allclose(ours.numpy(), expected, rtol=0, atol=tolerance)


def test_inputs_are_left_alone():
    mdp = random_mdp(2, 3, 2, 0.9)
    prior = random_policy(3, 3, 2)
    before = [x.copy() for x in (mdp.add_on, mdp.transition, prior)]
    mdp.residual(prior, 1.0, 1.0)
    assert all((x == y).all() for x, y in zip(before, (mdp.add_on, mdp.transition, prior), strict=True))


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_rewards_of_any_size(scale):
    mdp = random_mdp(4, 4, 3, 0.9)
    _, v, policy = mdp.soft(mdp.basic, 0.5)
    _, v_scaled, policy_scaled = mdp.soft(scale * mdp.basic, scale * 0.5)
    np.testing.assert_allclose(v_scaled / scale, v, **CLOSE)
    np.testing.assert_allclose(policy_scaled, policy, **CLOSE)


# Discounts at and near 1


def chain(end_probability: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """State 0 ends in the terminal state 1 with this probability, whatever is done; one action pays 1, the other 0."""
    reward = np.array([[0.0, 1.0], [0.0, 0.0]])
    transition = np.zeros((2, 2, 2))
    transition[0, :, 0], transition[0, :, 1], transition[1, :, 1] = 1 - end_probability, end_probability, 1
    return reward, transition, np.array([False, True])


@pytest.mark.parametrize("end_probability", [1.0, 0.3, 0.01])
def test_without_discount_where_every_path_ends(end_probability):
    reward, transition, terminal = chain(end_probability)
    _, v, policy = soft_value_iteration(reward, transition, 1.0, 1.0, terminal)
    expected_length = 1 / end_probability
    np.testing.assert_allclose(v, [expected_length * math.log(1 + math.e), 0], rtol=1e-9)
    np.testing.assert_allclose(policy[0, 1], math.e / (1 + math.e), **CLOSE)


def test_without_discount_where_paths_do_not_end_is_refused(monkeypatch):
    monkeypatch.setattr(tabular, "MAX_ITERATIONS", 2000)
    reward, transition, _ = chain(0.5)
    with pytest.raises(ConfigurationError, match="gamma"):
        soft_value_iteration(reward, transition, 1.0, 1.0)


def test_a_discount_close_to_one():
    reward, transition, terminal = chain(0.02)
    _, v, _ = soft_value_iteration(reward, transition, 0.999, 1.0, terminal)
    assert v[0] == pytest.approx(math.log(1 + math.e) / (1 - 0.999 * 0.98), abs=1e-8)


def test_a_clock_is_backward_induction():
    mdp = random_mdp(7, 5, 3, 0.9, np.arange(5) == 4)
    prior = np.random.default_rng(0).dirichlet(np.ones(3), 5)
    clocked = tabular.with_clock(prior, mdp.add_on, mdp.transition, 3, mdp.terminal)
    q, v, _ = residual_value_iteration(*clocked[:3], 0.9, 0.7, 0.4, clocked[3])
    value = np.zeros(5)
    for _ in range(3):
        expected = mdp.add_on + 0.9 * mdp.transition @ value
        value = 0.4 * np.log(np.exp((expected + 0.7 * np.log(prior)) / 0.4).sum(axis=1)) * ~mdp.terminal
    np.testing.assert_allclose(q[:4], expected[:4], **CLOSE)
    np.testing.assert_allclose(v[:5], value, **CLOSE)


@pytest.mark.parametrize("horizon", [0, 1.5])
def test_a_clock_needs_steps(horizon):
    mdp = random_mdp(0, 3, 2, 0.9)
    with pytest.raises(ConfigurationError, match="horizon: found"):
        tabular.with_clock(np.full((3, 2), 0.5), mdp.add_on, mdp.transition, horizon)
