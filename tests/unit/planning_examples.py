"""Finite MDPs with priors, exact solutions, and a plain search, for the tests of planning."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from rql_lightning.planning import Planner, Settings, TabularActions, TabularDynamics
from rql_lightning.planning.planner import _seed
from rql_lightning.tabular import residual_value_iteration, with_clock


def planner_of(dynamics: TabularDynamics, probabilities: Any, omega_prime: float, **settings: Any) -> Planner:
    settings = {"simulations": 1, "horizon": 3, "gamma": 0.9, "alpha_hat": 1.0, **settings}
    return Planner(dynamics, TabularActions(probabilities, omega_prime), Settings(**settings))


def random_mdp(seed: int, stochastic: bool, states: int = 4, actions: int = 3) -> tuple[Any, ...]:
    """r_R ``[S, A]``, p ``[S, A, S]``, terminal ``[S]`` (the last state) and π ``[S, A]``."""
    random = np.random.default_rng(seed)
    if stochastic:
        transition = random.dirichlet(np.ones(states), (states, actions))
    else:
        transition = np.eye(states)[random.integers(states, size=(states, actions))]
    reward, prior = random.normal(size=(states, actions)), random.dirichlet(np.ones(actions), states)
    return reward, transition, np.arange(states) == states - 1, prior


def finite_horizon(
    reward: Any, transition: Any, terminal: Any, prior: Any, horizon: int, gamma: float, omega: float, alpha: float
) -> tuple[np.ndarray, np.ndarray]:
    """Exact Q_R and policy ``[S, A]`` with this many steps to go: value iteration on states with a clock."""
    prior, reward, transition, ends = with_clock(prior, reward, transition, horizon, terminal)
    q, _, policy = residual_value_iteration(prior, reward, transition, gamma, omega, alpha, ends)
    return q[: len(terminal)], policy[: len(terminal)]


class SplitMix:
    """SplitMix64 on Python's integers."""

    def __init__(self, seed: int) -> None:
        self.state = seed

    def uniform(self) -> float:
        mask = 2**64 - 1
        self.state = (self.state + 0x9E3779B97F4A7C15) & mask
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        return ((z ^ (z >> 31)) >> 11) / 2**53

    def draw(self, probabilities: list[float]) -> int:
        uniform, total = self.uniform(), 0.0
        for index, probability in enumerate(probabilities):
            total += probability
            if probability > 0 and uniform < total:
                return index
        return max(index for index, probability in enumerate(probabilities) if probability > 0)


class PlainNode:
    """A node of :class:`PlainSearch`."""

    def __init__(self, actions: int) -> None:
        self.q, self.visits = [0.0] * actions, [0] * actions
        self.children: dict[int, PlainNode] = {}


class PlainSearch:
    """The search as its definition reads, on a deterministic MDP: recursive, one root, nothing stored but the tree.

    With ``authors``, the tree policy is a softmax of Q_R alone, and in backups an action without visits counts as 0.
    """

    def __init__(self, mdp: tuple[Any, ...], omega: float, settings: Settings, authors: bool = False) -> None:
        self.reward, self.transition, self.terminal, self.prior = mdp
        self.omega, self.settings, self.authors = omega, settings, authors
        self.actions = self.reward.shape[1]

    def run(self, state: int, observation: np.ndarray, root: PlainNode | None = None) -> PlainNode:
        """Search from a new root, or go on from a node of an earlier search."""
        self.random = SplitMix(_seed(self.settings.seed, observation))
        root = PlainNode(self.actions) if root is None else root
        for _ in range(self.settings.simulations):
            self._visit(root, state, 0)
        return root

    def _visit(self, node: PlainNode, state: int, depth: int) -> float:
        """One simulation from a node in the tree; returns V_R of the node after it (Eq. 14)."""
        action = self.random.draw(self._tree_policy(node, state))
        following = int(self.transition[state, action].argmax())
        if self.terminal[following] or depth + 1 == self.settings.horizon:
            value = 0.0
        elif action in node.children:
            value = self._visit(node.children[action], following, depth + 1)
        else:
            node.children[action] = PlainNode(self.actions)
            value = self._roll_out(following, depth + 1)
        node.q[action] = self.reward[state, action] + self.settings.gamma * value
        node.visits[action] += 1
        alpha, combined = self.settings.alpha_hat, self._combined(node, state)
        if self.authors:
            combined = [x if visits else 0.0 for x, visits in zip(combined, node.visits, strict=True)]
        return alpha * math.log(sum(math.exp(x / alpha) for x in combined))

    def _combined(self, node: PlainNode, state: int) -> list[float]:
        log_prior = np.log(self.prior[state])
        return [q + self.omega * log for q, log in zip(node.q, log_prior, strict=True)]

    def _tree_policy(self, node: PlainNode, state: int) -> list[float]:
        energies = node.q if self.authors else self._combined(node, state)
        weights = [math.exp(x / self.settings.alpha_hat) for x in energies]
        count = sum(node.visits)
        rate = min(1.0, self.settings.epsilon * self.actions / math.log(count + 1)) if count else 1.0
        rate = 0.0 if self.settings.epsilon == 0 else rate
        return [(1 - rate) * weight / sum(weights) + rate / self.actions for weight in weights]

    def _roll_out(self, state: int, depth: int) -> float:
        total, discount = 0.0, 1.0
        while depth < self.settings.horizon and not self.terminal[state]:
            action = self.random.draw(list(self.prior[state]))
            total += discount * self.reward[state, action]
            state, depth = int(self.transition[state, action].argmax()), depth + 1
            discount *= self.settings.gamma
        return total
