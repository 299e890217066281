"""The search over the equations of residual maximum-entropy Monte Carlo tree search, compiled.

It is written as a coroutine, so that it needs no compiled model: :data:`advance` runs the simulations of each root
until it needs a transition that the tree does not hold, and returns which. The caller asks the model for all of them at
once, writes the successors into nodes, and calls again.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from rql_lightning.compilation import entry_point
from rql_lightning.planning.mcts import authors_value, residual_backup, residual_value, tree_policy

NONE = -1
START, IN_TREE, ROLL_OUT = range(3)


class Nodes(NamedTuple):
    """The nodes of all trees, as arrays with one row per node.

    A node is a state that the model reached. ``in_tree`` marks those of the search tree; others were only passed by
    rollouts, or are beyond the horizon.

    Attributes:
        children: The latest successor of each action, or ``NONE``, ``[n, A]``.
        sibling: Another successor of the same state and action, or ``NONE``, ``[n]``.
        times_sampled: How often the model returned this successor, ``[n]``.
        visits: N(s, a), ``[n, A]``.
        q_residual: Q_R(s, a), 0 where N(s, a) = 0, ``[n, A]``.
        log_prior: Log-probabilities of the rollout policy, ``[n, A]``; NaN where the prior was not asked.
        weighted_log_prior: ω′ log π(a|s), ``[n, A]``.
        value: V_R(s), or the return of the rollout from a leaf, ``[n]``.
        reward: Add-on reward of the transition into this state, ``[n]``.
        terminated: Whether the episode terminated in this state, ``[n]``.
        in_tree: See above, ``[n]``.
    """

    children: np.ndarray
    sibling: np.ndarray
    times_sampled: np.ndarray
    visits: np.ndarray
    q_residual: np.ndarray
    log_prior: np.ndarray
    weighted_log_prior: np.ndarray
    value: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    in_tree: np.ndarray


class Roots(NamedTuple):
    """Where the search from each root stands, ``[R]`` unless said.

    Attributes:
        root: Node of the root.
        left: Simulations that are still to be made.
        phase: ``START``, ``IN_TREE`` or ``ROLL_OUT``.
        node, action, depth: Where the running simulation is, and what it does there.
        arrived: The node that the action led to, or ``NONE``.
        leaf, length: The leaf that the tree policy reached, and its depth.
        path_nodes, path_actions: What the tree policy passed, ``[R, horizon]``.
        rollout_return, discount: Discounted return of the running rollout, and γ to the power of its length.
        spare, turn: Two nodes for the rollouts of stochastic models, which are not kept, ``[R, 2]``.
        random: State of the random numbers, uint64.
    """

    root: np.ndarray
    left: np.ndarray
    phase: np.ndarray
    node: np.ndarray
    action: np.ndarray
    depth: np.ndarray
    arrived: np.ndarray
    leaf: np.ndarray
    length: np.ndarray
    path_nodes: np.ndarray
    path_actions: np.ndarray
    rollout_return: np.ndarray
    discount: np.ndarray
    spare: np.ndarray
    turn: np.ndarray
    random: np.ndarray


class Rules(NamedTuple):
    """Settings of the search.

    Attributes:
        horizon: Depth at which simulations end.
        gamma: Discount γ.
        alpha_hat: Temperature α̂.
        epsilon: ε of the rate of exploration.
        deterministic: Whether a state and action have one successor, so that rollouts are kept, too.
        merges: Whether equal observations are equal states, so that equal successors are one node.
        max_successors: Number of successors sampled per state and action, after which they are drawn from; 0 for no
            bound.
        authors: Whether to search as the authors' code does (:func:`authors_value`).
    """

    horizon: int
    gamma: float
    alpha_hat: float
    epsilon: float
    deterministic: bool
    merges: bool
    max_successors: int
    authors: bool


def mixed_bits(z: Any) -> Any:
    """Return random bits made from a counter, uint64, a scalar or an array (SplitMix64, Steele et al. 2014)."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


_mixed_bits = njit(mixed_bits)


@njit
def next_uniform(random: np.ndarray, r: int) -> float:
    """Return a number in [0, 1) of root r's own random numbers."""
    random[r] += np.uint64(0x9E3779B97F4A7C15)
    return float(_mixed_bits(random[r]) >> np.uint64(11)) / 9007199254740992.0


@njit
def draw(probabilities: np.ndarray, uniform: float) -> int:
    """Return the index at which the sum of the probabilities exceeds a uniform number; never one of probability 0."""
    total, last = 0.0, 0
    for index in range(len(probabilities)):
        if probabilities[index] > 0.0:
            total += probabilities[index]
            last = index
            if uniform < total:
                return index
    return last


@njit
def _known_successor(nodes: Nodes, roots: Roots, rules: Rules, r: int) -> int:
    """Return a stored successor of root r's node and action in the tree, or ``NONE`` where the model is to be asked."""
    head = nodes.children[roots.node[r], roots.action[r]]
    if head == NONE or rules.deterministic:
        return head
    successors, times = 0, 0
    node = head
    while node != NONE:
        successors += 1
        times += nodes.times_sampled[node]
        node = nodes.sibling[node]
    if rules.max_successors == 0 or successors < rules.max_successors:
        return NONE
    rank, node = next_uniform(roots.random, r) * times, head
    while nodes.sibling[node] != NONE and rank >= nodes.times_sampled[node]:
        rank -= nodes.times_sampled[node]
        node = nodes.sibling[node]
    return node


@njit
def _choose(nodes: Nodes, roots: Roots, rules: Rules, r: int) -> int:
    """Choose root r's next action; return the stored successor, or ``NONE`` where the model is to be asked."""
    node, rolling = roots.node[r], roots.phase[r] == ROLL_OUT
    if rolling:
        policy = np.empty(nodes.visits.shape[1])
        for a in range(len(policy)):
            policy[a] = math.exp(nodes.log_prior[node, a])
    else:
        prior = np.zeros(nodes.visits.shape[1]) if rules.authors else nodes.weighted_log_prior[node]
        policy = tree_policy(nodes.q_residual[node], prior, nodes.visits[node], rules.alpha_hat, rules.epsilon)
    roots.action[r] = draw(policy, next_uniform(roots.random, r))
    if rolling:
        return nodes.children[node, roots.action[r]] if rules.deterministic else NONE
    roots.path_nodes[r, roots.depth[r]], roots.path_actions[r, roots.depth[r]] = node, roots.action[r]
    return _known_successor(nodes, roots, rules, r)


@njit
def _back_up(nodes: Nodes, roots: Roots, rules: Rules, r: int) -> None:
    """Update the path of root r's simulation from its leaf to the root (Eq. 14)."""
    for t in range(roots.length[r] - 1, -1, -1):
        node, action = roots.path_nodes[r, t], roots.path_actions[r, t]
        count, successor = 0, nodes.children[node, action]
        while successor != NONE:
            count, successor = count + 1, nodes.sibling[successor]
        reward, value, times = np.empty(count), np.empty(count), np.empty(count)
        successor = nodes.children[node, action]
        for k in range(count):
            reward[k], value[k] = nodes.reward[successor], nodes.value[successor]
            times[k] = nodes.times_sampled[successor]
            successor = nodes.sibling[successor]
        nodes.q_residual[node, action] = residual_backup(reward, value, times, rules.gamma)
        nodes.visits[node, action] += 1
        q_residual, prior = nodes.q_residual[node], nodes.weighted_log_prior[node]
        if rules.authors:
            nodes.value[node] = authors_value(q_residual, prior, nodes.visits[node], rules.alpha_hat)
        else:
            nodes.value[node] = residual_value(q_residual, prior, rules.alpha_hat)


@njit
def _arrive(nodes: Nodes, roots: Roots, rules: Rules, r: int) -> bool:
    """Move root r's simulation to the node that it arrived at; return whether the simulation goes on from there."""
    node = roots.arrived[r]
    roots.arrived[r], roots.node[r] = NONE, node
    roots.depth[r] += 1
    ends = nodes.terminated[node] or roots.depth[r] == rules.horizon
    if roots.phase[r] == ROLL_OUT:
        roots.rollout_return[r] += roots.discount[r] * nodes.reward[node]
        roots.discount[r] *= rules.gamma
        return not ends
    if not ends and nodes.in_tree[node]:
        return True
    roots.leaf[r], roots.length[r] = node, roots.depth[r]
    roots.rollout_return[r], roots.discount[r] = 0.0, 1.0
    roots.phase[r] = ROLL_OUT
    if not ends:
        nodes.in_tree[node] = True  # the leaf is expanded
    return not ends


@entry_point
def advance_one(nodes: Nodes, roots: Roots, rules: Rules, r: int) -> bool:
    """Run root r's simulations; return whether it waits for a transition."""
    while True:
        if roots.arrived[r] == NONE:
            if roots.phase[r] == START:
                if roots.left[r] == 0:
                    return False
                roots.node[r], roots.depth[r], roots.phase[r] = roots.root[r], 0, IN_TREE
            roots.arrived[r] = _choose(nodes, roots, rules, r)
            if roots.arrived[r] == NONE:
                return True
        if not _arrive(nodes, roots, rules, r):
            nodes.value[roots.leaf[r]] = roots.rollout_return[r]
            _back_up(nodes, roots, rules, r)
            roots.left[r] -= 1
            roots.phase[r] = START


@njit
def _same_successor(nodes: Nodes, head: int, observations: np.ndarray, new: int) -> int:
    """Return the stored successor, in a list that starts at ``head``, that equals a new node, or ``NONE``."""
    node = head
    while node != NONE:
        alike = nodes.reward[node] == nodes.reward[new] and nodes.terminated[node] == nodes.terminated[new]
        for column in range(observations.shape[1]):
            alike = alike and observations[node, column] == observations[new, column]
        if alike:
            return node
        node = nodes.sibling[node]
    return NONE


@entry_point
def link(nodes: Nodes, roots: Roots, rules: Rules, r: int, node: int, observations: np.ndarray) -> None:
    """Enter the transition that root r waits for, whose successor, reward and end are already written at a node."""
    if roots.phase[r] == IN_TREE or rules.deterministic:
        parent, action = roots.node[r], roots.action[r]
        head, same = nodes.children[parent, action], NONE
        if rules.merges:
            same = _same_successor(nodes, head, observations, node)
        if same == NONE:
            nodes.sibling[node], nodes.children[parent, action] = head, node
        else:
            node = same
        nodes.times_sampled[node] += 1
    roots.arrived[r] = node


def _advance(
    nodes: Nodes, roots: Roots, rules: Rules, waiting: np.ndarray, new: np.ndarray, observations: np.ndarray
) -> int:
    for k in range(len(new)):
        link(nodes, roots, rules, waiting[k], new[k], observations)
    count = 0
    for r in range(len(roots.root)):
        if advance_one(nodes, roots, rules, r):
            waiting[count] = r
            count += 1
    return count


def _descendants(children: np.ndarray, sibling: np.ndarray, roots: np.ndarray, found: np.ndarray) -> int:
    """Write the roots and then all nodes below them into ``found``; return how many there are."""
    count = len(roots)
    found[:count] = roots
    done = 0
    while done < count:
        for action in range(children.shape[1]):
            node = children[found[done], action]
            while node != NONE:
                found[count] = node
                count += 1
                node = sibling[node]
        done += 1
    return count


advance = entry_point(_advance)
"""``(nodes, roots, rules, waiting [R], new [j], observations [n, D]) → k``: enter the transitions that the first j of
``waiting`` asked for, which led to the nodes ``new``; then run all roots until each is finished or needs another one,
from ``node`` by ``action``. The first k of ``waiting`` are then the roots that do."""
descendants = entry_point(_descendants)
"""``(children, sibling, roots [k], found [n]) → count``: write the roots and then all nodes below them."""
