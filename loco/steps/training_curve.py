"""The training_curve step: plot loss and validation score over the training steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from loco.errors import DataError
from loco.models.stored import require_model
from loco.records import Recipe
from loco.results.plots.training import training_curve
from loco.storage.reading import REGENERATE
from loco.storage.training_log import curve_digest


def run(recipes: Mapping[str, Recipe], runs: Sequence[tuple[Path, Path]], titles: Mapping[str, str], out: Path) -> None:
    """Plot the training curves of a split to ``out`` (SVG) and a PNG beside it.

    Args:
        recipes: model file -> its recipe.
        runs: (log, model) of each training run; the log is ``<experiment>/<run>/log.csv``.
        titles: experiment -> its title in the figure.
        out: SVG to write.

    Raises:
        DataError: a model was not made as planned, or a log does not belong to its model.
    """
    curves: dict[str, list[Path]] = {}
    for log, model in runs:
        stated, found = require_model(model, recipes[str(model)]).facts["log"], curve_digest(log)
        if stated != found:
            raise DataError(
                "the file is not the log of the model in the same folder",
                file=log,
                expected=stated,
                found=found,
                remedy=REGENERATE,
            )
        curves.setdefault(log.parent.parent.name, []).append(log)
    training_curve(curves, titles, out.with_suffix(""))
