"""Cells of Table 1 over training seeds, and whether each is better than the paper's, equal or worse."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

from rql_lightning.reporting.paper import ENVIRONMENTS, METRICS, SUCCESSFUL_ONLY, paper_row
from rql_lightning.reproduce.results import Result
from rql_lightning.reproduce.statistics import Estimate, bootstrap_interval

ROUNDING = 0.005
"""Half a unit of the paper's last digit, in the units that the paper prints: rates are printed in percent."""

NORMAL_95 = 1.959964
"""Quantile of the normal distribution for an interval of 95 %."""

COLUMNS = ("success_rate", "basic_return", "add_on_return", "metric")
LOWER_IS_BETTER = ("mean_abs_position", "negative_actions")
RATES = ("success_rate", "no_violation")

RULE = (
    "A cell is worse if the paper's value lies on the better side of our 95 % interval, better if it lies on the worse "
    "side, and equal if it lies within. The interval is that of the interquartile mean over training seeds "
    "(percentile bootstrap); with a single seed, that of the mean over evaluation episodes (normal; Wilson's for "
    "rates). It is widened by 0.005, as the paper prints two decimals. Better is a higher success rate, basic return, "
    "add-on return, lane index and rate of episodes without a violation, and a lower mean absolute position and number "
    "of negative actions. The paper's own uncertainty is not part of the rule: it gives no spread over training runs. "
    "On Highway, returns and lane index are over the episodes without a crash, as the paper's evidently are: its "
    "add-on returns there deviate by as little as 0.24, and are 20 times its lane indices."
)


class Verdict(Enum):
    """Ours compared with the paper's: a word, and a symbol that does not depend on colours."""

    BETTER = "better"
    EQUAL = "equal"
    WORSE = "worse"

    @property
    def symbol(self) -> str:
        """Symbol for tables."""
        return {"better": "▲", "equal": "=", "worse": "▼"}[self.value]


@dataclass(frozen=True)
class Cell:
    """One quantity of one policy over its training seeds.

    Args:
        name: Name of the quantity in ``metrics.json``, without ``_mean``.
        mean: Mean over the episodes of all seeds, or ``None`` where it is not defined.
        deviation: Standard deviation over the same episodes, or ``None`` for rates and where it is unknown.
        estimate: Interquartile mean over seeds with its interval, or that of the only seed's episodes; ``None`` where
            ``mean`` is.
        seeds: Number of training seeds.
        paper: The paper's mean, or ``None``.
        paper_deviation: The paper's standard deviation over episodes, or ``None``.
        every: Mean and standard deviation over all episodes, where those above are over successful ones.
    """

    name: str
    mean: float | None
    deviation: float | None
    estimate: Estimate | None
    seeds: int
    paper: float | None
    paper_deviation: float | None
    every: tuple[float, float | None] | None = None

    @property
    def verdict(self) -> Verdict | None:
        """Ours compared with the paper's by :data:`RULE`; ``None`` where one of them is missing."""
        if self.estimate is None or self.paper is None:
            return None
        return compare(self.estimate, self.paper, self.name)


def compare(estimate: Estimate, paper: float, name: str) -> Verdict:
    """Compare an estimate with a number of the paper by :data:`RULE`.

    Args:
        estimate: Our number; without an interval, the number alone is compared.
        paper: The paper's number, in the same units.
        name: Name of the quantity, which tells the better direction and the units.
    """
    rounding = ROUNDING / 100 if name in RATES else ROUNDING
    rounding *= 1 + 1e-9  # the paper's number itself lies on the edge of what is rounded to it
    low, high = (estimate.low, estimate.high) if estimate.has_interval else (estimate.value, estimate.value)
    above, below = paper > high + rounding, paper < low - rounding
    if name in LOWER_IS_BETTER:
        above, below = below, above
    return Verdict.WORSE if above else Verdict.BETTER if below else Verdict.EQUAL


def cells(results: Sequence[Result]) -> list[Cell]:
    """Return the four cells of a row of Table 1: success rate, basic return, add-on return and the task's metric.

    Args:
        results: Runs of one policy on one task, one per training seed.
    """
    first = results[0]
    try:
        paper: dict[str, float] = paper_row(ENVIRONMENTS.get(first.task, ""), first.policy)
    except KeyError:
        paper = {}
    names = [name if name != "metric" else METRICS.get(first.task, "metric") for name in COLUMNS]
    return [_cell(name, results, paper) for name in names]


def key_of(task: str, name: str) -> str:
    """Return the key of ``metrics.json`` that is compared with the paper's number.

    Args:
        task: Name of the task.
        name: Name of the quantity, without ``_mean``.
    """
    if name == "success_rate":
        return name
    return f"successful_{name}_mean" if task in SUCCESSFUL_ONLY else f"{name}_mean"


def _cell(name: str, results: Sequence[Result], paper: dict[str, float]) -> Cell:
    key = key_of(results[0].task, name)
    known = [result.metrics for result in results if result.metrics.get(key) is not None]
    mean_of_paper = paper.get(name if name == "success_rate" else f"{name}_mean")
    theirs = mean_of_paper, None if name in RATES else paper.get(f"{name}_std")
    if not known:
        return Cell(name, None, None, None, len(results), *theirs)
    weights = [_episodes(run, key) for run in known]
    mean, deviation = _over_runs(known, key, name, weights)
    every = None
    if key.startswith("successful_"):
        every = _over_runs(known, f"{name}_mean", name, [_episodes(run, name) for run in known])
    if len(known) > 1:
        estimate = bootstrap_interval([run[key] for run in known])
    else:
        estimate = _over_episodes(name, mean, deviation, weights[0])
    return Cell(name, mean, deviation, estimate, len(known), *theirs, every)


def _episodes(run: Mapping[str, Any], key: str) -> float:
    """Number of episodes that a mean is over."""
    episodes: int = run.get("episodes") or 1
    return episodes * run["success_rate"] if key.startswith("successful_") else episodes


def _over_runs(
    runs: Sequence[Mapping[str, Any]], key: str, name: str, weights: Sequence[float]
) -> tuple[float, float | None]:
    """Mean and standard deviation over the episodes of all runs."""
    means = np.array([run[key] for run in runs], dtype=np.float64)
    spread = f"{key.removesuffix('_mean')}_std"
    deviations = [None if name in RATES else run.get(spread) for run in runs]
    return _pooled(means, deviations, np.array(weights, dtype=np.float64))


def _pooled(means: np.ndarray, deviations: list[float | None], weights: np.ndarray) -> tuple[float, float | None]:
    """Mean and standard deviation (divisor n) over the episodes of all runs, from those of each run."""
    with np.errstate(invalid="ignore"):
        mean = float(np.average(means, weights=weights))
        if any(deviation is None for deviation in deviations):
            return mean, None
        squares = np.array(deviations, dtype=np.float64) ** 2 + (means - mean) ** 2
        return mean, float(np.sqrt(np.average(squares, weights=weights)))


def _over_episodes(name: str, mean: float, deviation: float | None, episodes: float) -> Estimate:
    """The mean of one run and its 95 % interval over episodes."""
    if episodes < 2 or not math.isfinite(mean):
        return Estimate(mean, math.nan, math.nan)
    if name in RATES:
        low, high = _wilson(mean, episodes)
        return Estimate(mean, low, high)
    if deviation is None:
        return Estimate(mean, math.nan, math.nan)
    half = NORMAL_95 * deviation / math.sqrt(episodes - 1)  # deviations have the divisor n
    return Estimate(mean, mean - half, mean + half)


def _wilson(rate: float, episodes: float) -> tuple[float, float]:
    """Wilson's score interval of a rate, which has a width at 0 and 1 as well."""
    z2 = NORMAL_95**2 / episodes
    centre = (rate + z2 / 2) / (1 + z2)
    half = math.sqrt(rate * (1 - rate) * z2 + z2 * z2 / 4) / (1 + z2)
    return max(0.0, centre - half), min(1.0, centre + half)
