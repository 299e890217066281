"""Statistics over seeds, held against SciPy and computations by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from rql_lightning.reproduce.statistics import (
    bootstrap_interval,
    interquartile_mean,
    probability_of_improvement,
    stratified_interval,
)

pytestmark = pytest.mark.filterwarnings("error")


def test_one_seed_has_no_interval_and_equal_seeds_have_one_of_no_width():
    alone = bootstrap_interval([5.0])
    assert alone.value == 5.0 and not alone.has_interval and math.isnan(alone.high)
    assert bootstrap_interval([2.0, 2.0, 2.0]) == (2.0, 2.0, 2.0)
    assert bootstrap_interval([1.0, 2.0, 9.0]) == (4.0, 1.0, 9.0)  # 3 seeds: mean and range


@pytest.mark.parametrize("scores", [[math.inf, 1.0, 2.0], [math.inf] * 3])
def test_an_infinite_score_has_no_interval(scores):
    estimate = bootstrap_interval(scores)
    assert estimate.value == math.inf and not estimate.has_interval


def test_the_interval_covers_the_true_mean_as_often_as_it_says():
    random = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        _, low, high = bootstrap_interval(random.normal(size=40).tolist(), resamples=400, seed=trial)
        covered += low <= 0 <= high
    assert 0.88 <= covered / 200 <= 0.99  # the percentile bootstrap is a little narrow


def test_strata_are_resampled_apart():
    """Two tasks whose runs agree within each: pooled resampling would see a spread, the stratified one none."""
    estimate = stratified_interval([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    assert estimate == (0.5, 0.5, 0.5)
    mixed = stratified_interval([[0.0, 2.0], [1.0, 1.0, 1.0]])
    assert mixed.value == interquartile_mean(np.array([0.0, 2.0, 1.0, 1.0, 1.0])) and mixed.low < 1 < mixed.high
    assert not stratified_interval([[0.0], [1.0, 2.0]]).has_interval


def test_probability_of_improvement_is_that_of_mann_and_whitney():
    random = np.random.default_rng(3)
    tasks = [(random.normal(0.5, 1, 7), random.normal(0, 1, 5)), (random.integers(0, 4, 6), random.integers(0, 4, 9))]
    expected = np.mean([mannwhitneyu(x, y).statistic / (len(x) * len(y)) for x, y in tasks])
    xs, ys = zip(*tasks, strict=True)
    estimate = probability_of_improvement(xs, ys)
    assert estimate.value == pytest.approx(expected)
    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
    assert probability_of_improvement(ys, xs).value == pytest.approx(1 - expected)


def test_probability_of_improvement_by_hand():
    assert probability_of_improvement([[1.0, 2.0]], [[1.0, 0.0]]).value == 0.875  # pairs: ½, 1, 1, 1
    assert probability_of_improvement([[3.0, 4.0]], [[1.0, 2.0]]) == (1.0, 1.0, 1.0)
    assert not probability_of_improvement([[3.0]], [[1.0, 2.0]]).has_interval
    with pytest.raises(ValueError, match="found 1 and 2 tasks"):
        probability_of_improvement([[1.0]], [[1.0], [2.0]])
