"""Eq. 13 and 14 and the rate of exploration, against hand computations and the tensor functions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rql_lightning import functional
from rql_lightning.planning import mcts, search

LISTS = st.lists(st.floats(-20, 20), min_size=3, max_size=3)


def test_the_tree_policy_by_hand():
    # exp(Q + ω′ log π) with ω′ = α̂ = 1 is π exp(Q): 0.5 · 1, 0.25 · 2, 0.25 · 4 → 0.25, 0.25, 0.5 of their sum.
    q, log_prior = np.log([1.0, 2.0, 4.0]), np.log([0.5, 0.25, 0.25])
    rate = 0.1 * 3 / math.log(8)
    expected = (1 - rate) * np.array([0.25, 0.25, 0.5]) + rate / 3
    assert mcts.tree_policy(q, log_prior, np.array([3, 2, 2]), 1.0, 0.1) == pytest.approx(expected, abs=1e-15)


def test_the_tree_policy_at_another_temperature_by_hand():
    # α̂ = 0.5, ω′ = 0.25: weights exp(2 Q) π^0.5 = 1 · 0.8, 4 · 0.6.
    policy = mcts.tree_policy(np.log([1.0, 2.0]), 0.25 * np.log([0.64, 0.36]), np.array([9, 9]), 0.5, 0.0)
    assert policy == pytest.approx([0.8 / 3.2, 2.4 / 3.2], abs=1e-15)


@pytest.mark.parametrize(
    ("visits", "epsilon", "expected"),
    [(0, 0.1, 1.0), (0, 0.0, 0.0), (1, 0.1, 0.5 / math.log(2)), (149, 0.1, 0.5 / math.log(150)), (1, 1.0, 1.0)],
)
def test_the_rate_of_exploration(visits, epsilon, expected):
    assert mcts.exploration_rate(np.array([visits, 0, 0, 0, 0]), epsilon) == pytest.approx(expected)


def test_the_backup_by_hand():
    assert mcts.residual_backup(np.array([1.0]), np.array([2.0]), np.array([1.0]), 0.5) == 2.0
    # Two successors, sampled three times and once: (3 · (1 + 0.5 · 2) + (0 + 0.5 · 4)) / 4.
    both = (np.array([1.0, 0.0]), np.array([2.0, 4.0]), np.array([3.0, 1.0]))
    assert mcts.residual_backup(*both, 0.5) == 2.0


@given(LISTS, LISTS, st.floats(0, 3), st.floats(0.05, 5))
def test_value_and_policy_are_those_of_the_tensor_functions(q, logits, omega, alpha):
    log_prior = torch.tensor(logits, dtype=torch.float64).log_softmax(-1)
    arguments = (torch.tensor(q, dtype=torch.float64), log_prior, omega, alpha)
    weighted = (np.array(q), omega * log_prior.numpy())
    value = float(functional.residual_value(*arguments))
    assert mcts.residual_value(*weighted, alpha) == pytest.approx(value, rel=1e-12, abs=1e-12)
    policy = functional.policy_log_prob(*arguments).exp().numpy()
    assert mcts.tree_policy(*weighted, np.ones(3, np.int64), alpha, 0.0) == pytest.approx(policy, abs=1e-12)


def test_actions_that_the_prior_excludes():
    weighted = np.array([0.0, -np.inf])
    assert mcts.residual_value(np.array([1.0, 100.0]), weighted, 1.0) == 1.0
    assert mcts.tree_policy(np.array([1.0, 100.0]), weighted, np.array([1, 1]), 1.0, 0.0) == pytest.approx([1.0, 0.0])
    assert search.draw(np.array([0.0, 1.0, 0.0]), 1.0 - 1e-16) == 1


def test_the_authors_value_takes_actions_without_visits_for_zero():
    # Visited: 0.5 · e^1; the other counts e^0 = 1 instead of its prior's 0.5.
    value = mcts.authors_value(np.array([1.0, 0.0]), np.log([0.5, 0.5]), np.array([1, 0]), 1.0)
    assert value == pytest.approx(math.log(0.5 * math.e + 1))
