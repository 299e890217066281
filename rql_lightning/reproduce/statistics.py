"""Aggregates over training seeds (Agarwal et al. 2021, *Deep RL at the edge of the statistical precipice*)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from rql_lightning.reproduce.extras import required

CONFIDENCE = 0.95
QUARTER = 0.25


class Estimate(NamedTuple):
    """A number and its 95 % interval; both ends are NaN where the scores allow no interval."""

    value: float
    low: float
    high: float

    @property
    def has_interval(self) -> bool:
        """Whether there is an interval."""
        return not math.isnan(self.low)


def interquartile_mean(scores: np.ndarray) -> np.ndarray:
    """Mean without the lowest and highest quarter (rounded down) of the last axis; ``[..., n]`` → ``[...]``."""
    return _scipy().trim_mean(scores, QUARTER, axis=-1)


def bootstrap_interval(scores: Sequence[float], resamples: int = 10_000, seed: int = 0) -> Estimate:
    """Interquartile mean over seeds and its 95 % percentile bootstrap interval.

    Args:
        scores: One score per training seed (a single task is a single stratum).
        resamples: Number of bootstrap samples.
        seed: Seed of the resampling.

    Returns:
        The estimate. A single score, or one that is infinite, allows no interval; equal scores have one of width 0.
    """
    return stratified_interval([scores], resamples, seed)


def stratified_interval(scores: Sequence[Sequence[float]], resamples: int = 10_000, seed: int = 0) -> Estimate:
    """Interquartile mean over all runs of all tasks, and its 95 % percentile bootstrap interval, stratified by task.

    Each bootstrap sample draws the runs of each task anew from the runs of that task.

    Args:
        scores: Scores of each task's training seeds, comparable between tasks; tasks may differ in their number.
        resamples: Number of bootstrap samples.
        seed: Seed of the resampling.

    Returns:
        The estimate; it has no interval if a task has a single score, or any score is infinite or NaN.
    """

    def pooled(*strata: np.ndarray, axis: int = -1) -> Any:
        return _scipy().trim_mean(np.concatenate(strata, axis=axis), QUARTER, axis=axis)

    return _bootstrapped(pooled, scores, resamples, seed)


def probability_of_improvement(
    scores: Sequence[Sequence[float]], others: Sequence[Sequence[float]], resamples: int = 10_000, seed: int = 0
) -> Estimate:
    """Probability that a run scores higher than a run of another algorithm on the same task, averaged over tasks.

    (1/M) Σ_m mean_{i, j} S(x_mi, y_mj), S = 1 if x > y, ½ if x = y, 0 if x < y: on each task the Mann–Whitney statistic
    divided by the number of pairs. The interval is a stratified percentile bootstrap over the runs of each task and
    algorithm.

    Args:
        scores: Scores x of each task's training seeds; higher is better.
        others: Scores y of the other algorithm on the same tasks, in the same order.
        resamples: Number of bootstrap samples.
        seed: Seed of the resampling.

    Raises:
        ValueError: If the numbers of tasks differ or are 0.
    """
    if len(scores) != len(others) or len(scores) == 0:
        raise ValueError(f"found {len(scores)} and {len(others)} tasks, expected the same tasks, at least one")

    def improved(*strata: np.ndarray, axis: int = -1) -> Any:
        runs = [np.moveaxis(np.asarray(stratum), axis, -1) for stratum in strata]
        return np.mean([_superiority(x, y) for x, y in zip(runs[::2], runs[1::2], strict=True)], axis=0)

    pairs = [stratum for pair in zip(scores, others, strict=True) for stratum in pair]
    return _bootstrapped(improved, pairs, resamples, seed)


def _superiority(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Mean of S over all pairs; ``[..., n]``, ``[..., m]`` → ``[...]``."""
    left, right = x[..., :, np.newaxis], y[..., np.newaxis, :]
    return ((left > right) + 0.5 * (left == right)).mean(axis=(-2, -1))


def _bootstrapped(
    statistic: Callable[..., Any], strata: Sequence[Sequence[float]], resamples: int, seed: int
) -> Estimate:
    samples = [np.asarray(stratum, dtype=np.float64) for stratum in strata]
    with np.errstate(invalid="ignore"):  # the mean of ∞ and −∞
        value = float(statistic(*samples))
    if any(len(sample) < 2 or not np.isfinite(sample).all() for sample in samples):
        return Estimate(value, math.nan, math.nan)
    interval = (
        _scipy()
        .bootstrap(
            samples,
            statistic,
            n_resamples=resamples,
            confidence_level=CONFIDENCE,
            method="percentile",
            vectorized=True,
            rng=np.random.default_rng(seed),
        )
        .confidence_interval
    )
    return Estimate(value, float(interval.low), float(interval.high))


def _scipy() -> Any:
    """Return ``scipy.stats``, of an extra: where SciPy is installed, Lightning takes a second longer to import."""
    return required("scipy.stats", "reproduce")
