"""ω′: how much the prior counts, beside an add-on reward of this size."""

from __future__ import annotations

import math
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from rql_lightning.customizing.task import WishedTask
from rql_lightning.errors import ConfigurationError, require
from rql_lightning.evaluation import Episodes, run_episodes
from rql_lightning.policies.sampling import SampledPolicy
from rql_lightning.priors import Prior
from rql_lightning.priors.base import is_positive

SEEDS, STARTS, REPEATS = 2_000_000, 16, 4
"""First seed, starts and episodes per start with which the add-on return is measured."""
GENTLE, MODERATE, STRONG = 0.005, 0.05, 0.5
"""Divergences from the prior in nats per step, for suggestions."""

Weight = float | Literal["auto"]


@dataclass(frozen=True)
class Returns:
    """The prior's discounted add-on returns in sampled episodes.

    Attributes:
        mean: Their mean.
        spread: Standard deviation that is due to the prior's actions: that among episodes with the same start.
        steps: Mean of Σ γ²ᵗ over the steps t of an episode.
        longest: Steps of the longest episode.
    """

    mean: float
    spread: float
    steps: float
    longest: int

    def weight_at(self, divergence: float) -> float:
        """Return the ω′ at which KL(π̂ ‖ π) is a number of nats per step, to first order, with two digits.

        The policy at ω′ = α̂ is the prior tilted by exp(Q_R / ω′), so that its divergence is Var(Q_R) / (2 ω′²) at each
        state, for a large ω′. Where the environment is deterministic, the variance of the discounted return among
        episodes with the same start is Σ γ²ᵗ Var(Q_R) along them.

        Args:
            divergence: Nats per step, > 0.
        """
        return float(f"{self.spread / math.sqrt(2 * divergence * self.steps):.2g}")

    def divergence_at(self, weight: float) -> float:
        """Return KL(π̂ ‖ π) at an ω′ > 0 in nats per step, to first order: the inverse of :meth:`weight_at`."""
        return self.spread**2 / (2 * weight**2 * self.steps)

    def advice(self) -> str:
        """Return a sentence about the size of the add-on return that helps to choose ω′."""
        size = (
            f"in {STARTS * REPEATS} sampled episodes of the prior, the discounted add-on return is {self.mean:.3g}, "
            f"with a standard deviation of {self.spread:.2g} among episodes with the same start"
        )
        if self.spread == 0:
            return f"{size}, so that nothing can be suggested"
        weights = {divergence: f"{self.weight_at(divergence):g}" for divergence in (GENTLE, MODERATE, STRONG)}
        return (
            f"{size}, for which {weights[GENTLE]} changes the prior a little (some {GENTLE} nats per step), "
            f"{weights[MODERATE]} moderately (some {MODERATE} nats) and {weights[STRONG]} much"
        )


def measure(prior: Prior, task: WishedTask, gamma: float) -> Returns | None:
    """Sample episodes of an attached prior; ``None`` if it cannot act.

    Args:
        prior: The prior.
        task: Environment and wish.
        gamma: Discount factor γ.
    """
    if not prior.can_act:
        return None
    count = STARTS * REPEATS
    seeds = [SEEDS + number // REPEATS for number in range(count)]
    with closing(task.make_env(count)) as env:
        episodes = run_episodes(SampledPolicy(prior, epsilon=0.0, seed=0), env, seeds, record=True, name=task.env)
    return returns_of(episodes, gamma, REPEATS)


def returns_of(episodes: Episodes, gamma: float, repeats: int) -> Returns:
    """Summarise recorded episodes, ``repeats`` at a time with the same start."""
    steps, count = episodes.steps, len(episodes.table)
    discount, returns, squares = gamma ** steps["step"].astype(float), np.zeros(count), np.zeros(count)
    np.add.at(returns, steps["episode"], discount * steps["add_on_reward"])
    np.add.at(squares, steps["episode"], discount**2)
    within = returns.reshape(-1, repeats).var(axis=1, ddof=1).mean()
    return Returns(returns.mean(), math.sqrt(within), squares.mean(), int(steps["step"].max()) + 1)


def choose_weight(given: Any, prior: Prior, returns: Returns | None) -> float:
    """Return ω′: as it is given, or as the prior's file has its temperature, or as the add-on return suggests.

    Args:
        given: Number, ``"auto"``, or ``None`` for the prior's temperature.
        prior: The prior.
        returns: Of the prior; ``None`` if it cannot act.

    Raises:
        ConfigurationError: If it is none of these, or ``None`` and the prior has no temperature; says how to choose.
    """
    if given is None and prior.temperature is not None:
        return float(prior.temperature)
    advice = "it is compared with the add-on return" if returns is None else returns.advice()
    if given is None:
        raise ConfigurationError(
            f"omega_prime: found None, expected a number > 0 or 'auto', as {prior.origin()} states no temperature; "
            f"{advice}"
        )
    if given == "auto":
        possible = returns is not None and returns.spread > 0
        require(possible, "omega_prime", given, f"a number > 0; {advice}")
        assert returns is not None
        return returns.weight_at(MODERATE)
    valid = is_positive(given) or (given == 0 and not isinstance(given, bool))
    require(valid, "omega_prime", given, f"a number >= 0 or 'auto'; {advice}")
    return float(given)


def temperature_advice(prior: Prior, task: WishedTask) -> str:
    """Return a sentence that helps to choose the temperature of Q-values.

    Args:
        prior: The Boltzmann policy of the Q-values at the temperature 1, attached, whose log-probabilities differ as
            the Q-values do.
        task: Environment and wish.
    """
    with closing(task.make_env(STARTS)) as env:
        episodes = run_episodes(prior, env, list(range(SEEDS, SEEDS + STARTS)), record=True, name=task.env)
    observations = prior.as_input(episodes.steps["observation"])
    best = prior.distribution_parameters(observations).topk(2, dim=-1).values
    gap = float((best[:, 0] - best[:, 1]).median())
    return (
        f"the Q-values of its best two actions differ by {gap:.2g} (median over {STARTS} episodes); a third of that, "
        f"{gap / 3:.2g}, takes the second-best one time in twenty"
    )
