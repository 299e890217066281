"""Residual maximum-entropy Monte Carlo tree search (section 3): customization without training."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv
from torch import Tensor

from rql_lightning.algorithms.customization import CustomizesPrior
from rql_lightning.algorithms.hyperparameters import check_hyperparameters, check_number
from rql_lightning.algorithms.untrained import Untrained
from rql_lightning.errors import EnvironmentContractError, require
from rql_lightning.planning import CopyDynamics, Dynamics, Plan, Planner, Settings, SimulatorDynamics, has_simulator
from rql_lightning.planning.candidates import candidate_actions
from rql_lightning.planning.planner import Reuse
from rql_lightning.policies import Decider, Policy
from rql_lightning.priors import Prior
from rql_lightning.spaces import as_elements


class ResidualMCTS(Untrained, CustomizesPrior):
    """Plan each decision with a model of the environment (Eq. 13 and 14); nothing is trained, and no checkpoint needed.

    In Python, :meth:`act` decides for a live environment. On the command line, test and validate evaluate it, and
    predict with deterministic true records it.

    Args:
        prior: Frozen policy to customise.
        simulations: Number of simulations per decision.
        horizon: Number of steps that simulations look ahead.
        gamma: Discount of the add-on reward.
        omega_prime: Weight ω′ = ωα of the prior's log-likelihood, >= 0; a larger weight keeps decisions closer to the
            prior. null stands for the temperature that the prior was trained at, if its file has it, else alpha_hat.
        alpha_hat: Temperature of the customised policy.
        epsilon: Factor ε of the rate of exploration, ε |A| / log(N + 1) after N visits of a state.
        dynamics: Model of the environment; null stands for the compiled simulator of a task that has one, and for
            copies of the environment otherwise.
        add_on_reward: Add-on reward of the search, a function (observation, action, next_observation, info) -> float,
            or its import path on the command line; null for the environment's own.
        grid: Number of equal cells per dimension into which continuous actions are divided, or null.
        samples: Number of continuous actions sampled from the prior in each state, or null.
        reuse: What a decision knows of the one before, where the action taken led to the state that the model foresaw:
            'nothing'; 'states', which saves simulating them again and changes no decision; or 'tree', which also keeps
            visits and values.
        max_successors: Largest number of different successors per state and action of a stochastic model, 0 for no
            bound; further visits draw from them.
        variant: Search as in the paper, or as in the authors' code: 'authors' leaves the prior out of the tree policy
            and takes Q_R + ω′ log π as 0 for actions without visits.
        seed: Seed of the search. A decision depends on it and on the state alone.
    """

    def __init__(
        self,
        prior: Prior,
        simulations: int = 150,
        horizon: int = 6,
        gamma: float = 0.99,
        omega_prime: float | None = None,
        alpha_hat: float = 1.0,
        epsilon: float = 0.1,
        dynamics: Dynamics | None = None,
        add_on_reward: Callable[..., Any] | None = None,
        grid: int | None = None,
        samples: int | None = None,
        reuse: Reuse = "states",
        max_successors: int = 8,
        variant: Literal["paper", "authors"] = "paper",
        seed: int = 0,
    ) -> None:
        check_hyperparameters(locals())
        check_number("alpha_hat", alpha_hat)
        super().__init__()
        self._prior, self._dynamics = [prior], dynamics
        self.omega_prime, self.alpha_hat = float(self.weight_of(omega_prime, alpha_hat)), alpha_hat
        self.add_on_reward, self.grid, self.samples = add_on_reward, grid, samples
        self.search = Settings(
            int(simulations),
            int(horizon),
            gamma,
            alpha_hat,
            epsilon,
            reuse,
            int(max_successors),
            authors=variant == "authors",
            seed=int(seed),
        )
        self.planner: Planner | None = None
        self._planned_for: Any = None

    # -- in Python ---------------------------------------------------------------------------------------------------

    def act(self, observation: Any, env: gym.Env[Any, Any] | VectorEnv) -> Any:
        """Decide for a live environment, which is not changed.

        Args:
            observation: The environment's present observation, ``[*observation_shape]``, or ``[N, …]`` of a vector
                environment.
            env: The environment, which has a running episode.

        Returns:
            The action in the environment's units, or N of them.

        Raises:
            SpaceMismatchError: If the prior has other spaces than the environment.
            EnvironmentContractError: If the model cannot stand for the environment, there is no add-on reward, or the
                numbers of observations and environments differ.
        """
        single = not isinstance(env, VectorEnv)
        if self._planned_for is not env:
            self.plan_for(env)
        assert self.planner is not None
        space = self.prior.observation_space
        batch = np.asarray(observation, dtype=space.dtype)
        batch = batch[np.newaxis] if single else batch
        expected = f"{'[N, ' if not single else '['}{', '.join(map(str, space.shape or ()))}]"
        require(batch.shape[1:] == space.shape, "observation", np.shape(observation), f"the shape {expected}")
        decision = self.planner.decide(batch, self.planner.read_state(env, batch))
        action = as_elements(self.prior.action_space, decision.action)
        return action[0][()] if single else action

    def plan_for(self, env: gym.Env[Any, Any] | VectorEnv) -> None:
        """Prepare to plan for an environment; :meth:`act` does so for each environment that it has not seen before.

        Args:
            env: Environment, scalar or vector. It is only looked at.
        """
        self._planned_for = None
        spaces = (env.observation_space, env.action_space)
        if isinstance(env, VectorEnv):
            spaces = (env.single_observation_space, env.single_action_space)
        self.prior.attach(*spaces)
        self.policy = self.prior
        weights = (self.omega_prime, self.alpha_hat)
        candidates = candidate_actions(self.prior, *weights, self.grid, self.samples)
        dynamics = copy.copy(self._dynamics)  # as another planner may have the same model, with another wish
        if dynamics is None:
            dynamics = SimulatorDynamics() if has_simulator(env) else CopyDynamics()
        dynamics.attach(env, self.add_on_reward)
        self.planner = Planner(dynamics, candidates, self.search)
        self._planned_for = env

    def plan(self, row: int = 0) -> Plan:
        """Return the search of the last decision, from one of the environments."""
        if self.planner is None:
            raise EnvironmentContractError("plan: found no decision, expected one before it can be looked at")
        return self.planner.plan(row)

    # -- on the command line -----------------------------------------------------------------------------------------

    def build(self, observation_space: gym.Space[Any], action_space: gym.Space[Any], task: str) -> None:
        """Prepare to plan for the environment of the run, with two decisions, after which compiled code is loaded."""
        env = self.data.make_env(1)
        try:
            self.plan_for(env)
            assert self.planner is not None
            observation, _ = env.reset(seed=0)
            for _ in range(2):
                decision = self.planner.decide(observation, self.planner.read_state(env, observation))
                observation, *_ = env.step(decision.action)
            self.planner.statistics()
        finally:
            env.close()

    def as_input(self, observation: Tensor) -> Tensor:
        """Convert observations to the device and dtype of the prior, which may have no parameters."""
        return self.prior.as_input(observation)

    @property
    def decider(self) -> Decider:
        """The planner."""
        assert self.planner is not None
        return self.planner

    @property
    def reported_prior(self) -> Policy:
        """The prior."""
        return self.prior
