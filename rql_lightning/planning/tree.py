"""Search trees of many roots in flat arrays that grow, with the model's states stored in the nodes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from rql_lightning.planning.search import NONE, START, Nodes, Roots, descendants

State = Mapping[str, np.ndarray]
"""States of a model as arrays of one row per state, ``[n, …]``: ``observation``, and whatever else the model needs."""


class Tree:
    """Nodes of R trees, each with its state, observation and candidate actions.

    Args:
        roots: Number of trees R.
        actions: Number of candidate actions A.
        horizon: Depth at which simulations end.

    Attributes:
        size: Number of nodes in use.
        nodes: Statistics (:class:`~rql_lightning.planning.search.Nodes`); rows from ``size`` on are unused.
        roots: Where the search from each root stands (:class:`~rql_lightning.planning.search.Roots`).
        states: The model's states, ``[n, …]``.
        candidates: Candidate actions of each node in the environment's units, ``[n, A, …]``, if they differ.
    """

    def __init__(self, roots: int, actions: int, horizon: int) -> None:
        self.actions, self.size = actions, 0
        self.nodes = self._unused(0)
        self.states: dict[str, np.ndarray] = {}
        self.candidates: np.ndarray | None = None
        integers = {name: np.zeros(roots, dtype=np.int64) for name in Roots._fields}
        numbers = {name: np.zeros(roots) for name in ("rollout_return", "discount")}
        paths = {name: np.zeros((roots, horizon), dtype=np.int64) for name in ("path_nodes", "path_actions")}
        others = {"spare": np.zeros((roots, 2), dtype=np.int64), "random": np.zeros(roots, dtype=np.uint64)}
        self.roots = Roots(**{**integers, **numbers, **paths, **others})

    def start(self, root: np.ndarray, simulations: int, seeds: np.ndarray) -> None:
        """Start a search from each root.

        Args:
            root: Nodes of the roots, ``[R]``.
            simulations: Number of simulations from each.
            seeds: Seeds of their random numbers, uint64 ``[R]``.
        """
        self.roots.root[:], self.roots.left[:], self.roots.random[:] = root, simulations, seeds
        self.roots.phase[:], self.roots.arrived[:] = START, NONE
        self.nodes.in_tree[root] = True

    def reserve(self, count: int) -> np.ndarray:
        """Take nodes into use and return them, ``[count]``."""
        self.make_room(count)
        self.size += count
        return np.arange(self.size - count, self.size)

    def make_room(self, count: int) -> None:
        """Make sure that there are unused nodes for this many more."""
        capacity = len(self.nodes.value)
        if self.size + count <= capacity:
            return
        more = max(self.size + count - capacity, capacity, 64)
        pairs = zip(self.nodes, self._unused(more), strict=True)
        self.nodes = Nodes(*(np.concatenate(pair) for pair in pairs))
        self.states = {key: _extended(column, len(self.nodes.value)) for key, column in self.states.items()}
        if self.candidates is not None:
            self.candidates = _extended(self.candidates, len(self.nodes.value))

    def write_states(self, ids: np.ndarray, states: State) -> None:
        """Write states ``[k, …]`` at nodes ``[k]``."""
        for key, rows in states.items():
            if key not in self.states:
                self.states[key] = self._column(rows)
            self.states[key][ids] = rows

    def write_candidates(self, ids: np.ndarray, actions: np.ndarray) -> None:
        """Write candidate actions ``[k, A, …]`` at nodes ``[k]``."""
        if self.candidates is None:
            self.candidates = self._column(actions)
        self.candidates[ids] = actions

    def _column(self, rows: np.ndarray) -> np.ndarray:
        return np.empty((len(self.nodes.value), *rows.shape[1:]), rows.dtype)

    def states_of(self, ids: np.ndarray) -> dict[str, np.ndarray]:
        """Return copies of the states of nodes ``[k]``."""
        return {key: column[ids] for key, column in self.states.items()}

    @property
    def observations(self) -> np.ndarray:
        """Flat observations of all nodes, ``[n, D]``."""
        observation = self.states["observation"]
        return observation.reshape(len(observation), -1)

    def child(self, node: np.ndarray, action: np.ndarray) -> np.ndarray:
        """Return the latest successors of nodes and actions ``[k]`` each, or ``NONE``."""
        return self.nodes.children[node, action]

    def keep(self, roots: np.ndarray, statistics: bool) -> np.ndarray:
        """Forget all nodes but those below some, and return the new numbers of these.

        Args:
            roots: Nodes to keep with all below them, ``[k]``; none is below another.
            statistics: Whether to keep visits, values and which nodes are in the tree, besides the model's transitions.
        """
        order = np.empty(self.size, dtype=np.int64)
        order = order[: descendants(self.nodes.children, self.nodes.sibling, roots, order)]
        numbers = np.full(self.size + 1, NONE)  # the last one for NONE itself
        numbers[order] = np.arange(len(order))
        nodes = {name: column[order] for name, column in self.nodes._asdict().items()}
        nodes["children"], nodes["sibling"] = numbers[nodes["children"]], numbers[nodes["sibling"]]
        nodes["sibling"][: len(roots)] = NONE  # a root has no part in what was above it
        if not statistics:
            for name in ("visits", "q_residual", "value", "in_tree"):
                nodes[name][:] = 0
        self.nodes, self.size = Nodes(**nodes), len(order)
        self.states = {key: column[order] for key, column in self.states.items()}
        self.candidates = None if self.candidates is None else self.candidates[order]
        return np.arange(len(roots))

    def _unused(self, count: int) -> Nodes:
        actions = (count, self.actions)
        return Nodes(
            children=np.full(actions, NONE),
            sibling=np.full(count, NONE),
            times_sampled=np.zeros(count, dtype=np.int64),
            visits=np.zeros(actions, dtype=np.int64),
            q_residual=np.zeros(actions),
            log_prior=np.full(actions, np.nan),
            weighted_log_prior=np.zeros(actions),
            value=np.zeros(count),
            reward=np.zeros(count),
            terminated=np.zeros(count, dtype=bool),
            in_tree=np.zeros(count, dtype=bool),
        )


def _extended(column: np.ndarray, length: int) -> np.ndarray:
    result = np.empty((length, *column.shape[1:]), column.dtype)
    result[: len(column)] = column
    return result
