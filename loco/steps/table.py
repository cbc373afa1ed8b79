"""The table step: write the table of scores of one benchmark, aggregated over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loco.records import Recipe
from loco.results.metrics import as_rows, read_metrics
from loco.results.tables.published import Published, read_published
from loco.results.tables.summary import write_tables

Rows = Mapping[str, Sequence[tuple[str, str]]]  # metric file -> (split, name) of its table rows


def run(
    recipes: Mapping[str, Recipe],
    rows: Rows,
    titles: Mapping[str, str],
    out: Path,
    published: Mapping[str, Any] | None = None,
) -> None:
    """Write the table of a benchmark.

    Args:
        recipes: metric file -> its recipe.
        rows: metric file -> its table rows.
        titles: name of a row -> its title in the table.
        out: CSV to write; Markdown, LaTeX and HTML are written beside it.
        published: ``file`` of published numbers (None for none), and the ``datasets`` and ``methods`` to show
            (:class:`loco.results.tables.published.Published`).

    Raises:
        DataError: a metric file or the file of published numbers is damaged, or a metric file was not made as planned.
    """
    metrics = as_rows([read_metrics(path, recipes[path]) for path in rows], rows)
    shown = Published([], {}, {})
    if published and published["file"]:
        wanted = {name for names in published["datasets"].values() for name in names}
        numbers = [number for number in read_published(Path(published["file"])) if number.dataset in wanted]
        shown = Published(numbers, published["datasets"], published["methods"])
    write_tables(metrics, titles, out.with_suffix(""), shown)
