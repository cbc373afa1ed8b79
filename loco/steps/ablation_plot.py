"""The ablation_plot step: plot the scores of the variants of an ablation, one panel per benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from loco.records import Recipe
from loco.results.metrics import as_rows, read_metrics
from loco.results.plots.ablations import ablation_plot
from loco.steps.table import Rows


def run(recipes: Mapping[str, Recipe], rows: Rows, titles: Mapping[str, str], title: str, out: Path) -> None:
    """Plot an ablation to ``out`` (SVG) and a PNG beside it; ``title`` names the quantity that varies.

    Raises:
        DataError: a metric file is damaged, or was not made as planned.
    """
    metrics = as_rows([read_metrics(path, recipes[path]) for path in rows], rows)
    ablation_plot(metrics, titles, title, out.with_suffix(""))
