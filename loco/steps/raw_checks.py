"""Code shared by the checks of raw scenes and of their labels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from loco.records import Recipe, new_record
from loco.storage import read_folder_record, write_manifest


def write_check(
    check: Callable[[str, Path, str, Any], dict[str, Any]],
    recipe: Recipe,
    raw: Path,
    out: Path,
    dataset: str,
    scene: str,
) -> None:
    """Check a raw scene with ``check(format, raw, scene, decode)`` and write its manifest.

    Raises:
        DataError: the scene was made by the workflow, but not as planned.
    """
    inputs = {}
    for made in recipe.inputs.values():
        folder = raw / scene
        inputs[folder] = read_folder_record(folder, made).content_id
    content = check(recipe.settings["format"], raw, scene, recipe.settings["decode"])
    record = new_record(recipe, {"dataset": dataset, "scene": scene}, inputs)
    write_manifest(out, {**content, "dataset": dataset}, record)
