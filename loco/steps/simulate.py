"""The simulate step: build a simulated scene and write it as a raw scene, in place of a download."""

from __future__ import annotations

from pathlib import Path

from loco.records import Recipe, new_record
from loco.simulate import simulate_scene
from loco.storage import write_folder_record


def run(recipe: Recipe, out: Path, dataset: str, scene: str) -> None:
    """Write a simulated scene to the folder ``out``; ``recipe.settings`` are ``format`` and those of the simulation."""
    settings = {key: value for key, value in recipe.settings.items() if key != "format"}
    simulate_scene(recipe.settings["format"], out, scene, settings)
    write_folder_record(out, new_record(recipe, {"dataset": dataset, "scene": scene}, {}))
