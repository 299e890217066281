"""ω′: how much the prior counts, beside an add-on reward of this size."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import closing
from functools import cached_property, partial
from typing import Any, Literal

import numpy as np
from gymnasium.vector import VectorEnv

from rql_lightning.customizing.fitted import returns_to_go, spread_of_values
from rql_lightning.customizing.task import WishedTask
from rql_lightning.errors import ConfigurationError
from rql_lightning.evaluation import run_episodes
from rql_lightning.policies.sampling import SampledPolicy
from rql_lightning.priors import Prior
from rql_lightning.priors.base import is_positive

SEEDS, FEWEST, MOST, STEPS, EPISODES_OF_VALUES = 2_000_000, 64, 256, 20_000, 16
"""First seed; numbers of sampled episodes, as many as have so many steps together; episodes to compare Q-values in."""
LONGEST = 10_000
"""Most steps of an episode of an environment without a time limit, which must end by itself."""
GENTLE, MODERATE, STRONG = 0.05, 0.5, 5.0
"""Divergences from the prior in nats per step to leading order, for suggestions."""

UNKNOWN = (
    "the prior cannot be sampled, so that nothing can be measured; omega_prime is the add-on return that is worth one "
    "nat of difference from the prior, so that a tenth of what an episode can gain is a start"
)

Weight = float | Literal["auto"]


class Returns:
    """The prior's discounted add-on returns in sampled episodes.

    Args:
        mean: Their mean.
        longest: Steps of the longest episode.
        estimate: Function that returns how much the prior's actions differ in their values
            (:func:`~rql_lightning.customizing.fitted.spread_of_values`), which takes seconds.
    """

    def __init__(self, mean: float, longest: int, estimate: Callable[[], float]) -> None:
        self.mean, self.longest, self.estimate = mean, longest, estimate

    @cached_property
    def spread(self) -> float:
        """Standard deviation of Q(s, a) over the prior's actions a."""
        return self.estimate()

    def weight_at(self, divergence: float) -> float:
        """Return the ω′ at which KL(π̂ ‖ π) is a number of nats per step to leading order, with two digits.

        The policy at ω′ = α̂ is the prior tilted by exp(Q_R / ω′), so that its divergence is Var(Q_R) / (2 ω′²) at each
        state for a large ω′, and less for a small one.

        Args:
            divergence: Nats per step, > 0.
        """
        return float(f"{self.spread / math.sqrt(2 * divergence):.2g}")

    def advice(self) -> str:
        """Return a sentence about the size of the add-on return that helps to choose ω′."""
        size = (
            f"in sampled episodes of the prior, the discounted add-on return is {self.mean:.3g}, "
            f"and what its actions are worth has a standard deviation of {self.spread:.2g}"
        )
        if not self.spread > 0:  # NaN neither
            return f"{size}, so that nothing can be suggested"
        weights = {divergence: f"{self.weight_at(divergence):g}" for divergence in (GENTLE, MODERATE, STRONG)}
        return (
            f"{size}, for which {weights[GENTLE]} changes the prior a little, {weights[MODERATE]} moderately and "
            f"{weights[STRONG]} much"
        )


def measure(prior: Prior, task: WishedTask, gamma: float) -> Returns | None:
    """Sample episodes of an attached prior; ``None`` if it cannot act.

    Args:
        prior: The prior.
        task: Environment and wish.
        gamma: Discount factor γ.

    Raises:
        EnvironmentContractError: If an episode of an environment without a time limit does not end.
    """
    if not prior.can_act:
        return None
    policy = SampledPolicy(prior, epsilon=0.0, seed=0)
    with closing(task.make_env(FEWEST)) as env:
        steps = _recorded(policy, env, range(FEWEST), task)
        length = len(steps["step"]) / FEWEST
        wanted = min(MOST, math.ceil(STEPS / length))
        if wanted > FEWEST:
            more = _recorded(policy, env, range(FEWEST, wanted), task)
            more["episode"] = more["episode"] + FEWEST
            steps = {key: np.concatenate([column, more[key]]) for key, column in steps.items()}
    starts = returns_to_go(steps, gamma)[steps["step"] == 0]
    return Returns(starts.mean(), int(steps["step"].max()) + 1, partial(spread_of_values, prior, steps, gamma))


def _recorded(policy: Any, env: VectorEnv, numbers: Iterable[int], task: WishedTask) -> dict[str, np.ndarray]:
    """Return the steps of episodes."""
    seeds, longest = [SEEDS + number for number in numbers], task.max_episode_steps or LONGEST
    return run_episodes(policy, env, seeds, record=True, max_steps=longest, name=task.base).steps


def choose_weight(given: Any, prior: Prior, returns: Returns | None) -> float:
    """Return ω′: as it is given, or as the prior's file has its temperature, or as the add-on return suggests.

    A temperature at which the policy would leave the prior altogether is raised to that of the divergence
    :data:`STRONG`: far from what the prior does, its log-likelihood says little about its reward.

    Args:
        given: Number, ``"auto"``, or ``None`` for the prior's temperature.
        prior: The prior.
        returns: Of the prior; ``None`` if it cannot act.

    Raises:
        ConfigurationError: If it is none of these, or ``None`` and the prior has no temperature; says how to choose.
    """
    if given is None and prior.temperature is not None:
        least = 0.0 if returns is None or not returns.spread > 0 else returns.weight_at(STRONG)
        return max(float(prior.temperature), least)
    if is_positive(given) or (given == 0 and not isinstance(given, bool)):
        return float(given)
    if given == "auto" and returns is not None and returns.spread > 0:
        return returns.weight_at(MODERATE)
    expected, advice = "a number >= 0 or 'auto'", UNKNOWN if returns is None else returns.advice()
    if given is None:
        offered = "a number > 0" if returns is None else "a number > 0 or 'auto'"
        expected = f"{offered}, as {prior.origin()} states no temperature"
    elif given == "auto":
        expected = "a number > 0"
    raise ConfigurationError(f"omega_prime: found {given!r}, expected {expected}; {advice}")


def temperature_advice(prior: Prior, task: WishedTask) -> str:
    """Return a sentence that helps to choose the temperature of Q-values.

    Args:
        prior: The Boltzmann policy of the Q-values at the temperature 1, attached, whose log-probabilities differ as
            the Q-values do.
        task: Environment and wish.
    """
    with closing(task.make_env(EPISODES_OF_VALUES)) as env:
        steps = _recorded(prior, env, range(EPISODES_OF_VALUES), task)
    observations = prior.as_input(steps["observation"])
    best = prior.distribution_parameters(observations).topk(2, dim=-1).values
    gap = float((best[:, 0] - best[:, 1]).median())
    return (
        f"the Q-values of its best two actions differ by {gap:.2g} (median over {EPISODES_OF_VALUES} episodes); a "
        f"third of that, {gap / 3:.2g}, takes the second-best one time in twenty"
    )
