"""The pairs step: index the positive pairs of a scene, so that training samples pairs without reading the scene."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from loco.errors import DataError
from loco.geometry.near_pairs import index_pairs
from loco.records import Recipe, record_of_scene
from loco.storage import Correspondences, PairIndex

_IMAGES = 64  # number of images that are read at once
_MAX_PATCHES = 2**32 - 1  # maximum number of patches, because their indices are stored in 32 bits


def run(recipe: Recipe, correspondences_path: Path, out: Path) -> None:
    """Write the index of a scene's positive pairs within ``recipe.settings["radius"]``.

    Raises:
        DataError: as :func:`index_scene`; or the correspondences were not made as planned.
    """
    index_scene(correspondences_path, out, recipe.settings["radius"], recipe)


def index_scene(correspondences_path: Path, out: Path, radius: float, recipe: Recipe | None = None) -> None:
    """Write the index of a scene's positive pairs.

    Args:
        correspondences_path: file of :class:`loco.storage.Correspondences`.
        out: file of :class:`loco.storage.PairIndex` to write.
        radius: largest distance of a pair, metres.
        recipe: recipe of the file; None writes no record and accepts any correspondences.

    Raises:
        DataError: the correspondences are damaged, or a valid patch has a point that is not finite.
    """
    with Correspondences(correspondences_path, recipe and recipe.inputs["correspondence"]) as file:
        points, first = _valid_points(file)
        images = np.repeat(np.arange(len(first) - 1, dtype=np.uint32), np.diff(first))
        pairs = index_pairs(points, images, radius)
        sizes = {"bounds": len(first), "m": len(images), "c": len(pairs.cells), "starts": len(pairs.starts)}
        facts = {"radius": radius, "stride": file.facts.get("stride"), "grid_origin": pairs.origin.tolist()}
        facts["origin"] = file.origin.tolist()
        record = record_of_scene(recipe, file) if recipe else None
        with PairIndex.create(
            out, file.dataset, file.scene, sizes, facts, frames_id=file.frames_id, record=record
        ) as index:
            index["first"][:] = first
            index["bounds"][:] = np.concatenate([[0], np.cumsum(pairs.counts, dtype=np.int64)])[first]
            stored: dict[str, NDArray[Any]] = {
                **{"points": pairs.points, "image": pairs.images, "place": pairs.place, "count": pairs.counts},
                **{"cell": pairs.cells, "start": pairs.starts},
            }
            for name, values in stored.items():
                if len(values):
                    index[name][:] = values


def _valid_points(file: Correspondences) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the points (m, 3) of the valid patches, image by image, and the first index of each image (n + 1,)."""
    valid = file["valid"][:]
    first = np.concatenate([[0], np.cumsum(valid.sum(axis=(1, 2), dtype=np.int64))])
    if first[-1] > _MAX_PATCHES:
        raise DataError(
            "the scene has too many valid patches",
            file=file.path,
            scene=file.scene,
            expected=f"at most {_MAX_PATCHES}",
            found=str(first[-1]),
            remedy="use a larger stride or fewer images of the scene (`frames.every`)",
        )
    points = np.empty((first[-1], 3), np.float32)
    for start in tqdm(range(0, len(valid), _IMAGES), desc="points", unit="block", delay=1):
        part = slice(start, start + _IMAGES)
        points[first[start] : first[min(start + _IMAGES, len(valid))]] = file["points"][part][valid[part]]
    if not np.isfinite(points).all():
        raise DataError(
            "the file contains valid patches whose points are not finite",
            file=file.path,
            scene=file.scene,
            remedy="delete it and run the workflow again",
        )
    return points, first
