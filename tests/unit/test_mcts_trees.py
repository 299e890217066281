"""Search trees by hand, against a plain search, and what they do not depend on."""

from __future__ import annotations

import math

import numpy as np
import pytest
from planning_examples import PlainSearch, planner_of, random_mdp

from rql_lightning.errors import EnvironmentContractError
from rql_lightning.planning import Settings, TabularDynamics


def chain() -> TabularDynamics:
    """States 0 → 1 → 2 → 3 by action 0, with rewards 1, 2, 4; action 1 ends the episode with reward 8."""
    transition = np.zeros((5, 2, 5))
    for state in range(5):
        transition[state, 0, min(state + 1, 3)] = transition[state, 1, 4] = 1.0
    reward = np.array([[1.0, 8.0], [2.0, 8.0], [4.0, 8.0], [16.0, 8.0], [0.0, 0.0]])
    return TabularDynamics(reward, transition, np.arange(5) == 4)


FORWARD = np.tile([1.0, 0.0], (5, 1))  # a prior that always takes action 0


def decided(planner, states):
    state = planner.dynamics.states(states)
    decision = planner.decide(state["observation"], state)
    root = planner._tree.roots.root
    return decision, planner._tree.nodes, root


def test_one_simulation_by_hand():
    # The leaf is state 1; the rollout earns 2 + 0.5 · 4, so that Q_R = 1 + 0.5 · 4 = 3.
    planner = planner_of(chain(), FORWARD, 1.0, simulations=1, horizon=3, gamma=0.5, epsilon=0.0)
    decision, nodes, (root,) = decided(planner, [0])
    assert nodes.q_residual[root].tolist() == [3.0, 0.0] and nodes.visits[root].tolist() == [1, 0]
    assert decision.action.tolist() == [0] and decision.kl_to_prior == pytest.approx(0.0)
    leaf = nodes.children[root, 0]
    assert nodes.in_tree[leaf] and nodes.value[leaf] == 4.0 and nodes.visits[leaf].tolist() == [0, 0]


def test_two_simulations_by_hand():
    # The second one passes state 1: its Q_R is 2 + 0.5 · R with R = 4 from state 2, and V_R(1) = 4, since π is certain.
    planner = planner_of(chain(), FORWARD, 1.0, simulations=2, horizon=3, gamma=0.5, epsilon=0.0)
    _, nodes, (root,) = decided(planner, [0])
    child = nodes.children[root, 0]
    assert nodes.q_residual[child].tolist() == [4.0, 0.0] and nodes.value[child] == 4.0
    assert nodes.q_residual[root].tolist() == [3.0, 0.0] and nodes.visits[root].tolist() == [2, 0]


def test_five_simulations_by_hand():
    # Two steps, ω′ = α̂ = 1, π uniform: both actions of the root and of state 1 are visited after enough simulations.
    # By action 1 the episode ends: Q_R = 8. By action 0: V_R(1) = log((e^2 + e^8) / 2) once both are visited.
    dynamics = chain()
    planner = planner_of(dynamics, np.full((5, 2), 0.5), 1.0, simulations=5, horizon=2, gamma=0.5, epsilon=5.0)
    _, nodes, (root,) = decided(planner, [0])
    child = nodes.children[root, 0]
    assert nodes.visits[root].sum() == 5 and (nodes.visits[root] > 0).all()
    assert nodes.visits[child].sum() == nodes.visits[root, 0] - 1  # the first visit rolled out
    combined = np.where(nodes.visits[child] > 0, [2.0, 8.0], 0.0)
    value = math.log(sum(math.exp(x) for x in combined) / 2) if nodes.visits[child].sum() else nodes.value[child]
    assert nodes.q_residual[root] == pytest.approx([1 + 0.5 * value, 8.0])
    assert nodes.value[root] == pytest.approx(math.log((math.exp(1 + 0.5 * value) + math.exp(8.0)) / 2))


@pytest.mark.parametrize("omega", [0.0, 0.4, 1.0, 2.0])
@pytest.mark.parametrize("simulations", [1, 2, 5, 60])
def test_the_search_is_the_plain_one(omega, simulations):
    for seed in range(4):
        mdp = random_mdp(seed, stochastic=False)
        given = {"simulations": simulations, "horizon": 4, "gamma": 0.9, "alpha_hat": 0.7, "epsilon": 0.3, "seed": seed}
        planner = planner_of(TabularDynamics(*mdp[:3]), mdp[3], omega, **given)
        _, nodes, roots = decided(planner, [0, 1, 2])
        for state, root in enumerate(roots):
            observation = planner._tree.states["observation"][root]
            plain = PlainSearch(mdp, omega, Settings(**given)).run(state, observation)
            assert nodes.visits[root].tolist() == plain.visits
            assert nodes.q_residual[root] == pytest.approx(plain.q, abs=1e-12)
            for action, child in plain.children.items():
                found = nodes.children[root, action]
                assert nodes.visits[found].tolist() == child.visits
                assert nodes.q_residual[found] == pytest.approx(child.q, abs=1e-12)


@pytest.mark.parametrize("stochastic", [False, True])
def test_neither_order_nor_number_of_roots_changes_anything(stochastic):
    reward, transition, terminal, prior = random_mdp(3, stochastic, states=6)
    states, results = [4, 0, 2, 1, 3], {}
    for chosen in (states, states[::-1], *([state] for state in states)):
        planner = planner_of(TabularDynamics(reward, transition, terminal), prior, 1.0, simulations=40, horizon=4)
        decision, nodes, roots = decided(planner, chosen)
        for row, state in enumerate(chosen):
            found = (nodes.q_residual[roots[row]].tolist(), nodes.visits[roots[row]].tolist(), decision.action[row])
            assert results.setdefault(state, found) == found


def test_an_equal_state_is_decided_equally_and_another_seed_searches_otherwise():
    reward, transition, terminal, prior = random_mdp(3, False)
    dynamics = TabularDynamics(reward, transition, terminal)
    _, nodes, roots = decided(planner_of(dynamics, prior, 1.0, simulations=40, horizon=4), [0, 0])
    assert nodes.q_residual[roots[0]].tolist() == nodes.q_residual[roots[1]].tolist()
    _, other, (root,) = decided(planner_of(dynamics, prior, 1.0, simulations=40, horizon=4, seed=1), [0])
    assert other.visits[root].tolist() != nodes.visits[roots[0]].tolist()


def episode(planner, dynamics, start, steps):
    """Actions, and transitions that the model was asked for, of a few decisions."""
    state, actions, asked = dynamics.states(start), [], []
    step = dynamics.step
    dynamics.step = lambda *arguments: (asked.append(len(arguments[1])), step(*arguments))[1]
    for _ in range(steps):
        decision = planner.decide(state["observation"], state)
        actions.append(decision.action.tolist())
        state = step(state, decision.action).state
    dynamics.step = step
    return actions, sum(asked)


def test_known_states_change_no_decision_and_save_work():
    reward, transition, _, prior = random_mdp(5, False, states=30)
    dynamics = TabularDynamics(reward, transition)
    results = {}
    for reuse in ("nothing", "states", "tree"):
        planner = planner_of(dynamics, prior, 1.0, simulations=60, horizon=5, reuse=reuse)
        results[reuse] = episode(planner, dynamics, [0, 7, 13], 6)
    assert results["states"][0] == results["nothing"][0]
    assert results["tree"][1] < results["states"][1] < results["nothing"][1]


def test_the_tree_that_is_kept_has_its_statistics():
    reward, transition, _, prior = random_mdp(5, False, states=30)
    dynamics = TabularDynamics(reward, transition)
    planner = planner_of(dynamics, prior, 1.0, simulations=60, horizon=5, reuse="tree")
    decision, nodes, (root,) = decided(planner, [0])
    child = nodes.children[root, decision.action[0]]
    before = nodes.visits[child].sum()
    following = dynamics.step(dynamics.states([0]), decision.action).state
    planner.decide(following["observation"], following)
    assert planner._tree.nodes.visits[planner._tree.roots.root[0]].sum() == before + 60 > 60


def test_the_tree_of_another_state_is_not_kept():
    reward, transition, _, prior = random_mdp(5, False, states=30)
    dynamics = TabularDynamics(reward, transition)
    planner = planner_of(dynamics, prior, 1.0, simulations=60, horizon=5, reuse="tree")
    decided(planner, [0, 1])
    _, nodes, roots = decided(planner, [5, 9])
    assert (nodes.visits[roots].sum(axis=1) == 60).all()


def test_successors_of_a_stochastic_model_are_counted_and_bounded():
    reward, transition, _, prior = random_mdp(2, True, states=6)
    dynamics = TabularDynamics(reward, transition)
    for bound, exact in ((0, True), (2, False)):
        planner = planner_of(dynamics, prior, 1.0, simulations=3000, horizon=1, max_successors=bound, epsilon=1.0)
        _, nodes, (root,) = decided(planner, [0])
        for action in range(3):
            times, node = {}, nodes.children[root, action]
            while node >= 0:
                times[int(planner._tree.states["observation"][node].argmax())] = nodes.times_sampled[node]
                node = nodes.sibling[node]
            if exact:
                assert sum(times.values()) == nodes.visits[root, action]
                share = np.array([times.get(state, 0) for state in range(6)]) / sum(times.values())
                assert share == pytest.approx(transition[0, action], abs=0.06)
            else:
                assert len(times) <= 2


def test_states_must_be_as_many_as_observations():
    planner = planner_of(chain(), FORWARD, 1.0)
    state = planner.dynamics.states([0, 1])
    with pytest.raises(EnvironmentContractError, match="state: found 2 rows of 'observation', expected 3"):
        planner.decide(np.zeros((3, 5), np.float32), state)


def test_a_plan_shows_the_tree():
    planner = planner_of(chain(), np.full((5, 2), 0.5), 1.0, simulations=30, horizon=3)
    decision, *_ = decided(planner, [0])
    plan = planner.plan()
    assert plan.chosen == decision.action[0] and plan.visits.sum() == 30 == plan.visited[0]
    assert plan.policy.sum() == pytest.approx(1.0) and plan.prior == pytest.approx([0.5, 0.5])
    assert (plan.depth <= 3).all() and (plan.parent[1:] < np.arange(1, len(plan.parent))).all()
    assert plan.visited[plan.depth == 1].sum() == 30
    assert len(plan.state["observation"]) == len(plan.value)
    with pytest.raises(EnvironmentContractError, match="found no decision"):
        planner_of(chain(), FORWARD, 1.0).plan()
