"""The check_labels step: check the label files of a raw scene. Frames do not depend on it."""

from __future__ import annotations

from pathlib import Path

from loco.datasets import check_labels
from loco.records import Recipe
from loco.steps.raw_checks import write_check


def run(recipe: Recipe, raw: Path, out: Path, dataset: str, scene: str) -> None:
    """Check the labels of a raw scene. See :func:`loco.steps.check_scene.run` for arguments and errors."""
    write_check(check_labels, recipe, raw, out, dataset, scene)
