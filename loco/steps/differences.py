"""The differences step: compute the paired differences between the scores of experiments, item by item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from loco.records import Recipe
from loco.results.metrics import as_rows, read_metrics
from loco.results.tables.differences import write_differences
from loco.steps.table import Rows


def run(
    recipes: Mapping[str, Recipe],
    rows: Rows,
    titles: Mapping[str, str],
    comparisons: Sequence[Sequence[str]],
    out: Path,
) -> None:
    """Write the table of differences of a benchmark for the ``comparisons``, (experiment, other experiment) pairs.

    See :func:`loco.steps.table.run` for the other arguments.

    Raises:
        DataError: a metric file is damaged, or was not made as planned, or two files have different items.
    """
    metrics = as_rows([read_metrics(path, recipes[path]) for path in rows], rows)
    write_differences(metrics, titles, comparisons, out.with_suffix(""))
