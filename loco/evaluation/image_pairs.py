"""Selection of the image pairs of a benchmark: pairs listed by the dataset, or drawn evenly from bins and scenes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice, zip_longest
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from loco.errors import DataError
from loco.evaluation.result import EvaluatedScene

Element = TypeVar("Element")
DatasetPair = tuple[int, int, NDArray[np.float64]]


def pairs_of_dataset(scene: EvaluatedScene) -> list[DatasetPair] | None:
    """Return the pairs that the scene's dataset lists; None if it has no list.

    A pair consists of the numbers of images a and b, and the transform (4, 4) from camera a to camera b, metres.

    Raises:
        DataError: the list contains an image that the scene does not have.
    """
    pairs = (scene.ground_truth or {}).get("pairs")
    if pairs is None:
        return None
    number = {name: i for i, name in enumerate(scene.frames.names)}
    missing = sorted({pair[side] for pair in pairs for side in "ab"} - number.keys())
    if missing:
        raise DataError(
            "the file lists pairs of images that it does not contain",
            file=scene.frames.path,
            scene=scene.frames.scene,
            expected="all images of all pairs",
            found=f"{len(missing)} missing, such as {missing[0]}",
            remedy="use all frames of this dataset (`frames.every: 1`, `frames.max_hole_fraction: 1`)",
        )
    return [(number[pair["a"]], number[pair["b"]], np.array(pair["pose_a_to_b"], dtype=np.float64)) for pair in pairs]


def bin_number(values: ArrayLike, edges: ArrayLike) -> NDArray[np.integer]:
    """Return the index of the bin of each value. Bins contain their lower edge; the last bin also its upper edge.

    Values outside all bins get -1 or len(edges) - 1.
    """
    values, edges = np.asarray(values, dtype=np.float64), np.asarray(edges, dtype=np.float64)
    number = np.searchsorted(edges, values, side="right") - 1
    return np.where(values == edges[-1], len(edges) - 2, number)


def draw_from_bin(
    candidates: Sequence[tuple[EvaluatedScene, NDArray[np.floating]]],
    edges: ArrayLike,
    number: int,
    count: int,
    seed: int,
) -> list[tuple[int, int]]:
    """Draw at most ``count`` image pairs of a bin, as evenly from all scenes as possible.

    Args:
        candidates: scenes, and the binned value of each of their pairs, (m,).
        edges: edges of the bins.
        number: index of the bin (:func:`bin_number`).
        count: maximum number of pairs over all scenes.
        seed: seed of the draws.

    Returns:
        For each drawn pair, the index of its scene in ``candidates`` and its index among the pairs of the scene.
    """
    per_scene = []
    for s, (scene, values) in enumerate(candidates):
        in_bin = np.flatnonzero(bin_number(values, edges) == number)
        per_scene.append([(s, int(i)) for i in scene.rng(seed, number).permutation(in_bin)])
    return list(islice(round_robin(per_scene), count))


def round_robin(per_scene: Sequence[Sequence[Element]]) -> Iterator[Element]:
    """Yield the elements of several sequences in round-robin order."""
    for row in zip_longest(*per_scene):
        yield from (element for element in row if element is not None)
