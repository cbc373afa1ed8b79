from __future__ import annotations

import numpy as np
import pytest

from loco.evaluation.bootstrap import mean_interval, median_interval


def test_interval_covers_the_true_mean_as_often_as_it_says():
    rng = np.random.default_rng(1)
    covered = 0
    for trial in range(500):
        mean, low, high = mean_interval(rng.normal(3, 2, size=60), resamples=400, seed=trial)
        assert low < mean < high
        covered += low <= 3 <= high
    assert 0.91 < covered / 500 < 0.98


def test_level_sets_the_width():
    values = np.random.default_rng(2).normal(size=400)
    for level, z in ((0.95, 1.960), (0.5, 0.674)):
        _, low, high = mean_interval(values, resamples=4000, seed=0, level=level)
        assert high - low == pytest.approx(2 * z * values.std() / np.sqrt(400), rel=0.06)


def test_clusters_are_drawn_whole():
    """Members of a cluster agree: what counts is the number of clusters, not of members."""
    rng = np.random.default_rng(3)
    truth, sizes = rng.normal(size=50), rng.integers(1, 40, size=50)
    members = np.repeat(truth, sizes)
    mean, low, high = mean_interval(truth, sizes, resamples=2000, seed=0)
    assert mean == pytest.approx(members.mean())
    clusters = np.split(members, np.cumsum(sizes)[:-1])
    explicit = [np.concatenate([clusters[i] for i in rng.integers(50, size=50)]).mean() for _ in range(2000)]
    assert (low, high) == pytest.approx(np.quantile(explicit, [0.025, 0.975]), abs=0.05)
    _, _, member_high = mean_interval(members, resamples=2000, seed=0)
    assert high - mean > 2 * (member_high - mean)


def test_same_seed_same_interval():
    values = np.random.default_rng(4).random(30)
    first = mean_interval(values, resamples=100, seed=5)
    assert first == mean_interval(values, resamples=100, seed=5)
    assert first != mean_interval(values, resamples=100, seed=6)


def test_too_few_items_have_no_interval():
    assert mean_interval([], resamples=10, seed=0) == (None, None, None)
    assert mean_interval([0.25], resamples=10, seed=0) == (0.25, None, None)


def test_median_interval_covers_the_true_median():
    rng, covered = np.random.default_rng(5), 0
    for trial in range(300):
        median, low, high = median_interval(rng.exponential(1, size=61), resamples=300, seed=trial)
        assert low <= median <= high
        covered += low <= np.log(2) <= high
    assert 0.9 < covered / 300 < 0.99


def test_failures_are_infinite_and_the_median_bears_them():
    assert median_interval([3.0, 1.0, 2.0, np.inf], resamples=100, seed=0)[0] == 2.5
    assert median_interval([1.0, np.inf, np.inf], resamples=100, seed=0)[:2] == (np.inf, 1.0)
    assert median_interval([], resamples=10, seed=0) == (None, None, None)
    assert median_interval([4.0], resamples=10, seed=0) == (4.0, None, None)
