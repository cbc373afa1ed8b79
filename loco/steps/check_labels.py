"""The check_labels step: look at the files with the labels of a raw scene. Frames do not depend on it."""

from __future__ import annotations

from pathlib import Path

from loco.datasets import check_labels
from loco.records import Recipe
from loco.steps.raw_checks import write_check


def run(recipe: Recipe, raw: Path, out: Path, dataset: str, scene: str) -> None:
    """Check the labels of a raw scene. Arguments and errors as of :func:`loco.steps.check_scene.run`."""
    write_check(check_labels, recipe, raw, out, dataset, scene)
