"""Fitted Q evaluation of a prior: how much its actions matter for the add-on return."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchrl.objectives.value.functional import reward2go

from rql_lightning.networks import mlp
from rql_lightning.policies.randomness import OwnRandom
from rql_lightning.priors import Prior

UPDATES, FIRST, BATCH = 1_500, 400, 256
"""Updates of a Q-function, of which the first ones fit returns instead of targets; transitions of each."""
HIDDEN_SIZES, LEARNING_RATE, TAU = [64, 64], 1e-3, 0.02
ROWS, ROWS_OF_SAMPLERS, NUMBERS, CHUNK = 50_000, 2_000, 20_000_000, 1_024
"""Largest numbers of transitions (a prior that only samples may take long to ask) and of numbers in all observations;
number of states that the prior is asked for at a time."""
DRAWS, DRAWS_AT_END = 4, 32
"""Sampled actions of a state in targets and in the covariance at the end; discrete actions are summed over."""
ROUNDING = 1e-6
"""Standard deviation of returns, relative to the largest of them, below which all are taken to be equal."""


@dataclass(frozen=True)
class Transitions:
    """Recorded transitions, as network inputs and targets.

    Attributes:
        state, next_state: Standardised observations, ``[N, D]``.
        action: Index of a discrete action, ``[N]``, or continuous action in [−1, 1], ``[N, A]``.
        reward, returns: Add-on rewards and discounted add-on returns-to-go, ``[N]``, in units of :attr:`unit`.
        ended: Whether the episode terminated, ``[N]``.
        prior, next_prior: Distribution parameters of the prior, ``[N, P]``.
        half: Whether the episode is of the first of two sets, ``[N]``.
        unit: Standard deviation of the returns-to-go; 0 if they are equal, NaN if one is not finite.
    """

    state: Tensor
    next_state: Tensor
    action: Tensor
    reward: Tensor
    returns: Tensor
    ended: Tensor
    prior: Tensor
    next_prior: Tensor
    half: Tensor
    unit: float


def spread_of_values(prior: Prior, steps: dict[str, np.ndarray], gamma: float) -> float:
    """Return how much the prior's actions differ in their values for the add-on reward.

    Fitted Q evaluation (Le et al. 2019) regresses Q(s, a) on r_R + γ E_{a′ ~ π} Q(s′, a′). Two functions are fitted to
    disjoint sets of episodes: what they have made of chance is independent, and has no covariance.

    Args:
        prior: Attached prior that can act.
        steps: Recorded steps of its sampled episodes (:attr:`Episodes.steps`).
        gamma: Discount factor γ.

    Returns:
        The root of the mean of Cov_{a ~ π(·|s)}(Q_1(s, a), Q_2(s, a)) over the recorded states, an estimate of that of
        Var_{a ~ π(·|s)} Q(s, a); 0 if it is negative, or if all returns are equal; NaN if a return is not finite.
    """
    with OwnRandom(seed=0), torch.no_grad():
        data = transitions(prior, steps, gamma)
        if data.unit == 0 or not math.isfinite(data.unit):
            return data.unit
        first, second = _Values(prior, data), _Values(prior, data)
        first.fit(data, gamma, data.half)
        second.fit(data, gamma, ~data.half)
        covariance = float(first.covariance(second, data.state, data.prior).mean())
        return data.unit * math.sqrt(max(covariance, 0.0)) if math.isfinite(covariance) else math.nan


def transitions(prior: Prior, steps: dict[str, np.ndarray], gamma: float) -> Transitions:
    """Prepare recorded steps: all of them, or as many as fit into memory."""
    returns = returns_to_go(steps, gamma)
    rows = _chosen(len(returns), prior)
    flat, parameters = _asked(prior, steps["observation"][rows])
    next_flat, next_parameters = _asked(prior, steps["next_observation"][rows])
    mean, deviation = flat.mean(dim=0), flat.std(dim=0, correction=0).clamp(min=1e-6)
    state, next_state = (((each - mean) / deviation).clamp(-10.0, 10.0) for each in (flat, next_flat))
    action = torch.as_tensor(steps["action"][rows])
    if prior.bounds is not None:
        action = prior.bounds.from_environment(action.float()).clamp(-1.0, 1.0)
    unit = float(returns[rows].std())
    if unit <= ROUNDING * np.abs(returns[rows]).max():
        unit = 0.0
    reward, following = (
        torch.as_tensor(each[rows] / (unit or 1.0)).float() for each in (steps["add_on_reward"], returns)
    )
    ended = torch.as_tensor(steps["terminated"][rows].astype(bool))
    half = torch.as_tensor(steps["episode"][rows] % 2 == 0)
    return Transitions(state, next_state, action, reward, following, ended, parameters, next_parameters, half, unit)


def _chosen(count: int, prior: Prior) -> np.ndarray:
    """Return the rows to use, in their order."""
    most = ROWS_OF_SAMPLERS if prior.only_samples else ROWS
    most = max(BATCH, min(most, NUMBERS // max(1, math.prod(prior.observation_space.shape or ()))))
    rows = np.arange(count)
    return rows if count <= most else np.sort(np.random.default_rng(0).choice(rows, most, replace=False))


def _asked(prior: Prior, observations: np.ndarray) -> tuple[Tensor, Tensor]:
    """Return flat observations, ``[N, D]``, and the prior's distribution parameters, ``[N, P]``."""
    flat, parameters = [], []
    for start in range(0, len(observations), CHUNK):
        observation = prior.as_input(observations[start : start + CHUNK])
        flat.append(prior.flatten(observation).cpu().float())
        parameters.append(prior.distribution_parameters(observation).cpu())
    return torch.cat(flat), torch.cat(parameters)


def returns_to_go(steps: dict[str, np.ndarray], gamma: float) -> np.ndarray:
    """Return the discounted add-on return from each step to the end of its episode, ``[N]``."""
    last = np.append(steps["episode"][1:] != steps["episode"][:-1], True)
    reward, done = (torch.as_tensor(each).unsqueeze(-1) for each in (steps["add_on_reward"].astype(float), last))
    return reward2go(reward, done, gamma, time_dim=-2).squeeze(-1).numpy()


class _Values:
    """A Q-function of the prior: of a state's discrete actions at once, or of a state and a continuous action."""

    def __init__(self, prior: Prior, data: Transitions) -> None:
        self.family: Any = prior.family
        self.discrete = prior.bounds is None
        inputs = data.state.shape[1] + (0 if self.discrete else data.action.shape[1])
        outputs = self.family.size if self.discrete else 1
        self.network, self.target = (mlp(inputs, HIDDEN_SIZES, outputs) for _ in range(2))
        self.target.load_state_dict(self.network.state_dict())

    def fit(self, data: Transitions, gamma: float, chosen: Tensor) -> None:
        """Fit returns, then targets of the fitted function itself, at chosen transitions, ``[N]``."""
        optimizer = torch.optim.Adam(self.network.parameters(), LEARNING_RATE)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, UPDATES)
        every = chosen.nonzero().squeeze(-1)
        for update in range(UPDATES):
            rows = every[torch.randint(len(every), (BATCH,))]
            share = 1.0 if update < FIRST else TAU
            target = data.returns[rows] if update < FIRST else self._target(data, rows, gamma)
            with torch.enable_grad():
                loss = F.mse_loss(self.of_taken(data.state[rows], data.action[rows]), target)
                optimizer.zero_grad()
                loss.backward()
            optimizer.step()
            schedule.step()
            for slow, fast in zip(self.target.parameters(), self.network.parameters(), strict=True):
                slow.lerp_(fast, share)

    def _target(self, data: Transitions, rows: Tensor, gamma: float) -> Tensor:
        """Return r_R + γ E_{a′ ~ π} Q(s′, a′) of the target network, ``[B]``."""
        actions, weights = self.actions(data.next_prior[rows], DRAWS)
        following = (weights * self._of_all(self.target, data.next_state[rows], actions)).sum(dim=-1)
        return data.reward[rows] + gamma * following.masked_fill(data.ended[rows], 0.0)

    def of_taken(self, state: Tensor, action: Tensor) -> Tensor:
        """Return Q(s, a), ``[N]``."""
        if self.discrete:
            return self.network(state).gather(-1, action.long().unsqueeze(-1)).squeeze(-1)
        return self.network(torch.cat([state, action], dim=-1)).squeeze(-1)

    def covariance(self, other: _Values, state: Tensor, parameters: Tensor) -> Tensor:
        """Return Cov_{a ~ π}(Q(s, a), Q′(s, a)) with another Q-function, ``[N]``."""
        result = []
        for states, some in zip(state.split(CHUNK), parameters.split(CHUNK), strict=True):
            actions, weights = self.actions(some, DRAWS_AT_END)
            values = [each._of_all(each.network, states, actions) for each in (self, other)]
            own, others = (each - (weights * each).sum(dim=-1, keepdim=True) for each in values)
            result.append((weights * own * others).sum(dim=-1))
        return torch.cat(result)

    def actions(self, parameters: Tensor, draws: int) -> tuple[Tensor | None, Tensor]:
        """Return K actions, ``[N, K, A]``, or ``None`` for all discrete ones, and their probabilities, ``[N, K]``."""
        if self.discrete:
            return None, parameters.softmax(dim=-1)
        action = self.family.sample(parameters.unsqueeze(-2).expand(*parameters.shape[:-1], draws, -1))
        return action, torch.full(action.shape[:-1], 1.0 / draws)

    @staticmethod
    def _of_all(network: nn.Module, state: Tensor, actions: Tensor | None) -> Tensor:
        """Return Q-values ``[N, K]`` of the actions."""
        if actions is None:
            return network(state)
        states = state.unsqueeze(-2).expand(*actions.shape[:-1], -1)
        return network(torch.cat([states, actions], dim=-1)).squeeze(-1)
