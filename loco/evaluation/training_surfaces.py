"""Surfaces of a test scene that are seen or unseen in training, for separate scores.

If training and test images show the same room, most test patches show surfaces seen in training. With the setting
``seen_by_training: report`` benchmarks repeat their scores over the items whose surfaces are *seen* (a training patch
lies within ``seen_within``) and *unseen* (none lies within ``unseen_beyond``). Patches in between are neither. The
training patches are those of the split, also for untrained extractors, so that scores can be compared item by item.

The distances are meaningful only if training and test scenes share a world frame, as stated in the configuration
(``datasets.<name>.world_frame``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from loco.evaluation.defaults import SEEN_WITHIN, UNSEEN_BEYOND
from loco.evaluation.result import EvaluatedScene
from loco.storage import Correspondences

SURFACES = ("seen", "unseen")
MAJORITY = 0.5  # an item is mostly seen if more than this fraction of its patches is seen
CHUNK = 2**20  # training patches per k-d tree: 50 MB

Surfaces = dict[str, NDArray[np.bool_]]  # name in SURFACES -> mask in the shape of the patches
Fractions = tuple[float | None, float | None]  # seen and unseen


def training_surfaces(scene: EvaluatedScene, settings: Mapping[str, Any]) -> Surfaces | None:
    """Return the patches of a test scene on surfaces that are seen, and that are unseen, in training.

    Args:
        scene: a test scene; its ``training_paths`` are the training scenes in its world frame.
        settings: ``seen_by_training`` (``ignore``, the default, or ``report``), ``seen_within`` and ``unseen_beyond``
            (metres).

    Returns:
        ``seen`` and ``unseen``, (n, h, w) masks; invalid patches, and patches in between, are in neither. None if
        ``seen_by_training`` is ``ignore``, or if no training scene is in the world frame of this scene.

    Raises:
        DataError: a file is missing or invalid.
    """
    if settings.get("seen_by_training", "ignore") == "ignore" or not scene.training_paths:
        return None
    within, beyond = settings.get("seen_within", SEEN_WITHIN), settings.get("unseen_beyond", UNSEEN_BEYOND)
    valid = scene.correspondences["valid"][:]
    seen, near = np.zeros_like(valid), np.zeros_like(valid)
    for training in chunks(_training_points(scene.training_paths), CHUNK):
        tree = cKDTree(training - scene.correspondences.origin)
        for i, own in enumerate(valid):
            distance, _ = tree.query(
                scene.correspondences["points"][i][own], distance_upper_bound=np.nextafter(beyond, np.inf)
            )
            seen[i][own] |= distance <= within
            near[i][own] |= distance <= beyond
    return {"seen": seen, "unseen": valid & ~near}


def _training_points(paths: Iterable[Path]) -> Iterator[NDArray[np.float64]]:
    """Yield the valid points (m, 3) of each training image, world coordinates, metres."""
    for path in paths:
        with Correspondences(path) as file:
            for i, valid in enumerate(file["valid"][:]):
                yield file["points"][i][valid] + file.origin


def chunks(parts: Iterable[NDArray], rows: int) -> Iterator[NDArray]:
    """Concatenate arrays (m, ...) to arrays of at least ``rows`` rows, except the last; each ends with a whole part."""
    held: list[NDArray] = []
    for part in parts:
        held.append(part)
        if sum(map(len, held)) >= rows:
            yield np.concatenate(held)
            held = []
    if sum(map(len, held)):
        yield np.concatenate(held)


def image_fractions(scene: EvaluatedScene, surfaces: Surfaces | None, image: int) -> Fractions:
    """Return the fractions of the patches of an image that are seen and unseen in training; None if unknown."""
    return (None, None) if surfaces is None else _fractions(surfaces, [(image, scene.correspondences["valid"][image])])


def pair_fractions(
    scene: EvaluatedScene, surfaces: Surfaces | None, images: tuple[int, int], within: float
) -> Fractions:
    """Return the fractions of the common surface of two images that are seen and unseen in training; None without one.

    The common surface consists of the patches of either image with a patch of the other within ``within`` (metres).
    """
    if surfaces is None:
        return None, None
    valid = [scene.correspondences["valid"][i] for i in images]
    points = [scene.correspondences["points"][i][own] for i, own in zip(images, valid)]
    shared = [np.zeros_like(own) for own in valid]
    if all(map(len, points)):
        for mask, own, mine, theirs in zip(shared, valid, points, reversed(points)):
            mask[own] = cKDTree(theirs).query(mine)[0] <= within
    return _fractions(surfaces, list(zip(images, shared)))


def _fractions(surfaces: Surfaces, patches: Sequence[tuple[int, NDArray[np.bool_]]]) -> Fractions:
    """Return the fractions over ``patches``, the number and a mask (h, w) of each image."""
    chosen = {name: np.concatenate([surfaces[name][image][mask] for image, mask in patches]) for name in SURFACES}
    seen, unseen = (float(of.mean()) if len(of) else None for of in chosen.values())
    return seen, unseen


def mostly(items: Mapping[str, Sequence[Any]], chosen: Iterable[int]) -> dict[str, list[int]]:
    """Return the items that are mostly seen and mostly unseen in training, by their columns ``seen`` and ``unseen``.

    Args:
        items: a table of items by columns. The result is empty if it has no such columns.
        chosen: indices of the items to consider.

    Returns:
        ``mostly seen`` and ``mostly unseen`` -> indices of the items.
    """
    if all(known is None for known in items.get("seen", ())):
        return {}
    chosen = list(chosen)
    return {f"mostly {name}": [n for n in chosen if (items[name][n] or 0) > MAJORITY] for name in SURFACES}
