"""The differences step: how much more one experiment scores than another, item by item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from loco.records import Recipe
from loco.results.metrics import as_rows, read_metrics
from loco.results.tables import write_differences
from loco.steps.table import Rows


def run(
    recipes: Mapping[str, Recipe],
    rows: Rows,
    titles: Mapping[str, str],
    comparisons: Sequence[Sequence[str]],
    out: Path,
) -> None:
    """Write the table of differences of a benchmark; arguments as of :func:`loco.steps.table.run`.

    Raises:
        DataError: a metric file is damaged, or was not made as the plan says, or two are of different items.
    """
    metrics = as_rows([read_metrics(path, recipes[path]) for path in rows], rows)
    write_differences(metrics, titles, comparisons, out.with_suffix(""))
