"""Tables of the differences between experiments, per item and seed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path

import pandas as pd

from loco.errors import DataError
from loco.evaluation.intervals import UNBOUNDED
from loco.results.metrics import Key, Metrics, key_text
from loco.results.scores import FLOATS, KEYS, NUMBERS, SIGNIFICANCE_LEVEL, distinct, holm, pooled, require_same_items
from loco.results.tables.markup import TableKind, write


def write_differences(
    metrics: Iterable[Metrics], titles: Mapping[str, str], comparisons: Iterable[Sequence[str]], stem: str | Path
) -> None:
    """Write tables of the differences between experiments, to the same files as :func:`write_tables`.

    Args:
        metrics: the metric files of one benchmark.
        titles: experiment -> title in the tables.
        comparisons: (experiment, other experiment) pairs, one per row.
        stem: path without suffix.

    Raises:
        DataError: experiments were evaluated on different items.
    """
    reading = (
        "Paired difference per item, first minus second, in {scale}; {spread}; in brackets the {interval}. Bold: "
        "significantly different from zero (Holm's correction for {comparisons} in this table)."
    )
    scales = "percentage points", "the unit of the metric (lower is better)"
    table = differences(metrics, titles, comparisons)
    write(table, TableKind("_differences", reading, scales, "+", _significant), stem)


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
    pairs = sorted({(benchmark, split) for benchmark, split, _, _ in runs})
    lines = []
    for (benchmark, split), (one, other) in product(pairs, comparisons):
        first, second = _runs_to_compare(runs, (benchmark, split), (one, other))
        keys = (benchmark, split, f"{one} - {other}", f"{titles[one]} \N{MINUS SIGN} {titles[other]}")
        for minuend, subtrahend in zip(pooled(first), pooled(second), strict=True):
            require_same_items((first[0], minuend.sample), (second[0], subtrahend.sample))
            scores, sample = minuend.minus(subtrahend), minuend.sample
            bounds = (-1.0, 1.0) if sample.unit == "%" else UNBOUNDED
            line = dict(zip(KEYS, (*keys, sample.metric, sample.condition, sample.unit)))
            lines.append(line | scores.numbers(bounds, benchmark) | {"p": scores.p_value()})
    floats = dict.fromkeys((*FLOATS, "p"), float)
    table = pd.DataFrame(lines, columns=[*KEYS, *NUMBERS, "p"]).astype(floats)
    count = int(table["p"].notna().sum())
    return table.assign(p_holm=holm(table["p"], count), comparisons=count)


def _runs_to_compare(
    runs: Mapping[Key, Metrics], pair: tuple[str, str], experiments: Sequence[str]
) -> tuple[list[Metrics], list[Metrics]]:
    """Return all runs of two experiments on a (benchmark, split), in the order of the seeds."""
    wanted = [(*pair, experiment) for experiment in experiments]
    seeds = sorted({key[3] for key in runs if key[:3] in wanted} - {None})
    first, second = ([_run(runs, (*key, seed)) for seed in seeds or [None]] for key in wanted)
    return first[:1] if first[0].seed is None else first, second[:1] if second[0].seed is None else second


def _run(runs: Mapping[Key, Metrics], key: Key) -> Metrics:
    found = runs.get(key) or runs.get((*key[:3], None))
    if found is None:
        raise DataError(
            f"there is no metric file of {key_text(key)} to compare with",
            remedy="evaluate both experiments with the same seeds",
        )
    return found


def _significant(lines: pd.DataFrame) -> set[int]:
    """Return the index of the differences that are significant after correction for all comparisons of the table."""
    return set(lines.index[lines["p_holm"] < SIGNIFICANCE_LEVEL])
