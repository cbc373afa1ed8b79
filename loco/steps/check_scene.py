"""The check_scene step: check every raw file that frames are made from, and write a manifest."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from loco.datasets import check_scene, conventions_of
from loco.records import Recipe
from loco.steps.raw_checks import write_check


def run(recipe: Recipe, raw: Path, out: Path, dataset: str, scene: str) -> None:
    """Check a raw scene. Problems are written to the manifest, so that a broken scene does not stop the others.

    Args:
        recipe: recipe of the manifest; its settings are ``format``, ``decode``, ``accept_geometry`` and the conventions
            of the dataset.
        raw: folder of the raw scenes.
        out: manifest to write.
        dataset, scene: their names.

    Raises:
        DataError: the scene was made by the workflow, but not as planned.
    """
    accept = recipe.settings.get("accept_geometry", False)
    check = partial(check_scene, conventions=conventions_of(recipe.settings), accept_geometry=accept)
    write_check(check, recipe, raw, out, dataset, scene)
