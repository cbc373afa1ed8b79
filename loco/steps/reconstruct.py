"""The reconstruct step: a COLMAP model from photographs, the raw scene of a dataset that has no poses."""

from __future__ import annotations

from pathlib import Path

from loco.datasets.reconstruct import reconstruct
from loco.records import Recipe, new_record
from loco.storage import write_folder_record


def run(recipe: Recipe, images: Path, out: Path, dataset: str, scene: str, threads: int) -> None:
    """Write a scene made from the photographs in ``images`` into the folder ``out``.

    Raises:
        DataError: the photographs do not give a model (:func:`loco.datasets.reconstruct.reconstruct`).
    """
    reconstruct(images, out, recipe.settings, threads)
    write_folder_record(out, new_record(recipe, {"dataset": dataset, "scene": scene}, {}))
