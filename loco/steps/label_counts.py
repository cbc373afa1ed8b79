"""The label_counts step: write statistics of the labels of all scenes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from loco.records import Recipe
from loco.results.tables.labels import write_label_tables
from loco.storage import Labels


def run(paths: Sequence[Path], recipes: Mapping[str, Recipe], scenes: Path, categories: Path) -> None:
    """Write the tables of scenes and of categories (:func:`loco.results.tables.labels.write_label_tables`).

    Raises:
        DataError: a file is damaged, or was not made as planned.
    """
    for path in paths:
        with Labels(path) as labels:
            labels.require_recipe(recipes[labels.dataset])
    write_label_tables(paths, scenes, categories)
