"""Search trees by hand, against a plain search, and what they do not depend on."""

from __future__ import annotations

import math

import numpy as np
import pytest
from planning_examples import PlainNode, PlainSearch, SplitMix, planner_of, random_mdp

from rql_lightning.errors import EnvironmentContractError
from rql_lightning.planning import Settings, TabularDynamics
from rql_lightning.planning.planner import _seed
from rql_lightning.planning.search import NONE


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


# Seed 0 and the observation of state 0 toss these coins. With ε = 5 all actions of the tree are equally probable, and
# so are those of rollouts under a uniform prior: a coin below 1/2 is action 0. Horizon 2, γ = 1/2, ω′ = α̂ = 1.
COINS = [1, 0, 0, 1, 0, 0, 0, 1]
# By simulation: N(0, ·), Q_R(0, ·), N(1, ·) and Q_R(1, ·) after it. log π = −log 2 everywhere, so that
# V_R = log((e^Q_0 + e^Q_1) / 2), in which Q_R of an action without visits is 0.
BY_HAND = [
    # 1: action 1 ends the episode with 8.
    ([0, 1], [0.0, 8.0], None, None),
    # 0, 0: state 1 is a new leaf; its rollout earns 2 by action 0. Q_R(0, 0) = 1 + 2 / 2.
    ([1, 1], [2.0, 8.0], [0, 0], [0.0, 0.0]),
    # 1: as before.
    ([1, 2], [2.0, 8.0], [0, 0], [0.0, 0.0]),
    # 0, 0: through state 1 to the horizon with 2. V_R(1) = log((e^2 + e^0) / 2) = 1.433781; Q_R(0, 0) = 1 + V_R(1) / 2.
    ([2, 2], [1.716890, 8.0], [1, 0], [2.0, 0.0]),
    # 0, 1: through state 1 to the end with 8. V_R(1) = log((e^2 + e^8) / 2) = 7.309328; Q_R(0, 0) = 1 + V_R(1) / 2.
    ([3, 2], [4.654664, 8.0], [1, 1], [2.0, 8.0]),
]
VALUE_BY_HAND = 7.341494  # V_R(0) = log((e^4.654664 + e^8) / 2)


@pytest.mark.parametrize("simulations", [1, 2, 3, 4, 5])
def test_five_simulations_by_hand(simulations):
    dynamics = chain()
    given = {"simulations": simulations, "horizon": 2, "gamma": 0.5, "epsilon": 5.0}
    planner = planner_of(dynamics, np.full((5, 2), 0.5), 1.0, **given)
    _, nodes, (root,) = decided(planner, [0])
    coins = SplitMix(_seed(0, dynamics.states([0])["observation"][0]))
    assert [int(coins.uniform() >= 0.5) for _ in COINS] == COINS
    visits, q, visits_below, q_below = BY_HAND[simulations - 1]
    assert nodes.visits[root].tolist() == visits and nodes.q_residual[root] == pytest.approx(q, abs=1e-6)
    child = nodes.children[root, 0]
    if visits_below is None:
        assert child == NONE
    else:
        assert nodes.visits[child].tolist() == visits_below and nodes.q_residual[child].tolist() == q_below
    if simulations == 5:
        assert nodes.value[root] == pytest.approx(VALUE_BY_HAND, abs=1e-6)


def assert_same_tree(nodes, found, plain):
    """Compare all nodes below a node of the tree with those of the plain search."""
    assert nodes.visits[found].tolist() == plain.visits
    assert nodes.q_residual[found] == pytest.approx(plain.q, abs=1e-12)
    in_tree = {int(action) for action in np.flatnonzero(nodes.children[found] != NONE)}
    in_tree = {action for action in in_tree if nodes.in_tree[nodes.children[found, action]]}
    assert in_tree == set(plain.children)
    for action, child in plain.children.items():
        assert_same_tree(nodes, nodes.children[found, action], child)


@pytest.mark.parametrize("authors", [False, True])
@pytest.mark.parametrize("omega", [0.0, 0.4, 1.0, 2.0])
@pytest.mark.parametrize("simulations", [1, 2, 5, 60])
def test_the_search_is_the_plain_one(omega, simulations, authors):
    for seed in range(4):
        mdp = random_mdp(seed, stochastic=False)
        given = {"simulations": simulations, "horizon": 4, "gamma": 0.9, "alpha_hat": 0.7, "epsilon": 0.3, "seed": seed}
        planner = planner_of(TabularDynamics(*mdp[:3]), mdp[3], omega, **given, authors=authors)
        _, nodes, roots = decided(planner, [0, 1, 2])
        for state, root in enumerate(roots):
            observation = planner._tree.states["observation"][root]
            assert_same_tree(nodes, root, PlainSearch(mdp, omega, Settings(**given), authors).run(state, observation))


def test_the_plain_search_by_hand():
    # One step by action 1 with reward 3, π = (1/4, 3/4) and ω′ = 2. In V_R = log(… + e^3 (3/4)²), action 0, without
    # visits, has the term e^0 (1/4)², and in the authors' variant e^0.
    transition, reward = np.zeros((2, 2, 2)), np.array([[1.0, 3.0], [0.0, 0.0]])
    transition[:, :, 1] = 1.0
    mdp = (reward, transition, np.array([False, True]), np.array([[0.25, 0.75]] * 2))
    for authors, term in ((False, 0.25**2), (True, 1.0)):
        plain = PlainSearch(mdp, 2.0, Settings(1, 1, 0.5, 1.0), authors)
        node = PlainNode(2)
        plain.random = SplitMix(0)
        plain.random.draw = lambda probabilities: 1
        assert plain._visit(node, 0, 0) == pytest.approx(math.log(term + math.exp(3.0) * 0.75**2))


@pytest.mark.parametrize("authors", [False, True])
def test_the_tree_that_is_kept_is_that_of_the_plain_search(authors):
    for seed in range(4):
        mdp = random_mdp(seed, stochastic=False, states=12)
        dynamics = TabularDynamics(*mdp[:3])
        given = {"simulations": 50, "horizon": 4, "gamma": 0.9, "alpha_hat": 0.7, "epsilon": 0.3, "seed": seed}
        planner = planner_of(dynamics, mdp[3], 1.0, **given, reuse="tree", authors=authors)
        plain, kept, state, decisions = PlainSearch(mdp, 1.0, Settings(**given), authors), None, 0, 0
        while decisions < 5 and not mdp[2][state]:
            decision, nodes, (root,) = decided(planner, [state])
            kept = plain.run(state, dynamics.states([state])["observation"][0], kept)
            assert_same_tree(nodes, root, kept)
            action = int(decision.action[0])
            kept, state = kept.children.get(action), int(mdp[1][state, action].argmax())
            decisions += 1
        assert decisions > 1


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
