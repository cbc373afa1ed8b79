"""Scores of experiments over all items and seeds, from which tables and figures are computed.

Every number is computed from the items of the metric files: the mean, or the median, of the scores of all items and
seeds together, with its confidence interval over new items, images or scenes and new seeds
(:mod:`loco.evaluation.intervals`). A deterministic extractor is evaluated once, without a seed (``Metrics.seed`` is
None); it has no standard deviation over seeds, and its single run is compared with every seed of another extractor.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from loco.errors import DataError
from loco.evaluation.catalogue import BENCHMARKS
from loco.evaluation.intervals import LEVELS, Design
from loco.evaluation.result import Sample
from loco.results.metrics import Key, Metrics, key_text, samples_of

KEYS = ["benchmark", "split", "experiment", "title", "metric", "condition", "unit"]  # identify the rows of a table
FLOATS = ["value", "low", "high", "std", *(f"{end}_new_{level}" for level in LEVELS for end in ("low", "high"))]
NUMBERS = ["value", "low", "high", "population", "std", "n", "scenes", "seeds", "deterministic", *FLOATS[4:]]
SIGNIFICANCE_LEVEL = 0.05  # family-wise error rate of the comparisons of a table


@dataclass(frozen=True)
class Scores:
    """The scores of all items and seeds from which one number of a table is computed.

    Attributes:
        sample: metric, condition and items, from one seed.
        values: seed -> (m,) scores of the items; the seed is None for a deterministic extractor.
        design: clusters of the items.
    """

    sample: Sample
    values: Mapping[int | None, NDArray[np.float64]]
    design: Design

    @property
    def stacked(self) -> NDArray[np.float64]:
        """The scores of s seeds, (s, m)."""
        return np.stack(list(self.values.values()))

    def numbers(self, bounds: tuple[float, float], benchmark: str) -> dict[str, Any]:
        """Return the columns :data:`NUMBERS` of a table; ``bounds`` are the smallest and the largest possible value."""
        values, statistic = self.stacked, self.sample.statistic
        each = [self.design.value(one[None], statistic) for one in values] if values.size else []
        numbers = {
            "value": self.design.value(values, statistic),
            "std": np.std(each, ddof=1) if len(each) > 1 and np.isfinite(each).all() else None,
            "n": values.shape[1],
            "scenes": self.design.scenes,
            "seeds": len(values),
            "deterministic": set(self.values) == {None},
        }
        for level in LEVELS:
            interval = self.design.interval(values, level, statistic, bounds)
            numbers[f"low_new_{level}"], numbers[f"high_new_{level}"] = interval[:2] if interval else (None, None)
        numbers |= {end: numbers[f"{end}_new_{self.design.level}"] for end in ("low", "high")}
        known = numbers["low"] is not None
        numbers["population"] = BENCHMARKS[benchmark].population(self.design.level) if known else None
        infinite = {name: None for name in FLOATS if numbers[name] is None or not np.isfinite(numbers[name])}
        return numbers | infinite

    def p_value(self) -> float:
        """Return the p-value of the hypothesis that the value of these scores (differences) is 0; NaN if unknown."""
        interval = self.design.interval(self.stacked, None, self.sample.statistic)
        return interval.p if interval else np.nan

    def minus(self, other: Scores) -> Scores:
        """Return the differences per item and seed.

        Runs with the same seed are compared; the single run of a deterministic extractor is compared with every seed.
        """
        first, second = self.values, other.values
        seeds: dict[int | None, tuple[int | None, int | None]]
        if None in first and None not in second:
            seeds = {seed: (None, seed) for seed in second}
        elif None in second:
            seeds = {seed: (seed, None) for seed in first}
        else:
            seeds = {seed: (seed, seed) for seed in first if seed in second}
        values = {seed: _difference(first[one], second[two]) for seed, (one, two) in seeds.items()}
        return Scores(self.sample, values, self.design)

    def same_items(self, other: Scores) -> bool:
        """Return whether both contain scores of the same items, in the same order."""
        return self.design is other.design or _items(self.sample) == _items(other.sample)


def pooled(runs: Sequence[Metrics]) -> Iterator[Scores]:
    """Yield the scores from which each number of an experiment is computed, one per metric and condition.

    Args:
        runs: metric files of all seeds of the experiment, on one benchmark and split.

    Raises:
        DataError: the seeds were evaluated on different items, or with different settings.
    """
    for samples in zip(*(samples_of(run) for run in runs), strict=True):
        for run, sample in zip(runs, samples):
            require_same_items((runs[0], samples[0]), (run, sample))
        values = {run.seed: np.asarray(sample.values, dtype=np.float64) for run, sample in zip(runs, samples)}
        yield Scores(samples[0], values, Design(samples[0].keys, samples[0].weights))


def distinct(metrics: Iterable[Metrics]) -> dict[Key, Metrics]:
    """Return metric files by their keys.

    Raises:
        DataError: a run occurs twice, so that its scores would count as those of two seeds; or an experiment has runs
            both with and without a seed.
    """
    runs: dict[Key, Metrics] = {}
    for one in metrics:
        previous = runs.setdefault(one.key, one)
        if previous is not one:
            raise DataError(
                f"two metric files belong to {key_text(one.key)}",
                file=one.path,
                found=f"also {previous.path}",
                remedy="leave out one of the two files",
            )
    for key, one in runs.items():
        if one.seed is not None and (*key[:3], None) in runs:
            other = runs[*key[:3], None]
            raise DataError(
                f"{key_text(key[:3])} has runs both with a seed and without one (a deterministic extractor has none)",
                file=one.path,
                found=f"also {other.path}",
                remedy="delete the file that the workflow no longer makes",
            )
    return runs


def holm(p: pd.Series, comparisons: int) -> pd.Series:
    """Return p-values corrected for multiple comparisons (Holm 1979), valid for any dependence between them.

    Args:
        p: p-values of the comparisons of interest; NaN if undefined.
        comparisons: number of all comparisons of the family, of which ``p`` may contain a part.

    Returns:
        Corrected p-values, in the order of ``p``.
    """
    ordered = p.dropna().sort_values(kind="stable")
    corrected = (ordered * (comparisons - np.arange(len(ordered)))).cummax().clip(upper=1.0)
    return corrected.reindex(p.index)


def _difference(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.subtract(first, second, out=np.zeros_like(first), where=first != second)  # inf - inf: 0


def _items(sample: Sample) -> tuple:
    return list(sample.keys), None if sample.weights is None else list(sample.weights)


def require_same_items(first: tuple[Metrics, Sample], other: tuple[Metrics, Sample]) -> None:
    """Check that two runs were evaluated on the same items and with the same settings.

    Raises:
        DataError: they were not; the message names both files.
    """
    found, expected = ((run.settings, *_items(sample)) for run, sample in (other, first))
    if found != expected:
        raise DataError(
            "the metric file has other items or settings than the run that it is compared with",
            file=other[0].path,
            expected=f"those of {first[0].path}",
            remedy="run the benchmark again for both",
        )
