"""Finite MDPs as models, and tables as priors."""

from __future__ import annotations

from typing import Any

import numpy as np

from rql_lightning.envs.customization import StepFunction
from rql_lightning.errors import require
from rql_lightning.planning.candidates import Candidates, OneWeight, weighted
from rql_lightning.planning.dynamics import Dynamics, Transition
from rql_lightning.planning.tree import State


class TabularDynamics(Dynamics):
    """A finite MDP, whose observations are one-hot vectors of the state, float32 ``[S]``.

    Args:
        add_on_reward: r_R(s, a), ``[S, A]``.
        transition: p(s′|s, a), ``[S, A, S]``.
        terminal: Mask ``[S]`` of the states that end an episode, or ``None``.

    Raises:
        ConfigurationError: For shapes that do not fit, or rows of ``transition`` that are no distributions.
    """

    fully_observed = True

    def __init__(self, add_on_reward: Any, transition: Any, terminal: Any = None) -> None:
        self.table, self.transition = np.asarray(add_on_reward, float), np.asarray(transition, float)
        require(self.table.ndim == 2, "add_on_reward", self.table.shape, "a shape [S, A]")
        states, actions = self.table.shape
        shape = self.transition.shape
        require(shape == (states, actions, states), "transition", shape, f"{(states, actions, states)}")
        proper = (self.transition >= 0).all() and np.allclose(self.transition.sum(-1), 1.0)
        require(bool(proper), "transition", "rows that are no distributions", "p(s'|s, a) >= 0, summing to 1 over s'")
        self.terminal = np.zeros(states, bool) if terminal is None else np.asarray(terminal, bool)
        require(self.terminal.shape == (states,), "terminal", self.terminal.shape, f"a mask of shape {(states,)}")
        self.deterministic = bool((self.transition.max(-1) == 1.0).all())

    def attach(self, env: Any = None, add_on_reward: StepFunction | None = None) -> None:
        """Do nothing: the MDP stands for itself."""

    def states(self, index: Any) -> State:
        """Return states by their indices ``[n]``."""
        return {"observation": np.eye(len(self.terminal), dtype=np.float32)[np.asarray(index)]}

    def read(self, env: Any, observation: np.ndarray) -> State:
        """Return the states of one-hot observations ``[n, S]``."""
        return {"observation": observation}

    def reseed(self, state: State, seeds: np.ndarray) -> State:
        """Return the states with the random bits that choose their successors."""
        return {**state, "seed": seeds}

    def step(self, state: State, action: np.ndarray) -> Transition:
        """Return successors, drawn by the seeds of :meth:`reseed` if the MDP is stochastic."""
        index = state["observation"].argmax(axis=1)
        probabilities = self.transition[index, action]
        following = probabilities.argmax(axis=1)
        if not self.deterministic:
            uniform = (state["seed"] >> np.uint64(11)) * 2.0**-53
            following = (probabilities.cumsum(axis=1) > uniform[:, np.newaxis]).argmax(axis=1)
        return Transition(self.states(following), self.table[index, action], self.terminal[following])


class TabularActions(OneWeight):
    """The actions of a finite MDP, with a prior that is a table.

    Args:
        prior: π(a|s), probabilities, ``[S, A]``.
        omega_prime: Weight ω′ of its log-likelihood.
    """

    def __init__(self, prior: Any, omega_prime: float) -> None:
        with np.errstate(divide="ignore"):
            self.table = np.log(np.asarray(prior, dtype=np.float64))
        self.count, self.omega_prime = self.table.shape[1], omega_prime
        self.fixed: np.ndarray | None = np.arange(self.count)

    def at(self, observation: np.ndarray, seeds: np.ndarray) -> Candidates:
        """Return the log-probabilities at one-hot observations ``[n, S]``."""
        return weighted(self.table[observation.argmax(axis=1)], self.omega_prime)
