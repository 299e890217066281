"""One decision of the search, for people to look at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rql_lightning.planning.mcts import boltzmann
from rql_lightning.planning.search import NONE
from rql_lightning.planning.tree import Tree


@dataclass(frozen=True)
class Plan:
    """The search tree of one root and what it decided.

    Nodes are in the order of a breadth-first search; node 0 is the root.

    Attributes:
        actions: Candidate actions of the root in the environment's units, ``[A, *action_shape]``.
        prior: π(·|s) at the root, restricted to the candidates, ``[A]``.
        policy: π̂(·|s) at the root (Eq. 6), ``[A]``.
        q_residual: Q_R(s, ·) at the root, ``[A]``.
        visits: N(s, ·) at the root, ``[A]``.
        chosen: Index of the action taken.
        parent, action, depth: Where each node is in the tree, −1 for the parent and action of the root, ``[n]``.
        visited: How many simulations passed each node within the tree, 0 for nodes that only rollouts passed, ``[n]``.
            This is a count, except where an action has more successors than one and their number is bounded: the
            search does not count the visits of each, so the visits of the action are shared out in proportion to how
            often the model returned each successor, and rounded.
        value: V_R of each node, or the return of the rollout from a leaf, ``[n]``.
        reward: Add-on reward of the transition into each node, ``[n]``.
        terminated: Whether the episode terminated there, ``[n]``.
        in_tree: Whether the node was expanded, so that actions can be chosen there; never at the horizon, nor where the
            episode terminated, ``[n]``.
        state: The model's states, arrays ``[n, …]``, among them ``observation``.
    """

    actions: np.ndarray
    prior: np.ndarray
    policy: np.ndarray
    q_residual: np.ndarray
    visits: np.ndarray
    chosen: int
    parent: np.ndarray
    action: np.ndarray
    depth: np.ndarray
    visited: np.ndarray
    value: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    in_tree: np.ndarray
    state: dict[str, np.ndarray]


def extract_plan(tree: Tree, root: int, actions: np.ndarray, alpha_hat: float, chosen: int) -> Plan:
    """Return the plan of a root of a tree.

    Args:
        tree: Trees after a search.
        root: Node of the root.
        actions: Candidate actions of the root, ``[A, *action_shape]``.
        alpha_hat: Temperature α̂.
        chosen: Index of the action taken.
    """
    order, parent, action = _breadth_first(tree, root)
    depth = np.zeros(len(order), dtype=np.int64)
    for index in range(1, len(order)):
        depth[index] = depth[parent[index]] + 1
    nodes = tree.nodes
    through = nodes.visits[order[parent], action]
    shares = nodes.times_sampled[order] / np.maximum(_siblings(parent, action, nodes.times_sampled[order]), 1)
    visited = np.where(parent == NONE, nodes.visits[root].sum(), np.round(through * shares)).astype(np.int64)
    return Plan(
        actions=actions,
        prior=np.exp(nodes.log_prior[root]),
        policy=boltzmann(nodes.q_residual[root], nodes.weighted_log_prior[root], alpha_hat),
        q_residual=nodes.q_residual[root].copy(),
        visits=nodes.visits[root].copy(),
        chosen=chosen,
        parent=parent,
        action=action,
        depth=depth,
        visited=visited,
        value=nodes.value[order],
        reward=nodes.reward[order],
        terminated=nodes.terminated[order],
        in_tree=nodes.in_tree[order],
        state=tree.states_of(order),
    )


def _breadth_first(tree: Tree, root: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the nodes below a root, and of each the position of its parent and the action that led to it."""
    order, parent, action = [root], [NONE], [NONE]
    position = 0
    while position < len(order):
        for index, child in enumerate(tree.nodes.children[order[position]]):
            while child != NONE:
                order.append(int(child))
                parent.append(position)
                action.append(index)
                child = tree.nodes.sibling[child]
        position += 1
    return np.array(order), np.array(parent), np.array(action)


def _siblings(parent: np.ndarray, action: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Return how often all successors of the same state and action were sampled together, ``[n]``."""
    _, group = np.unique(np.stack([parent, action]), axis=1, return_inverse=True)
    return np.bincount(group.ravel(), weights=times)[group.ravel()]
