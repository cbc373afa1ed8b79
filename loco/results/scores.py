"""Numbers of tables and figures: scores of experiments and their differences, over all items and seeds.

Every number is computed from the items of the metric files: the mean, or the median, of the scores of all items and
seeds together, with its confidence interval over new items, images or scenes and new seeds
(:mod:`loco.evaluation.intervals`). A deterministic extractor is evaluated once, without a seed (``Metrics.seed`` is
None); it has no standard deviation over seeds, and its single run is compared with every seed of another extractor.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from loco.errors import DataError
from loco.evaluation.catalogue import BENCHMARKS
from loco.evaluation.intervals import LEVELS, UNBOUNDED, Design
from loco.evaluation.result import Sample
from loco.results.metrics import Key, Metrics, named, samples_of
from loco.results.published import KEYS

FLOATS = ["value", "low", "high", "std", *(f"{end}_new_{level}" for level in LEVELS for end in ("low", "high"))]
NUMBERS = ["value", "low", "high", "population", "std", "n", "scenes", "seeds", "deterministic", *FLOATS[4:]]
SIGNIFICANT = 0.05  # family-wise error of the comparisons of a table


@dataclass(frozen=True)
class Scores:
    """The scores of one number of a table, for all seeds.

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
        return np.stack(list(self.values.values()))

    def numbers(self, bounds: tuple[float, float], benchmark: str) -> dict[str, Any]:
        """Return the columns :data:`NUMBERS`; ``bounds`` are the least and the largest possible value."""
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
        """Return the p-value of the hypothesis that the scores (differences) are 0; NaN if unknown."""
        interval = self.design.interval(self.stacked, None, self.sample.statistic)
        return interval.p if interval else np.nan

    def minus(self, other: Scores) -> Scores:
        """Return the differences per item and seed, for the common seeds, or with the single run of either."""
        own, rival = self.values, other.values
        seeds: dict[int | None, tuple[int | None, int | None]]
        if None in own and None not in rival:
            seeds = {seed: (None, seed) for seed in rival}
        elif None in rival:
            seeds = {seed: (seed, None) for seed in own}
        else:
            seeds = {seed: (seed, seed) for seed in own if seed in rival}
        values = {seed: _difference(own[one], rival[two]) for seed, (one, two) in seeds.items()}
        return Scores(self.sample, values, self.design)

    def same_items(self, other: Scores) -> bool:
        """Return whether both were measured on the same items."""
        return self.design is other.design or _items(self.sample) == _items(other.sample)


def summarise(metrics: Iterable[Metrics], titles: Mapping[str, str]) -> pd.DataFrame:
    """Return one line per benchmark, split, experiment, metric and condition, over the seeds.

    ``value`` is the mean, or the median, of the scores of all items and seeds, ``std`` the sample standard deviation of
    the values per seed (none with one seed). ``low`` and ``high`` bound the 95 % confidence interval for
    ``population``, the widest population that the ``n`` items of ``scenes`` scenes support, and for new seeds if there
    are several; ``low_new_items`` to ``high_new_scenes`` bound that for each population. Infinite numbers and scores
    without items are missing; a missing bound beside a value is infinite.

    ``seeds`` counts the runs. A deterministic extractor has one, no ``std``, and True as ``deterministic``.

    ``p_best`` is the p-value of the difference from the best line with the same split, metric and condition, per item
    and seed, corrected by Holm's method for all pairs of such lines (``comparisons``). It is missing for the best line
    itself, and for lines that cannot be compared (other items, no common seed).

    Raises:
        DataError: a run occurs twice, an experiment has runs both with and without a seed, or the seeds of an
            experiment were evaluated on different items.
    """
    order = {experiment: place for place, experiment in enumerate(titles)}
    runs: dict[tuple[str, str, str], list[Metrics]] = {}
    for one in sorted(distinct(metrics).values(), key=lambda m: (m.split, order[m.experiment], m.order)):
        runs.setdefault(one.key[:3], []).append(one)
    lines, cells = [], {}
    for (benchmark, split, experiment), own in runs.items():
        for scores in pooled(own):
            sample = scores.sample
            cell = cells.setdefault((benchmark, split, sample.metric, sample.condition), {})
            first = next(iter(cell.values()), scores)
            if scores.same_items(first):  # to compute the clusters only once
                scores = Scores(sample, scores.values, first.design)
            cell[len(lines)] = scores
            keys = (benchmark, split, experiment, titles[experiment], sample.metric, sample.condition, sample.unit)
            lines.append(dict(zip(KEYS, keys)) | scores.numbers(sample.bounds, benchmark))
    table = pd.DataFrame(lines, columns=[*KEYS, *NUMBERS]).astype(dict.fromkeys(FLOATS, float))
    return _compared_with_best(table, cells.values())


def _compared_with_best(table: pd.DataFrame, cells: Iterable[Mapping[int, Scores]]) -> pd.DataFrame:
    p, comparisons = pd.Series(np.nan, table.index), 0
    for cell in cells:
        values = table.loc[list(cell), "value"].dropna()
        pairs = [(one, two) for one, two in combinations(values.index, 2) if cell[one].same_items(cell[two])]
        comparisons += len(pairs)
        if pairs:
            shares = next(iter(cell.values())).sample.unit == "%"
            best = values.idxmax() if shares else values.idxmin()
            for line in {line for pair in pairs if best in pair for line in pair} - {best}:
                difference = cell[line].minus(cell[best])
                p[line] = difference.p_value() if difference.values else np.nan
    return table.assign(p_best=holm(p, comparisons), comparisons=comparisons)


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


def differences(
    metrics: Iterable[Metrics], titles: Mapping[str, str], comparisons: Iterable[Sequence[str]]
) -> pd.DataFrame:
    """Return the table of :func:`summarise` for the differences between experiments, per item and seed.

    Each run is compared with the run of the same seed (or with the single run of a deterministic extractor);
    ``deterministic`` is True if neither has seeds. Items are hard or easy for all extractors, so differences vary less
    than scores. For medians of errors, the value is the median of the differences of the errors. A failed item has an
    infinite error: the difference is 0 if both failed, and infinite if one did.

    ``p`` is the p-value of a difference of 0, and ``p_holm`` corrects it for the ``comparisons`` of the table.

    Raises:
        DataError: a run has no counterpart, or was evaluated on other items; or as for :func:`summarise`.
    """
    runs = distinct(metrics)
    places = sorted({(benchmark, split) for benchmark, split, _, _ in runs})
    lines = []
    for (benchmark, split), (one, other) in product(places, comparisons):
        own, rival = _runs_to_compare(runs, (benchmark, split), (one, other))
        keys = (benchmark, split, f"{one} - {other}", f"{titles[one]} \N{MINUS SIGN} {titles[other]}")
        for mine, theirs in zip(pooled(own), pooled(rival), strict=True):
            _require_same_items((own[0], mine.sample), (rival[0], theirs.sample))
            scores, sample = mine.minus(theirs), mine.sample
            bounds = (-1.0, 1.0) if sample.unit == "%" else UNBOUNDED
            line = dict(zip(KEYS, (*keys, sample.metric, sample.condition, sample.unit)))
            lines.append(line | scores.numbers(bounds, benchmark) | {"p": scores.p_value()})
    floats = dict.fromkeys((*FLOATS, "p"), float)
    table = pd.DataFrame(lines, columns=[*KEYS, *NUMBERS, "p"]).astype(floats)
    made = int(table["p"].notna().sum())
    return table.assign(p_holm=holm(table["p"], made), comparisons=made)


def pooled(runs: Sequence[Metrics]) -> Iterator[Scores]:
    """Yield the scores from which each number is computed, for all seeds of an experiment.

    Raises:
        DataError: the seeds were evaluated on different items, or with different settings.
    """
    for samples in zip(*(samples_of(run) for run in runs), strict=True):
        for run, sample in zip(runs, samples):
            _require_same_items((runs[0], samples[0]), (run, sample))
        values = {run.seed: np.asarray(sample.values, dtype=np.float64) for run, sample in zip(runs, samples)}
        yield Scores(samples[0], values, Design(samples[0].keys, samples[0].weights))


def distinct(metrics: Iterable[Metrics]) -> dict[Key, Metrics]:
    """Return metric files by their keys. No run may occur twice: its scores would count as those of two seeds."""
    runs: dict[Key, Metrics] = {}
    for one in metrics:
        twin = runs.setdefault(one.key, one)
        if twin is not one:
            raise DataError(f"two metric files are of {named(one.key)}", file=one.path, found=f"also {twin.path}")
    for key, one in runs.items():
        if one.seed is not None and (*key[:3], None) in runs:
            other = runs[*key[:3], None]
            raise DataError(
                f"{named(key[:3])} has runs both with a seed and, as of a deterministic extractor, without one",
                file=one.path,
                found=f"also {other.path}",
                remedy="delete the one that the workflow does not make any more",
            )
    return runs


def _runs_to_compare(
    runs: Mapping[Key, Metrics], place: tuple[str, str], experiments: Sequence[str]
) -> tuple[list[Metrics], list[Metrics]]:
    """Return all runs of two experiments on a (benchmark, split), in the order of the seeds."""
    wanted = [(*place, experiment) for experiment in experiments]
    seeds = sorted({key[3] for key in runs if key[:3] in wanted} - {None})
    own, rival = ([_run(runs, (*key, seed)) for seed in seeds or [None]] for key in wanted)
    return own[:1] if own[0].seed is None else own, rival[:1] if rival[0].seed is None else rival


def _run(runs: Mapping[Key, Metrics], key: Key) -> Metrics:
    found = runs.get(key) or runs.get((*key[:3], None))
    if found is None:
        raise DataError(f"there is no metric file of {named(key)} to compare with")
    return found


def _difference(own: NDArray[np.float64], rival: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.subtract(own, rival, out=np.zeros_like(own), where=own != rival)  # inf - inf: 0


def _items(sample: Sample) -> tuple:
    return list(sample.keys), None if sample.weights is None else list(sample.weights)


def _require_same_items(first: tuple[Metrics, Sample], other: tuple[Metrics, Sample]) -> None:
    asked, wanted = ((run.settings, *_items(sample)) for run, sample in (other, first))
    if asked != wanted:
        raise DataError(
            "was measured on other items, or with other settings, than the run that it is compared with",
            file=other[0].path,
            expected=f"those of {first[0].path}",
            remedy="run the benchmark anew for both",
        )
