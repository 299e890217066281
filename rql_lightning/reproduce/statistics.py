"""Aggregates over training seeds (Agarwal et al. 2021, *Deep RL at the edge of the statistical precipice*)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def interquartile_mean(scores: np.ndarray) -> np.ndarray:
    """Mean without the lowest and highest quarter (rounded down) of the last axis; ``[..., n]`` → ``[...]``."""
    count = scores.shape[-1]
    cut = count // 4
    return np.sort(scores, axis=-1)[..., cut : count - cut].mean(axis=-1)


def bootstrap_interval(scores: Sequence[float], resamples: int = 10_000, seed: int = 0) -> tuple[float, float, float]:
    """Interquartile mean over seeds and its 95 % percentile bootstrap interval.

    Args:
        scores: One score per training seed (a single task is a single stratum).
        resamples: Bootstrap samples.
        seed: Of the resampling.

    Returns:
        ``(estimate, low, high)``.
    """
    values = np.asarray(scores, dtype=np.float64)
    draws = np.random.default_rng(seed).integers(len(values), size=(resamples, len(values)))
    low, high = np.percentile(interquartile_mean(values[draws]), [2.5, 97.5])
    return float(interquartile_mean(values)), float(low), float(high)
