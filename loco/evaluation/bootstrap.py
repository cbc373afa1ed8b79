"""Confidence intervals by resampling the items that were drawn independently (images, pairs), not their parts."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def mean_interval(
    values: ArrayLike, weights: ArrayLike | None = None, *, resamples: int, seed: int, level: float = 0.95
) -> tuple[float | None, float | None, float | None]:
    """Weighted mean and its percentile-bootstrap confidence interval (Efron & Tibshirani 1993, ch. 13).

    For a cluster bootstrap, give each cluster's mean and its size: drawing whole clusters with replacement and
    averaging all their members is the weighted mean of the drawn clusters. Equal seeds and numbers of items draw
    the same items, so that rivals are resampled alike.

    Args:
        values: (m,), one an item, finite.
        weights: (m,), positive; equal if not given.
        resamples: how many times to resample.
        seed: of the draws.
        level: coverage of the interval.

    Returns:
        Mean, lower and upper end. All None without items; no interval (None) for a single item.
    """
    values = np.asarray(values, dtype=np.float64)
    weights = np.ones_like(values) if weights is None else np.asarray(weights, dtype=np.float64)
    m = len(values)
    if m == 0:
        return None, None, None
    mean = float(values @ weights / weights.sum())
    if m == 1:
        return mean, None, None
    # How often each item is drawn is all that a mean needs.
    drawn = np.random.default_rng(seed).multinomial(m, np.full(m, 1 / m), size=resamples)
    means = (drawn @ (values * weights)) / (drawn @ weights)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return mean, float(low), float(high)


def median_interval(
    values: ArrayLike, *, resamples: int, seed: int, level: float = 0.95
) -> tuple[float | None, float | None, float | None]:
    """Median and its percentile-bootstrap confidence interval; arguments and result as of :func:`mean_interval`.

    ``values`` may be infinite, where an item failed; so may the result.
    """
    values = np.asarray(values, dtype=np.float64)
    m = len(values)
    if m == 0:
        return None, None, None
    if m == 1:
        return float(values[0]), None, None
    rng = np.random.default_rng(seed)
    medians = [_median(values[rng.integers(m, size=m)]) for _ in range(resamples)]
    # Of the medians as they are: between a number and infinity there is nothing to interpolate.
    low, high = np.quantile(medians, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")
    return _median(values), float(low), float(high)


def _median(values: NDArray[np.float64]) -> float:
    """The middle value, or the mean of the two in the middle."""
    ordered = np.sort(values)
    return float((ordered[(len(values) - 1) // 2] + ordered[len(values) // 2]) / 2)
