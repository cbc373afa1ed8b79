"""The reconstruct step: build a COLMAP model from photographs, as the raw scene of a dataset without poses."""

from __future__ import annotations

from pathlib import Path

from loco.datasets.reconstruct import reconstruct
from loco.records import Recipe, new_record
from loco.storage import write_folder_record


def run(recipe: Recipe, images: Path, out: Path, dataset: str, scene: str, threads: int) -> None:
    """Reconstruct a scene from the photographs in ``images`` and write it to the folder ``out``.

    Raises:
        DataError: no model can be built from the photographs (:func:`loco.datasets.reconstruct.reconstruct`).
    """
    reconstruct(images, out, recipe.settings, threads)
    write_folder_record(out, new_record(recipe, {"dataset": dataset, "scene": scene}, {}))
