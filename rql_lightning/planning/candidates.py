"""Candidate actions of a state: all of a discrete space, a grid of a continuous one, or samples of the prior."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from rql_lightning.compilation import entry_point
from rql_lightning.errors import is_integer, require
from rql_lightning.functional import squash_log_det
from rql_lightning.planning.network import all_log_probabilities, compiled_network
from rql_lightning.planning.search import next_uniform
from rql_lightning.policies.families import EDGE
from rql_lightning.priors import Prior
from rql_lightning.spaces import as_elements

MOST_CANDIDATES = 1024


@dataclass(frozen=True)
class Candidates:
    """The candidate actions of n states, and what the prior says about them.

    Attributes:
        log_prior: Log-probabilities of the prior restricted to the candidates, by which rollouts draw, ``[n, A]``.
        weighted_log_prior: What Eq. 13 and 14 add to Q_R: ω′ log π(a|s), ``[n, A]``.
        actions: The candidates in the environment's units, ``[n, A, *action_shape]``, or ``None`` where all states have
            the same.
    """

    log_prior: np.ndarray
    weighted_log_prior: np.ndarray
    actions: np.ndarray | None = None


class CandidateActions(Protocol):
    """Protocol of what gives states their candidate actions.

    Attributes:
        count: Number of candidates A of each state.
        fixed: The candidates in the environment's units, ``[A, *action_shape]``, or ``None`` where each state has its
            own.
    """

    count: int
    fixed: np.ndarray | None

    def at(self, observation: np.ndarray, seeds: np.ndarray) -> Candidates:
        """Return the candidates at observations ``[n, *observation_shape]``, drawn by seeds uint64 ``[n]``."""
        ...

    def preference(self, observation: np.ndarray, actions: np.ndarray, weighted: np.ndarray) -> np.ndarray:
        """Return ω′ log π of candidates, as the most probable action maximises Q_R + ω′ log π, ``[n, A]``.

        Args:
            observation: Observations, ``[n, *observation_shape]``.
            actions: Candidates in the environment's units, ``[n, A, *action_shape]``.
            weighted: Their ``weighted_log_prior``, ``[n, A]``.
        """
        ...


def candidate_actions(
    prior: Prior, omega_prime: float, alpha_hat: float, grid: int | None, samples: int | None
) -> CandidateActions:
    """Return the candidate actions of a prior's action space.

    Args:
        prior: Attached prior.
        omega_prime: Weight ω′ of its log-likelihood.
        alpha_hat: Temperature α̂.
        grid: Number of equal cells per dimension of continuous actions, or ``None``.
        samples: Number of actions sampled from the prior in each state, or ``None``.

    Raises:
        ConfigurationError: For continuous actions without exactly one of ``grid`` and ``samples``, discrete ones with
            either, or too many candidates.
    """
    if isinstance(prior.action_space, gym.spaces.Discrete):
        for name, value in (("grid", grid), ("samples", samples)):
            require(
                value is None,
                f"model.{name}",
                value,
                f"null: {prior.action_space} is discrete, and all actions are searched",
            )
        return DiscreteActions(prior, omega_prime)
    expected = f"exactly one of grid and samples, as {prior.action_space} is continuous and trees need finitely many"
    require((grid is None) != (samples is None), "model.grid, model.samples", (grid, samples), expected)
    if grid is not None:
        return GridActions(prior, omega_prime, grid)
    assert samples is not None
    return SampledActions(prior, omega_prime, alpha_hat, samples)


class OneWeight:
    """The part of candidates of which the decision and Eq. 14 take the same ω′ log π."""

    def preference(self, observation: np.ndarray, actions: np.ndarray, weighted: np.ndarray) -> np.ndarray:
        """Return ``weighted``."""
        return weighted


class DiscreteActions(OneWeight):
    """All actions of a discrete space.

    Attributes:
        network: The prior's network in compiled code, where it has one that can be.
    """

    def __init__(self, prior: Prior, omega_prime: float) -> None:
        self.prior, self.omega_prime = prior, omega_prime
        self.fixed: np.ndarray | None = np.arange(int(prior.action_space.n))
        self.count = len(self.fixed)
        self.network = compiled_network(prior)

    @torch.inference_mode()
    def at(self, observation: np.ndarray, seeds: np.ndarray) -> Candidates:
        """Return the prior's log-probabilities."""
        if self.network is None:
            log_prior = self.prior.distribution_parameters(self.prior.as_input(observation))
            return weighted(log_prior.double().cpu().numpy(), self.omega_prime)
        result = np.empty((len(observation), self.count))
        all_log_probabilities(self.network, observation.reshape(len(observation), -1), result)
        return weighted(result, self.omega_prime)


class GridActions(OneWeight):
    """The centres of equal cells of a box, each with the prior's probability in proportion to its density there.

    Args:
        prior: Attached prior with a density.
        omega_prime: Weight ω′.
        cells: Number of cells per dimension.
    """

    def __init__(self, prior: Prior, omega_prime: float, cells: int) -> None:
        size = _size(prior)
        require(is_integer(cells, 2), "model.grid", cells, "an integer >= 2")
        require(
            cells**size <= MOST_CANDIDATES,
            "model.grid",
            cells,
            f"at most {MOST_CANDIDATES} actions, not {cells}^{size}",
        )
        axis = (np.arange(cells) + 0.5) / cells * 2 - 1
        unit = np.stack(np.meshgrid(*[axis] * size, indexing="ij"), axis=-1).reshape(-1, size)
        self.prior, self.omega_prime = prior, omega_prime
        self._pre_tanh = torch.atanh(torch.from_numpy(unit).float())
        self.fixed: np.ndarray | None = _to_environment(prior, torch.from_numpy(unit).float())
        self.count = len(unit)

    @torch.inference_mode()
    def at(self, observation: np.ndarray, seeds: np.ndarray) -> Candidates:
        """Return the prior's log-probabilities of the cells."""
        parameters = self.prior.distribution_parameters(self.prior.as_input(observation))
        repeated = parameters.unsqueeze(-2).expand(-1, self.count, -1)
        pre_tanh = self._pre_tanh.to(parameters).expand(len(parameters), -1, -1)
        density = self.prior.family.pre_tanh_log_prob(repeated, pre_tanh)
        return weighted(density.double().log_softmax(dim=-1).cpu().numpy(), self.omega_prime)


class SampledActions:
    """K samples of the prior in each state.

    An expectation under the prior is the mean over its samples a_i, so that V_R(s) = α̂ log Σ_a exp((Q_R + ω′ log π) /
    α̂) becomes α̂ log 1/K Σ_i exp((Q_R(s, a_i) + (ω′ − α̂) log π(a_i|s)) / α̂): biased low, by O(1/K). Densities are
    with respect to actions in [−1, 1].

    Args:
        prior: Attached prior that can be sampled.
        omega_prime: Weight ω′.
        alpha_hat: Temperature α̂.
        count: K.
    """

    def __init__(self, prior: Prior, omega_prime: float, alpha_hat: float, count: int) -> None:
        in_range = is_integer(count, 2) and count <= MOST_CANDIDATES
        require(in_range, "model.samples", count, f"an integer in [2, {MOST_CANDIDATES}]")
        require(
            prior.can_act and prior.family.explorable, "model.samples", count, "null for a prior that cannot be sampled"
        )
        self.prior, self.count = prior, count
        self.fixed: np.ndarray | None = None
        self.omega_prime, self.alpha_hat, self.excess = omega_prime, alpha_hat, omega_prime - alpha_hat
        self._size = _size(prior)

    @torch.inference_mode()
    def at(self, observation: np.ndarray, seeds: np.ndarray) -> Candidates:
        """Draw the candidates of each state by its seed."""
        noise = np.empty((len(seeds), self.count, self._size))
        fill_normal(seeds, noise.reshape(len(seeds), -1))
        parameters = self.prior.distribution_parameters(self.prior.as_input(observation)).unsqueeze(-2)
        pre_tanh = self.prior.family.from_noise(parameters, torch.from_numpy(noise).to(parameters))
        log_prior = np.full((len(seeds), self.count), -math.log(self.count))
        weighted = self.alpha_hat * log_prior
        if self.excess != 0:
            repeated = parameters.expand(-1, self.count, -1)
            weighted = weighted + self.excess * self.prior.family.pre_tanh_log_prob(repeated, pre_tanh).cpu().numpy()
        return Candidates(log_prior, weighted, _to_environment(self.prior, torch.tanh(pre_tanh)))

    @torch.inference_mode()
    def preference(self, observation: np.ndarray, actions: np.ndarray, weighted: np.ndarray) -> np.ndarray:
        """Return ω′ times the log-density of the pre-tanh action u of a = tanh(u).

        Of a squashed normal, its maximum is the action by which the prior itself is evaluated, so that a wish for
        nothing gives the candidate closest to that.
        """
        parameters = self.prior.distribution_parameters(self.prior.as_input(observation))
        assert self.prior.bounds is not None
        unit = self.prior.bounds.from_environment(torch.from_numpy(np.array(actions)).to(parameters))
        pre_tanh = torch.atanh(unit.clamp(-EDGE, EDGE))
        density = self.prior.family.pre_tanh_log_prob(parameters.unsqueeze(-2).expand(-1, self.count, -1), pre_tanh)
        return self.omega_prime * (density + squash_log_det(pre_tanh)).double().cpu().numpy()


def weighted(log_prior: np.ndarray, omega_prime: float) -> Candidates:
    """Return candidates with ω′ log π, where 0 · −∞ is 0."""
    return Candidates(log_prior, np.zeros(log_prior.shape) if omega_prime == 0 else omega_prime * log_prior)


def _size(prior: Prior) -> int:
    assert prior.bounds is not None
    return prior.bounds.size


def _to_environment(prior: Prior, unit: Tensor) -> np.ndarray:
    assert prior.bounds is not None
    return as_elements(prior.action_space, prior.bounds.to_environment(unit).cpu().numpy())


def _fill_normal(seeds: np.ndarray, noise: np.ndarray) -> None:
    state = seeds.copy()
    for row in range(len(seeds)):
        for column in range(noise.shape[1]):
            radius = math.sqrt(-2.0 * math.log(1.0 - next_uniform(state, row)))
            noise[row, column] = radius * math.cos(2.0 * math.pi * next_uniform(state, row))


fill_normal = entry_point(_fill_normal)
"""``(seeds [n], noise [n, m])``: standard normal numbers (Box and Muller 1958), each row by its own seed."""
