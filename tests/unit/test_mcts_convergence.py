"""The search converges to exact residual value iteration with a finite horizon as simulations grow."""

from __future__ import annotations

import numpy as np
import pytest
from planning_examples import finite_horizon, planner_of, random_mdp

from rql_lightning.planning import TabularDynamics

WEIGHTS = [(1.0, 1.0), (0.3, 1.0), (2.0, 0.5), (0.0, 0.7)]


def searched(mdp, omega, alpha, simulations, horizon=3, **settings):
    reward, transition, terminal, prior = mdp
    dynamics = TabularDynamics(reward, transition, terminal)
    given = {"alpha_hat": alpha, "simulations": simulations, "horizon": horizon, "epsilon": 0.5, "max_successors": 0}
    planner = planner_of(dynamics, prior, omega, **{**given, **settings})
    states = np.flatnonzero(~terminal)
    state = dynamics.states(states)
    planner.decide(state["observation"], state)
    plans = [planner.plan(row) for row in range(len(states))]
    exact_q, exact_policy = finite_horizon(*mdp, horizon, 0.9, omega, alpha)
    q = np.array([plan.q_residual for plan in plans])
    policy = np.array([plan.policy for plan in plans])
    return np.abs(q - exact_q[states]).max(), np.abs(policy - exact_policy[states]).max()


@pytest.mark.parametrize(("omega", "alpha"), WEIGHTS)
def test_deterministic(omega, alpha):
    for seed in range(3):
        mdp = random_mdp(seed, stochastic=False)
        errors = [max(searched(mdp, omega, alpha, simulations)) for simulations in (20, 1500)]
        assert errors[1] < 1e-6 < errors[0]


@pytest.mark.parametrize(("omega", "alpha"), WEIGHTS)
def test_stochastic(omega, alpha):
    errors = []
    for simulations in (60, 2000):
        mdps = [random_mdp(seed, True, states=4, actions=2) for seed in range(3)]
        errors.append(np.mean([max(searched(mdp, omega, alpha, simulations, horizon=2)) for mdp in mdps]))
    assert errors[1] < 0.08 and errors[1] < errors[0] / 2


@pytest.mark.parametrize(("omega", "alpha"), WEIGHTS)
def test_values_of_a_tree_that_is_kept(omega, alpha):
    """Values of an earlier decision are for a horizon that is a step shorter; visits of this one must replace them.

    ε is large, as kept visits lower the rate of exploration, and an action without visits is not exact.
    """
    for seed in range(3):
        reward, transition, _, prior = random_mdp(seed, stochastic=False)
        mdp = (reward, transition, np.zeros(4, dtype=bool), prior)
        dynamics = TabularDynamics(*mdp[:3])
        given = {"alpha_hat": alpha, "simulations": 1500, "horizon": 3, "epsilon": 5.0, "reuse": "tree"}
        planner = planner_of(dynamics, prior, omega, **given)
        exact_q, exact_policy = finite_horizon(*mdp, 3, 0.9, omega, alpha)
        state, visits = dynamics.states([0, 1, 2, 3]), []
        for _ in range(3):
            index = state["observation"].argmax(axis=1)
            decision = planner.decide(state["observation"], state)
            plans = [planner.plan(row) for row in range(4)]
            assert np.array([plan.q_residual for plan in plans]) == pytest.approx(exact_q[index], abs=1e-6)
            assert np.array([plan.policy for plan in plans]) == pytest.approx(exact_policy[index], abs=1e-6)
            visits.append([plan.visits.sum() for plan in plans])
            state = dynamics.step(state, decision.action).state
        assert np.min(visits[1:]) > 1500  # visits are kept, so values are as well


def test_a_large_weight_returns_the_prior_and_none_forgets_it():
    reward, transition, terminal, _ = random_mdp(1, False)
    certain = np.array([[0.98, 0.01, 0.01]] * 4)
    dynamics = TabularDynamics(reward, transition, terminal)
    state = dynamics.states([0, 1, 2])
    strong = planner_of(dynamics, certain, 1000.0, alpha_hat=1000.0, simulations=500)
    decision = strong.decide(state["observation"], state)
    assert decision.action.tolist() == [0, 0, 0] and (decision.kl_to_prior < 1e-4).all()
    actions = []
    for prior in (certain, certain[:, ::-1].copy()):
        free = planner_of(dynamics, prior, 0.0, alpha_hat=0.1, simulations=1000, epsilon=0.5)
        actions.append(free.decide(state["observation"], state).action.tolist())
        exact, _ = finite_horizon(reward, transition, terminal, prior, 3, 0.9, 0.0, 0.1)
        assert actions[-1] == exact[:3].argmax(axis=1).tolist()
    assert actions[0] == actions[1]


def test_the_authors_variant_is_another_search():
    mdp = random_mdp(0, False)
    planners = [
        planner_of(TabularDynamics(*mdp[:3]), mdp[3], 1.0, simulations=20, horizon=4, authors=authors)
        for authors in (False, True)
    ]
    state = planners[0].dynamics.states([0])
    for planner in planners:
        planner.decide(state["observation"], state)
    assert planners[0].plan().q_residual.tolist() != planners[1].plan().q_residual.tolist()
