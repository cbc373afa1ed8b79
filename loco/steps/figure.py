"""The figure step: plot one figure of a benchmark on a split."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from loco.records import Recipe
from loco.results.metrics import as_rows, read_metrics
from loco.results.plots.scores import FIGURES
from loco.steps.table import Rows


def run(figure: str, recipes: Mapping[str, Recipe], rows: Rows, titles: Mapping[str, str], out: Path) -> None:
    """Plot a figure to ``out`` (SVG) and a PNG beside it.

    Args:
        figure: a key of :data:`loco.results.plots.scores.FIGURES`.
        recipes, rows, titles: as for :func:`loco.steps.table.run`.
        out: SVG to write.

    Raises:
        DataError: a metric file is damaged, or was not made as planned.
    """
    metrics = as_rows([read_metrics(path, recipes[path]) for path in rows], rows)
    FIGURES[figure](metrics, titles, out.with_suffix(""))
