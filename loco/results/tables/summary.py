"""Tables of the scores of experiments on a benchmark, over all items and seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from loco.results.metrics import Metrics
from loco.results.scores import FLOATS, KEYS, NUMBERS, SIGNIFICANCE_LEVEL, Scores, distinct, holm, pooled
from loco.results.tables.markup import TableKind, format_value, write
from loco.results.tables.published import Published, add_published


def write_tables(
    metrics: Iterable[Metrics], titles: Mapping[str, str], stem: str | Path, published: Published | None = None
) -> None:
    """Write ``stem``.csv, ``stem``.md, ``stem``.tex and ``stem``.html, each atomically.

    Args:
        metrics: the metric files of one benchmark.
        titles: experiment -> title in the tables, in the order of the rows.
        stem: path without suffix.
        published: published numbers to show in separate columns; None for none.
    """
    reading = (
        "In {scale}; {spread}; in brackets the {interval}. Bold: the best value of each column, and all values that "
        "are "
        "not significantly worse (paired differences per item, Holm's correction for {comparisons} of two rows in a "
        "column)."
    )
    scales = "percent, higher is better", "the unit of the metric, lower is better"
    metrics = list(metrics)
    table = add_published(summarise(metrics, titles), published or Published(), metrics[0].settings)
    write(table, TableKind("", reading, scales, "", _best), stem)


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
    order = {experiment: position for position, experiment in enumerate(titles)}
    runs: dict[tuple[str, str, str], list[Metrics]] = {}
    for one in sorted(distinct(metrics).values(), key=lambda m: (m.split, order[m.experiment], m.order)):
        runs.setdefault(one.key[:3], []).append(one)
    lines, cells = [], {}
    for (benchmark, split, experiment), of_experiment in runs.items():
        for scores in pooled(of_experiment):
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
            is_fraction = next(iter(cell.values())).sample.unit == "%"
            best = values.idxmax() if is_fraction else values.idxmin()
            for line in {line for pair in pairs if best in pair for line in pair} - {best}:
                difference = cell[line].minus(cell[best])
                p[line] = difference.p_value() if difference.values else np.nan
    return table.assign(p_best=holm(p, comparisons), comparisons=comparisons)


def _best(lines: pd.DataFrame) -> set[int]:
    """Return the index of the best line of each condition and of those not significantly worse; empty for one line.

    Lines that are printed like the best one count as best.
    """
    unit = lines["unit"].iloc[0]
    values = lines["value"].map(lambda value: float(format_value(value, unit)))
    columns = values.groupby(lines["condition"])
    best = columns.transform("max" if unit == "%" else "min")
    chosen = (values == best) | (values.notna() & (lines["p_best"] >= SIGNIFICANCE_LEVEL))
    return set(lines.index[chosen & (columns.transform("count") > 1)])
