"""Fitted Q evaluation of a prior: how much its actions matter for the add-on return."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rql_lightning.networks import mlp
from rql_lightning.priors import Prior

UPDATES, FIRST, BATCH = 2_000, 500, 256
"""Updates of the Q-function, of which the first ones fit returns instead of targets; transitions of each."""
HIDDEN_SIZES, LEARNING_RATE, TAU = [64, 64], 1e-3, 0.02
ROWS, ROWS_OF_SAMPLERS = 50_000, 2_000
"""Largest numbers of transitions; a prior that only samples may take long to ask."""
DRAWS, DRAWS_AT_END = 4, 32
"""Sampled actions of a state in targets and in the variance at the end; discrete actions are summed over."""


@dataclass(frozen=True)
class Transitions:
    """Recorded transitions, as network inputs and targets.

    Attributes:
        state, next_state: Standardised observations, ``[N, D]``.
        action: Index of a discrete action, ``[N]``, or continuous action in [−1, 1], ``[N, A]``.
        reward, returns: Add-on rewards and discounted add-on returns-to-go, ``[N]``, in units of :attr:`unit`.
        ended: Whether the episode terminated, ``[N]``.
        prior, next_prior: Distribution parameters of the prior, ``[N, P]``.
        unit: Standard deviation of the returns-to-go.
    """

    state: Tensor
    next_state: Tensor
    action: Tensor
    reward: Tensor
    returns: Tensor
    ended: Tensor
    prior: Tensor
    next_prior: Tensor
    unit: float


def spread_of_values(prior: Prior, steps: dict[str, np.ndarray], gamma: float) -> float:
    """Return how much the prior's actions differ in their values for the add-on reward.

    Fitted Q evaluation (Le et al. 2019) regresses Q(s, a) on r_R + γ E_{a′ ~ π} Q(s′, a′), so that what no action
    decides counts as little as the network can tell it.

    Args:
        prior: Attached prior that can act.
        steps: Recorded steps of its sampled episodes (:attr:`Episodes.steps`).
        gamma: Discount factor γ.

    Returns:
        The root of the mean of Var_{a ~ π(·|s)} Q(s, a) over the recorded states; 0 if all returns are equal.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        data = transitions(prior, steps, gamma)
        if data.unit == 0:
            return 0.0
        values = _Values(prior, data)
        values.fit(data, gamma)
        return data.unit * math.sqrt(values.variance(data.state, data.prior).mean())


def transitions(prior: Prior, steps: dict[str, np.ndarray], gamma: float) -> Transitions:
    """Prepare recorded steps, at most :data:`ROWS` of them."""
    returns = returns_to_go(steps, gamma)
    most = ROWS_OF_SAMPLERS if prior.only_samples else ROWS
    rows = np.arange(len(returns))
    if len(rows) > most:
        rows = np.sort(np.random.default_rng(0).choice(rows, most, replace=False))
    observation, following = (prior.as_input(steps[key][rows]) for key in ("observation", "next_observation"))
    parameters, next_parameters = (prior.distribution_parameters(each).cpu() for each in (observation, following))
    flat, next_flat = (prior.flatten(each).cpu().float() for each in (observation, following))
    mean, deviation = flat.mean(dim=0), flat.std(dim=0).clamp(min=1e-6)
    action = torch.as_tensor(steps["action"][rows])
    if prior.bounds is not None:
        action = prior.bounds.from_environment(action.float().flatten(1)).clamp(-1.0, 1.0)
    unit = float(returns[rows].std())
    reward, following_return = (
        torch.as_tensor(each[rows] / (unit or 1.0)).float() for each in (steps["add_on_reward"], returns)
    )
    state, next_state = (((each - mean) / deviation).clamp(-10.0, 10.0) for each in (flat, next_flat))
    ended = torch.as_tensor(steps["terminated"][rows].astype(bool))
    return Transitions(state, next_state, action, reward, following_return, ended, parameters, next_parameters, unit)


def returns_to_go(steps: dict[str, np.ndarray], gamma: float) -> np.ndarray:
    """Return the discounted add-on return from each step to the end of its episode, ``[N]``."""
    reward, episode = steps["add_on_reward"].astype(float), steps["episode"]
    result = np.zeros(len(reward))
    following = 0.0
    for row in range(len(reward) - 1, -1, -1):
        if row + 1 < len(reward) and episode[row + 1] != episode[row]:
            following = 0.0
        following = result[row] = reward[row] + gamma * following
    return result


class _Values:
    """A Q-function of the prior: of a state's discrete actions at once, or of a state and a continuous action."""

    def __init__(self, prior: Prior, data: Transitions) -> None:
        self.family: Any = prior.family
        self.discrete = prior.bounds is None
        inputs = data.state.shape[1] + (0 if self.discrete else data.action.shape[1])
        outputs = self.family.size if self.discrete else 1
        self.network, self.target = (mlp(inputs, HIDDEN_SIZES, outputs) for _ in range(2))
        self.target.load_state_dict(self.network.state_dict())

    def fit(self, data: Transitions, gamma: float) -> None:
        """Fit returns, then targets of the fitted function itself."""
        optimizer = torch.optim.Adam(self.network.parameters(), LEARNING_RATE)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, UPDATES)
        for update in range(UPDATES):
            rows = torch.randint(len(data.state), (BATCH,))
            if update < FIRST:
                target, share = data.returns[rows], 1.0
            else:
                following = self.mean(data.next_state[rows], data.next_prior[rows])
                target = data.reward[rows] + gamma * following.masked_fill(data.ended[rows], 0.0)
                share = TAU
            with torch.enable_grad():
                loss = F.mse_loss(self.of_taken(data.state[rows], data.action[rows]), target)
                optimizer.zero_grad()
                loss.backward()
            optimizer.step()
            schedule.step()
            for slow, fast in zip(self.target.parameters(), self.network.parameters(), strict=True):
                slow.lerp_(fast, share)

    def of_taken(self, state: Tensor, action: Tensor) -> Tensor:
        """Return Q(s, a), ``[N]``."""
        if self.discrete:
            return self.network(state).gather(-1, action.long().unsqueeze(-1)).squeeze(-1)
        return self.network(torch.cat([state, action], dim=-1)).squeeze(-1)

    def mean(self, state: Tensor, parameters: Tensor) -> Tensor:
        """Return E_{a ~ π} Q(s, a) of the target network, ``[N]``."""
        values, weights = self._of_all(self.target, state, parameters, DRAWS)
        return (weights * values).sum(dim=-1)

    def variance(self, state: Tensor, parameters: Tensor) -> Tensor:
        """Return Var_{a ~ π} Q(s, a), ``[N]``."""
        values, weights = self._of_all(self.network, state, parameters, DRAWS_AT_END)
        mean = (weights * values).sum(dim=-1, keepdim=True)
        return (weights * (values - mean).square()).sum(dim=-1)

    def _of_all(self, network: nn.Module, state: Tensor, parameters: Tensor, draws: int) -> tuple[Tensor, Tensor]:
        """Return Q-values and probabilities, ``[N, K]``, of all discrete actions, or of K sampled ones."""
        if self.discrete:
            return network(state), parameters.softmax(dim=-1)
        shape = (*parameters.shape[:-1], draws, parameters.shape[-1])
        action = self.family.sample(parameters.unsqueeze(-2).expand(shape))
        together = torch.cat([state.unsqueeze(-2).expand(*state.shape[:-1], draws, -1), action], dim=-1)
        values = network(together).squeeze(-1)
        return values, torch.full_like(values, 1.0 / draws)
