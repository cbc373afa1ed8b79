"""The check_scene step: look at every raw file that frames are made from, and write what was found."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from loco.datasets import check_scene, conventions_of
from loco.records import Recipe
from loco.steps.raw_checks import write_check


def run(recipe: Recipe, raw: Path, out: Path, dataset: str, scene: str) -> None:
    """Check a raw scene. Problems go into the manifest, so that one broken scene does not stop the others.

    Args:
        recipe: of the manifest; its settings are ``format``, ``decode`` and the conventions of the dataset.
        raw: folder that holds the raw scenes.
        out: manifest to write.
        dataset, scene: their names.

    Raises:
        DataError: the scene was made by the workflow, and not as the plan says.
    """
    write_check(partial(check_scene, conventions=conventions_of(recipe.settings)), recipe, raw, out, dataset, scene)
