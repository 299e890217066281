"""Decisions by residual maximum-entropy Monte Carlo tree search."""

from __future__ import annotations

import hashlib
import random
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from rql_lightning.errors import EnvironmentContractError, require
from rql_lightning.planning.candidates import CandidateActions
from rql_lightning.planning.compiled import compiled_search
from rql_lightning.planning.dynamics import Dynamics
from rql_lightning.planning.mcts import boltzmann
from rql_lightning.planning.plan import Plan, extract_plan
from rql_lightning.planning.search import NONE, ROLL_OUT, Rules, advance, mixed_bits
from rql_lightning.planning.tree import State, Tree
from rql_lightning.policies import Decision

MOST_DECISIONS = 1_000_000  # whose seconds are remembered
STREAM_OF_THE_MODEL = np.uint64(0x5851F42D4C957F2D)  # apart from the search's own random numbers
Reuse = Literal["nothing", "states", "tree"]


@dataclass(frozen=True)
class Settings:
    """Settings of the search (see :class:`~rql_lightning.algorithms.ResidualMCTS`)."""

    simulations: int
    horizon: int
    gamma: float
    alpha_hat: float
    epsilon: float = 0.1
    reuse: Reuse = "states"
    max_successors: int = 8
    authors: bool = False
    seed: int = 0


class Planner:
    """Decider that searches from the states of N environments at once.

    A decision depends on the state, the observation and the seed alone: not on the other environments nor, with
    ``reuse`` other than ``tree``, on earlier decisions.

    Args:
        dynamics: Attached model.
        candidates: Candidate actions, with the prior.
        settings: Settings of the search.
    """

    needs_state = True

    def __init__(self, dynamics: Dynamics, candidates: CandidateActions, settings: Settings) -> None:
        self.dynamics, self.candidates, self.settings = dynamics, candidates, settings
        self.rules = Rules(
            settings.horizon,
            settings.gamma,
            settings.alpha_hat,
            settings.epsilon,
            dynamics.deterministic,
            not dynamics.deterministic and dynamics.fully_observed,
            settings.max_successors,
            settings.authors,
        )
        self._compiled = compiled_search(dynamics, candidates)
        self.decision_seconds: deque[float] = deque(maxlen=MOST_DECISIONS)
        self._tree: Tree | None = None
        self._chosen = np.empty(0, dtype=np.int64)

    # -- a decider ---------------------------------------------------------------------------------------------------

    def read_state(self, env: Any, observation: np.ndarray) -> State:
        """Return the states of a live environment."""
        return self.dynamics.read(env, observation)

    def decide(self, observation: Any, state: Any = None) -> Decision:
        """Search from each state, and choose argmax Q_R + ω′ log π over the actions that were visited at its root.

        Of sampled actions, log π is the density of the pre-tanh action (:meth:`SampledActions.preference`).

        Args:
            observation: Observations, ``[N, *observation_shape]``.
            state: The states that the model read from the environments, ``[N, …]``.

        Raises:
            EnvironmentContractError: If the states are not as many as the observations.
        """
        observation = np.asarray(observation)
        for key, rows in state.items():
            if len(rows) != len(observation):
                raise EnvironmentContractError(
                    f"state: found {len(rows)} rows of {key!r}, expected {len(observation)}, one per observation"
                )
        start = time.perf_counter()
        with _random_numbers_kept():
            tree = self._grown(observation, state)
            self._tree = None  # so that a search that fails leaves no half-grown tree to later decisions
            self._search(tree, observation)
        self._tree = tree
        root, count = tree.roots.root, len(observation)
        actions = self._actions(tree, root)
        preference = self.candidates.preference(observation, actions, tree.nodes.weighted_log_prior[root])
        combined = tree.nodes.q_residual[root] + preference
        # Q_R = 0 of an action without visits is no estimate: it would win wherever rewards are negative.
        self._chosen = np.where(tree.nodes.visits[root] > 0, combined, -np.inf).argmax(axis=1)
        action = actions[np.arange(count), self._chosen]
        divergence = [self._divergence(tree, node) for node in root]
        self.decision_seconds.extend([(time.perf_counter() - start) / count] * count)
        return Decision(action, np.array(divergence))

    def statistics(self) -> dict[str, float | int]:
        """Return the settings and the seconds of a decision since the last call, for ``metrics.json``.

        Where several environments are planned for at once, each decision is given an equal share of the time.
        """
        seconds = np.array(self.decision_seconds or [np.nan])
        self.decision_seconds.clear()
        return {
            "simulations": self.settings.simulations,
            "horizon": self.settings.horizon,
            "decision_seconds_mean": float(seconds.mean()),
            "decision_seconds_p99": float(np.quantile(seconds, 0.99)),
        }

    def plan(self, row: int = 0) -> Plan:
        """Return the search of the last decision from one of the states."""
        if self._tree is None:
            raise EnvironmentContractError("plan: found no decision, expected one before it can be looked at")
        count = len(self._tree.roots.root)
        require(0 <= row < count, "row", row, f"an index below {count}, the number of environments planned for")
        tree, root = self._tree, int(self._tree.roots.root[row])
        actions = self._actions(tree, np.array([root]))[0]
        return extract_plan(tree, root, actions, self.settings.alpha_hat, int(self._chosen[row]))

    # -- the search --------------------------------------------------------------------------------------------------

    def _divergence(self, tree: Tree, root: int) -> float:
        """Return KL(π̂ ‖ π) at a root in nats."""
        nodes = tree.nodes
        policy = boltzmann(nodes.q_residual[root], nodes.weighted_log_prior[root], self.settings.alpha_hat)
        taken = policy > 0
        return float((policy[taken] * (np.log(policy[taken]) - nodes.log_prior[root][taken])).sum())

    def _actions(self, tree: Tree, ids: np.ndarray) -> np.ndarray:
        """Return the candidate actions of nodes ``[k]``, ``[k, A, *action_shape]``."""
        fixed = self.candidates.fixed
        if fixed is None:
            assert tree.candidates is not None
            return tree.candidates[ids]
        return np.broadcast_to(fixed, (len(ids), *fixed.shape))

    def _search(self, tree: Tree, observation: np.ndarray) -> None:
        seeds = np.array([_seed(self.settings.seed, row) for row in observation], dtype=np.uint64)
        missing = np.flatnonzero(np.isnan(tree.nodes.log_prior[: tree.size, 0]) & ~tree.nodes.terminated[: tree.size])
        self._ask_prior(tree, missing)
        tree.start(self._roots, self.settings.simulations, seeds)
        if self._compiled is not None:
            self._compiled(tree, self.rules)
            return
        waiting, new = np.empty(len(observation), dtype=np.int64), np.empty(0, dtype=np.int64)
        while count := advance(tree.nodes, tree.roots, self.rules, waiting, new, tree.observations):
            new = self._expand(tree, waiting[:count])

    def _grown(self, observation: np.ndarray, state: State) -> Tree:
        """Return a tree whose roots are these states, with what is known below them from the last decision."""
        count = len(observation)
        known, roots = self._known(observation, state)
        if known is None or not known.any():
            tree = Tree(count, self.candidates.count, self.settings.horizon)
            known = np.zeros(count, dtype=bool)
            self._roots = np.empty(count, dtype=np.int64)
        else:
            assert self._tree is not None
            tree = self._tree
            self._roots[known] = tree.keep(roots[known], self.settings.reuse == "tree")
        fresh = np.flatnonzero(~known)
        self._roots[fresh] = tree.reserve(len(fresh))
        tree.write_states(self._roots, state)
        tree.nodes.terminated[self._roots] = False
        if not self.dynamics.deterministic:
            tree.roots.spare[:] = tree.reserve(2 * count).reshape(count, 2)
            tree.nodes.log_prior[tree.roots.spare] = 0.0  # not missing: written when a rollout passes
        return tree

    def _known(self, observation: np.ndarray, state: State) -> tuple[np.ndarray | None, np.ndarray]:
        """Return which states are those that the last decision led to in its model, and their nodes."""
        tree = self._tree
        if tree is None or self.settings.reuse == "nothing" or len(self._chosen) != len(observation):
            return None, self._chosen
        if self.settings.reuse == "states" and not self.dynamics.deterministic:
            return None, self._chosen  # successors that were drawn for another search are no fresh draws
        nodes = tree.child(tree.roots.root, self._chosen)
        found = nodes != NONE
        known = np.zeros(len(nodes), dtype=bool)
        theirs = {key: rows[found] for key, rows in state.items()}
        same = self.dynamics.same(tree.states_of(nodes[found]), theirs) & ~tree.nodes.terminated[nodes[found]]
        known[np.flatnonzero(found)] = same
        return known, nodes

    def _expand(self, tree: Tree, waiting: np.ndarray) -> np.ndarray:
        """Ask the model for the transitions that some roots wait for; return the nodes that the successors are at."""
        roots = tree.roots
        node, index = roots.node[waiting], roots.action[waiting]
        states: State = tree.states_of(node)
        action = self._actions(tree, node)[np.arange(len(node)), index]
        if self.dynamics.deterministic:
            new = tree.reserve(len(waiting))
        else:
            states = self.dynamics.reseed(states, mixed_bits(roots.random[waiting] ^ STREAM_OF_THE_MODEL))
            new = self._places(tree, waiting)
        transition = self.dynamics.step(states, action)
        tree.write_states(new, transition.state)
        tree.nodes.reward[new], tree.nodes.terminated[new] = transition.add_on_reward, transition.terminated
        within = (roots.depth[waiting] + 1 < self.settings.horizon) & ~transition.terminated
        self._ask_prior(tree, new[within])
        return new

    def _places(self, tree: Tree, waiting: np.ndarray) -> np.ndarray:
        """Return nodes for the successors of a stochastic model; those of rollouts are used again."""
        roots = tree.roots
        new, turn = roots.spare[waiting, roots.turn[waiting]], 1 - roots.turn[waiting]
        kept = roots.phase[waiting] != ROLL_OUT
        new[kept] = tree.reserve(int(kept.sum()))
        roots.turn[waiting] = np.where(kept, roots.turn[waiting], turn)
        return new

    def _ask_prior(self, tree: Tree, ids: np.ndarray) -> None:
        """Give nodes ``[k]`` their candidate actions."""
        if len(ids) == 0:
            return
        observation = tree.states["observation"][ids]
        seeds = np.empty(0, np.uint64)
        if self.candidates.fixed is None:
            seeds = np.array([_seed(self.settings.seed + 1, row) for row in observation], dtype=np.uint64)
        candidates = self.candidates.at(observation, seeds)
        tree.nodes.log_prior[ids] = candidates.log_prior
        tree.nodes.weighted_log_prior[ids] = candidates.weighted_log_prior
        if candidates.actions is not None:
            tree.write_candidates(ids, candidates.actions)


def _seed(seed: int, observation: np.ndarray) -> int:
    """Return 64 bits that depend on the seed and the observation alone."""
    digest = hashlib.blake2b(observation.tobytes(), digest_size=8, key=str(seed).encode()).digest()
    return int.from_bytes(digest, "little")


@contextmanager
def _random_numbers_kept() -> Iterator[None]:
    """Restore the global random states, which a user's environment or prior may draw from."""
    python_state, numpy_state, torch_state = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        torch.set_rng_state(torch_state)
