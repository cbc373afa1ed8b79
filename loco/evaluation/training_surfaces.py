"""Which surfaces of a test scene training images show: scores of seen and of unseen surfaces.

Where training and test images are of one room, most test patches show what the training has seen. With the setting
``seen_by_training: report`` benchmarks repeat their scores over the items whose surfaces are *seen* (a training patch
lies within ``seen_within``) and *unseen* (none lies within ``unseen_beyond``). What lies in between is neither. The
training patches are those of the split, for extractors that are not trained as well, so that scores can be compared
item by item.

The distances mean something only if training and test scenes are in one world frame, which the configuration states
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
MAJORITY = 0.5  # an item is mostly seen if more of its patches than this are
CHUNK = 2**20  # training patches in a tree at a time: 50 MB

Surfaces = dict[str, NDArray[np.bool_]]  # of SURFACES -> which patches are, in the shape of the patches
Fractions = tuple[float | None, float | None]  # that are seen and unseen


def training_surfaces(scene: EvaluatedScene, settings: Mapping[str, Any]) -> Surfaces | None:
    """Which patches of a test scene show surfaces that training images show, and that they do not.

    Args:
        scene: a test scene; its ``training_paths`` are those of the training scenes in its world frame.
        settings: ``seen_by_training`` (``ignore``, the default, or ``report``), ``seen_within`` and ``unseen_beyond``
            (metres).

    Returns:
        ``seen`` and ``unseen``, (n, h, w) each: patches that are not valid, and those in between, are neither. None if
        this is not to be reported, or if no training scene is in the world frame of this scene.

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


def chunks(parts: Iterable[NDArray], most: int) -> Iterator[NDArray]:
    """Concatenate arrays (m, ...) to arrays of about ``most`` rows: no more than ``most`` and those of one part."""
    held: list[NDArray] = []
    for part in parts:
        held.append(part)
        if sum(map(len, held)) >= most:
            yield np.concatenate(held)
            held = []
    if sum(map(len, held)):
        yield np.concatenate(held)


def image_fractions(scene: EvaluatedScene, surfaces: Surfaces | None, image: int) -> Fractions:
    """Fractions of the patches of an image that are seen and unseen in training; None if not known."""
    return (None, None) if surfaces is None else _fractions(surfaces, [(image, scene.correspondences["valid"][image])])


def pair_fractions(
    scene: EvaluatedScene, surfaces: Surfaces | None, images: tuple[int, int], within: float
) -> Fractions:
    """Fractions of the surface that two images share that are seen and unseen in training; None if they share none.

    The shared surface are the patches of either image with a patch of the other within ``within`` (metres).
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
    """Of patches, masks (h, w) of images by their numbers."""
    chosen = {name: np.concatenate([surfaces[name][image][mask] for image, mask in patches]) for name in SURFACES}
    seen, unseen = (float(of.mean()) if len(of) else None for of in chosen.values())
    return seen, unseen


def mostly(items: Mapping[str, Sequence[Any]], chosen: Iterable[int]) -> dict[str, list[int]]:
    """The items that are mostly seen and mostly unseen in training, by their columns ``seen`` and ``unseen``.

    Args:
        items: a table of items, column by column. Nothing is returned if they state nothing about training.
        chosen: numbers of the items to look at.

    Returns:
        ``mostly seen`` and ``mostly unseen`` -> numbers of the items.
    """
    if all(known is None for known in items.get("seen", ())):
        return {}
    chosen = list(chosen)
    return {f"mostly {name}": [n for n in chosen if (items[name][n] or 0) > MAJORITY] for name in SURFACES}
