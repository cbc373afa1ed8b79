"""The ablation_plot step: scores of the variants of an ablation, a panel per benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from loco.records import Recipe
from loco.results.metrics import as_rows, read_metrics
from loco.results.plots import ablation_plot
from loco.steps.table import Rows


def run(recipes: Mapping[str, Recipe], rows: Rows, titles: Mapping[str, str], title: str, out: Path) -> None:
    """Draw an ablation into ``out`` (SVG) and a PNG beside it; ``title`` says what varies.

    Raises:
        DataError: a metric file is damaged, or was not made as the plan says.
    """
    metrics = as_rows([read_metrics(path, recipes[path]) for path in rows], rows)
    ablation_plot(metrics, titles, title, out.with_suffix(""))
