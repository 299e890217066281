"""Every equation of ``rql_lightning.functional`` against an oracle in plain Python: loops and finite sums."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rql_lightning.functional import (
    actor_critic_value,
    actor_loss,
    combine_with_prior,
    greedy_policy_log_prob,
    greedy_value,
    policy_log_prob,
    residual_backup,
    residual_target,
    residual_value,
    td_loss,
    weighted_log_prob,
)

INF = math.inf
NAN = math.nan


def tensor(*values) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def random_case(seed: int, *shape: int) -> tuple[Tensor, Tensor]:
    """Residual Q-values of size about 3 and the log-probabilities of a random prior, of the same shape."""
    generator = torch.Generator().manual_seed(seed)
    q_residual = 3 * torch.randn(*shape, generator=generator, dtype=torch.float64)
    logits = 2 * torch.randn(*shape, generator=generator, dtype=torch.float64)
    return q_residual, logits - logits.exp().sum(-1, keepdim=True).log()


def policy_by_hand(q: list[float], log_prior: list[float], omega_prime: float, alpha_hat: float) -> list[float]:
    """Eq. 6 as products of powers: π̂ ∝ π^(ω′/α̂) · e^(Q_R/α̂)."""
    pairs = zip(q, log_prior, strict=True)
    weights = [math.exp(p) ** (omega_prime / alpha_hat) * math.exp(x / alpha_hat) for x, p in pairs]
    return [weight / sum(weights) for weight in weights]


def value_by_hand(q: list[float], log_prior: list[float], omega_prime: float, alpha_hat: float) -> float:
    pairs = zip(q, log_prior, strict=True)
    return alpha_hat * math.log(sum(math.exp((x + omega_prime * p) / alpha_hat) for x, p in pairs))


def each_state(by_hand: Callable[..., Any], q: Tensor, log_prior: Tensor, *weights: float) -> Tensor:
    """Apply a function of one state's lists to every row."""
    return tensor(*(by_hand(*rows, *weights) for rows in zip(q.tolist(), log_prior.tolist(), strict=True)))


seeds = st.integers(0, 2**32 - 1)
omegas = st.floats(0.01, 3)
temperatures = st.floats(0.3, 3)
quick = settings(max_examples=40)


# Eq. 6


@given(seed=seeds, actions=st.integers(1, 6), omega_prime=st.floats(0, 3), alpha_hat=temperatures)
@quick
def test_policy_is_the_tilted_prior(seed, actions, omega_prime, alpha_hat):
    q, log_prior = random_case(seed, 5, actions)
    found = policy_log_prob(q, log_prior, omega_prime, alpha_hat).exp()
    expected = each_state(policy_by_hand, q, log_prior, omega_prime, alpha_hat)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_policy_of_two_actions_is_a_logistic_function():
    # log-odds of action 1 are ((1 − 3) + 0.5 log(0.8 / 0.2)) / 2 = −1 + 0.25 log 4
    found = policy_log_prob(tensor(3.0, 1.0), tensor(0.2, 0.8).log(), 0.5, 2.0)
    log_odds = -1 + 0.25 * math.log(4)
    torch.testing.assert_close(found[1], tensor(-math.log1p(math.exp(-log_odds)))[0])


def test_combination_adds_the_weighted_prior():
    assert combine_with_prior(tensor(1.0, -2.0), tensor(-3.0, -0.5), 2.0).tolist() == [-5.0, -3.0]


@given(seed=seeds, omega_prime=omegas)
@quick
def test_without_residual_at_equal_weights_the_prior_comes_back(seed, omega_prime):
    _, log_prior = random_case(seed, 4, 3)
    zero = torch.zeros_like(log_prior)
    torch.testing.assert_close(policy_log_prob(zero, log_prior, omega_prime, omega_prime), log_prior)
    torch.testing.assert_close(residual_value(zero, log_prior, omega_prime, omega_prime), torch.zeros(4).double())


@given(seed=seeds, shift=st.floats(-100, 100), omega_prime=omegas, alpha_hat=temperatures)
@quick
def test_a_constant_moves_the_value_and_not_the_policy(seed, shift, omega_prime, alpha_hat):
    q, log_prior = random_case(seed, 4, 3)
    arguments = (log_prior, omega_prime, alpha_hat)
    torch.testing.assert_close(policy_log_prob(q + shift, *arguments), policy_log_prob(q, *arguments))
    torch.testing.assert_close(residual_value(q + shift, *arguments), residual_value(q, *arguments) + shift)


@given(seed=seeds, shift=st.floats(-100, 100), omega_prime=omegas, alpha_hat=temperatures)
@quick
def test_an_unnormalised_prior_moves_the_value_and_not_the_policy(seed, shift, omega_prime, alpha_hat):
    q, logits = random_case(seed, 4, 3)
    normalised, shifted = ((q, x, omega_prime, alpha_hat) for x in (logits, logits + shift))
    torch.testing.assert_close(policy_log_prob(*shifted), policy_log_prob(*normalised))
    torch.testing.assert_close(residual_value(*shifted), residual_value(*normalised) + omega_prime * shift)


@given(seed=seeds, scale=st.floats(0.1, 10))
@quick
def test_policy_depends_on_ratios_to_the_temperature_only(seed, scale):
    q, log_prior = random_case(seed, 4, 3)
    scaled = policy_log_prob(scale * q, log_prior, scale * 0.7, scale * 0.4)
    torch.testing.assert_close(scaled, policy_log_prob(q, log_prior, 0.7, 0.4))


def test_a_cold_policy_is_greedy_and_a_hot_one_uniform():
    q, log_prior = tensor(1.0, 1.5, 0.0), tensor(0.9, 0.05, 0.05).log()
    best = int(torch.argmax(q + 0.1 * log_prior))
    cold = policy_log_prob(q, log_prior, 0.1, 1e-3).exp()
    hot = policy_log_prob(q, log_prior, 0.1, 1e6).exp()
    assert best == 1 and cold[best] > 1 - 1e-12
    torch.testing.assert_close(hot, torch.full((3,), 1 / 3).double(), rtol=0, atol=1e-5)


# V_R


@given(seed=seeds, actions=st.integers(1, 6), omega_prime=st.floats(0, 3), alpha_hat=temperatures)
@quick
def test_value_is_the_log_of_a_finite_sum(seed, actions, omega_prime, alpha_hat):
    q, log_prior = random_case(seed, 5, actions)
    found = residual_value(q, log_prior, omega_prime, alpha_hat)
    expected = each_state(value_by_hand, q, log_prior, omega_prime, alpha_hat)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@given(seed=seeds, omega_prime=st.floats(0, 3), alpha_hat=temperatures)
@quick
def test_value_is_what_the_policy_earns_with_its_entropy(seed, omega_prime, alpha_hat):
    """V_R = E_π̂[Q_R + ω′ log π − α̂ log π̂]: the variational form, in which Eq. 6 is the maximiser."""
    q, log_prior = random_case(seed, 5, 4)
    log_prob = policy_log_prob(q, log_prior, omega_prime, alpha_hat)
    earned = (log_prob.exp() * (q + omega_prime * log_prior - alpha_hat * log_prob)).sum(-1)
    torch.testing.assert_close(residual_value(q, log_prior, omega_prime, alpha_hat), earned)


def test_value_of_equal_actions_counts_them():
    assert residual_value(torch.full((8,), 2.0).double(), None, 0.0, 0.5).item() == pytest.approx(2 + 0.5 * math.log(8))


def test_gradient_of_the_value_is_the_policy():
    q, log_prior = random_case(3, 4, 3)
    q.requires_grad_()
    (gradient,) = torch.autograd.grad(residual_value(q, log_prior, 0.4, 0.7).sum(), q)
    torch.testing.assert_close(gradient, each_state(policy_by_hand, q, log_prior, 0.4, 0.7))


@pytest.mark.parametrize("function", [policy_log_prob, residual_value])
@pytest.mark.parametrize("omega_prime", [0.0, 0.6])
def test_derivatives_match_finite_differences(function, omega_prime):
    q, log_prior = random_case(4, 3, 4)
    assert torch.autograd.gradcheck(
        lambda q, log_prior: function(q, log_prior, omega_prime, 0.5), (q.requires_grad_(), log_prior.requires_grad_())
    )


# Edges of Eq. 6 and V_R


def test_forgotten_prior_may_exclude_actions():
    q, log_prior = tensor(1.0, 2.0, 3.0), tensor(0.0, -INF, -INF)
    torch.testing.assert_close(
        policy_log_prob(q, log_prior, 0.0, 1.0).exp(), tensor(*policy_by_hand([1, 2, 3], [0, 0, 0], 0, 1))
    )
    assert residual_value(q, log_prior, 0.0, 1.0).item() == pytest.approx(math.log(sum(map(math.exp, [1, 2, 3]))))


def test_forgotten_prior_need_not_be_there():
    q, log_prior = random_case(5, 4, 3)
    assert torch.equal(policy_log_prob(q, None, 0.0, 0.5), policy_log_prob(q, log_prior, 0.0, 0.5))
    assert torch.equal(residual_value(q, None, 0.0, 0.5), residual_value(q, log_prior, 0.0, 0.5))


@pytest.mark.parametrize("omega_prime", [1e-3, 1.0, 10.0])
def test_actions_that_the_prior_never_takes_are_never_taken(omega_prime):
    q, log_prior = tensor(0.0, 1000.0, 1.0), tensor(math.log(0.5), -INF, math.log(0.5))
    probabilities = policy_log_prob(q, log_prior, omega_prime, 1.0).exp()
    assert probabilities[1] == 0
    torch.testing.assert_close(probabilities[[0, 2]], tensor(*policy_by_hand([0, 1], [0, 0], 0, 1)))
    expected = value_by_hand([0, 1], [math.log(0.5)] * 2, omega_prime, 1.0)
    assert residual_value(q, log_prior, omega_prime, 1.0).item() == pytest.approx(expected)


def test_excluded_actions_leave_finite_gradients():
    q = tensor(0.0, 5.0, 1.0).requires_grad_()
    log_prior = tensor(math.log(0.5), -INF, math.log(0.5))
    (gradient,) = torch.autograd.grad(residual_value(q, log_prior, 1.0, 1.0), q)
    assert torch.isfinite(gradient).all() and gradient[1] == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sign", [-1, 1])
def test_large_values_do_not_overflow(dtype, sign):
    q = sign * torch.tensor([1e4, 1e4 - 1, 0.0], dtype=dtype)
    log_prior = torch.tensor([0.25, 0.25, 0.5], dtype=dtype).log()
    log_prob = policy_log_prob(q, log_prior, 1.0, 0.01)
    assert torch.isfinite(log_prob).all()
    assert log_prob.argmax() == (0 if sign > 0 else 2) and log_prob.max().exp() == 1
    expected = 1e4 + math.log(0.25) if sign > 0 else math.log(0.5)
    assert residual_value(q, log_prior, 1.0, 0.01).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("shape", [(3,), (2, 3), (4, 2, 3)])
def test_any_batch_shape(shape):
    q, log_prior = random_case(6, *shape)
    flat = (q.reshape(-1, 3), log_prior.reshape(-1, 3), 0.5, 0.7)
    # Which elements share a vector instruction depends on the shape, and with it the last digits.
    close = {"rtol": 1e-12, "atol": 1e-12}
    torch.testing.assert_close(
        residual_value(q, log_prior, 0.5, 0.7), residual_value(*flat).reshape(shape[:-1]), **close
    )
    torch.testing.assert_close(policy_log_prob(q, log_prior, 0.5, 0.7), policy_log_prob(*flat).reshape(shape), **close)


# Eq. 5e


@given(seed=seeds, states=st.integers(1, 5), actions=st.integers(1, 4), gamma=st.floats(0, 1))
@quick
def test_backup_is_a_finite_sum(seed, states, actions, gamma):
    reward, _ = random_case(seed, states, actions)
    _, log_rows = random_case(seed + 1, states, actions, states)
    value, _ = random_case(seed + 2, states)
    p, v = log_rows.exp().tolist(), value.tolist()
    expected = [
        [reward[s, a].item() + gamma * sum(p[s][a][t] * v[t] for t in range(states)) for a in range(actions)]
        for s in range(states)
    ]
    torch.testing.assert_close(residual_backup(reward, log_rows.exp(), value, gamma), tensor(*expected))


# Eq. 8


def test_target_bootstraps_unless_terminated():
    found = residual_target(tensor(1.0, 2.0, -0.5), torch.tensor([False, True, False]), tensor(10.0, 20.0, -30.0), 0.9)
    assert found.tolist() == pytest.approx([1 + 9, 2, -0.5 - 27])


@pytest.mark.parametrize("junk", [INF, -INF, NAN, 1e30])
def test_value_of_a_terminated_state_is_cut_whatever_the_network_says(junk):
    found = residual_target(tensor(0.25, 1.0), torch.tensor([True, False]), tensor(junk, 2.0), 0.5)
    assert found.tolist() == [0.25, 2.0]


def test_targets_of_k_minibatches():
    reward, value = random_case(7, 3, 5)
    terminated = reward > 0
    found = residual_target(reward, terminated, value, 0.8)
    expected = [
        [r if done else r + 0.8 * v for r, done, v in zip(*rows, strict=True)]
        for rows in zip(reward.tolist(), terminated.tolist(), value.tolist(), strict=True)
    ]
    torch.testing.assert_close(found, tensor(*expected))


# Eq. 7


def huber_by_hand(error: float, delta: float) -> float:
    return error**2 / 2 if abs(error) <= delta else delta * (abs(error) - delta / 2)


@given(errors=st.lists(st.floats(-5, 5), min_size=1, max_size=8), delta=st.floats(0.1, 4))
@quick
def test_losses_are_means_over_transitions(errors, delta):
    target = torch.arange(len(errors), dtype=torch.float64)
    taken = target + tensor(*errors)
    square, huber = td_loss(taken, target), td_loss(taken, target, huber_delta=delta)
    assert square.shape == huber.shape == ()
    assert square.item() == pytest.approx(sum(e**2 / 2 for e in errors) / len(errors), abs=1e-9)
    assert huber.item() == pytest.approx(sum(huber_by_hand(e, delta) for e in errors) / len(errors), abs=1e-9)


def test_gradient_of_the_square_is_the_error_and_huber_clips_it():
    taken = tensor(0.3, -4.0, 7.0).requires_grad_()
    target = torch.zeros(3).double()
    (square,) = torch.autograd.grad(3 * td_loss(taken, target), taken)
    (huber,) = torch.autograd.grad(3 * td_loss(taken, target, huber_delta=2.0), taken)
    assert square.tolist() == pytest.approx([0.3, -4, 7])
    assert huber.tolist() == pytest.approx([0.3, -2, 2])


# Shapes

MISSHAPED: dict[str, Callable[[], Tensor]] = {
    "prior of fewer actions": lambda: policy_log_prob(torch.zeros(4, 3), torch.zeros(4, 2), 1.0, 1.0),
    "prior that would broadcast over states": lambda: policy_log_prob(torch.zeros(4, 3), torch.zeros(3), 1.0, 1.0),
    "value with a broadcast prior": lambda: residual_value(torch.zeros(4, 3), torch.zeros(4, 1), 1.0, 1.0),
    "no prior": lambda: residual_value(torch.zeros(4, 3), None, 1.0, 1.0),
    "transition transposed": lambda: residual_backup(torch.zeros(2, 3), torch.zeros(3, 2, 2), torch.zeros(2), 0.9),
    "value of other states": lambda: residual_backup(torch.zeros(2, 3), torch.zeros(2, 3, 2), torch.zeros(2, 1), 0.9),
    "reward a column": lambda: residual_target(torch.zeros(4, 1), torch.zeros(4).bool(), torch.zeros(4), 0.9),
    "terminated a column": lambda: residual_target(torch.zeros(4), torch.zeros(4, 1).bool(), torch.zeros(4), 0.9),
    "next value a column": lambda: residual_target(torch.zeros(4), torch.zeros(4).bool(), torch.zeros(4, 1), 0.9),
    "square of a column": lambda: td_loss(torch.zeros(4), torch.zeros(4, 1)),
    "huber of a scalar": lambda: td_loss(torch.zeros(4), torch.zeros(()), huber_delta=1.0),
}


@pytest.mark.parametrize("what", MISSHAPED)
def test_wrong_shapes_are_refused(what):
    with pytest.raises(AssertionError):
        MISSHAPED[what]()


# -- weights that differ from state to state -------------------------------------------------------------------------


@quick
@given(seeds)
def test_weights_may_be_one_per_state(seed):
    """Equations give, for tensors of ω′ and α̂, what they give for each of their numbers alone; ω′ = 0 among them."""
    q, log_prior = random_case(seed, 4, 3)
    log_prior[0, 1] = -INF
    omega_prime, alpha_hat = tensor(0.0, 0.5, 1.0, 2.0), tensor(0.4, 0.5, 1.0, 3.0)
    for equation in (policy_log_prob, residual_value, greedy_policy_log_prob, greedy_value):
        found = equation(q, log_prior, omega_prime, alpha_hat)
        rows = zip(q, log_prior, omega_prime.tolist(), alpha_hat.tolist(), strict=True)
        torch.testing.assert_close(found, torch.stack([equation(*row) for row in rows]))
        assert found.isfinite().all() or equation not in (residual_value, greedy_value)
    combined = combine_with_prior(q, log_prior, omega_prime)
    assert torch.equal(combined[0], q[0]), "0 · −∞ counts as 0"
    column = combine_with_prior(q, log_prior, tensor(0.7))
    torch.testing.assert_close(column, combine_with_prior(q, log_prior, 0.7))


@quick
@given(seeds)
def test_weights_of_continuous_actions_may_be_one_per_state(seed):
    q, log_prob = random_case(seed, 5, 4)
    prior_log_prob = random_case(seed + 1, 5, 4)[1]
    omega_prime, alpha_hat = (
        torch.linspace(0, 2, 4, dtype=torch.float64),
        torch.linspace(0.1, 1, 4, dtype=torch.float64),
    )
    weighted = weighted_log_prob(prior_log_prob, omega_prime)
    value = actor_critic_value(q, log_prob, alpha_hat, weighted)
    loss = actor_loss(log_prob, q, alpha_hat, weighted)
    losses = []
    for column in range(4):
        omega, alpha = omega_prime[column].item(), alpha_hat[column].item()
        alone = weighted_log_prob(prior_log_prob[:, column], omega)
        torch.testing.assert_close(
            value[:, column], actor_critic_value(q[:, column], log_prob[:, column], alpha, alone)
        )
        losses.append(actor_loss(log_prob[:, column], q[:, column], alpha, alone))
    torch.testing.assert_close(loss, torch.stack(losses).mean())


def test_a_forgotten_prior_gives_no_gradient_that_is_not_a_number():
    log_prior = tensor([-INF, 0.0]).requires_grad_()
    q = tensor([1.0, 2.0]).requires_grad_()
    value = residual_value(q, log_prior, tensor(0.0), 1.0)
    gradients = torch.autograd.grad(value.sum(), [q, log_prior])
    assert all(gradient.isfinite().all() for gradient in gradients)
