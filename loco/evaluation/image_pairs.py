"""The image pairs that a benchmark asks about: those that a dataset names, or drawn evenly from bins and scenes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice, zip_longest
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from loco.errors import DataError
from loco.evaluation.result import EvaluatedScene

Card = TypeVar("Card")
GivenPair = tuple[int, int, NDArray[np.float64]]


def given_pairs(scene: EvaluatedScene) -> list[GivenPair] | None:
    """The pairs that the scene's dataset names; None where it names none.

    Of each the numbers of images a and b, and what takes points of camera a to camera b, (4, 4), metres.

    Raises:
        DataError: a pair names an image that the scene does not have.
    """
    pairs = (scene.ground_truth or {}).get("pairs")
    if pairs is None:
        return None
    number = {name: i for i, name in enumerate(scene.frames.names)}
    missing = sorted({pair[side] for pair in pairs for side in "ab"} - number.keys())
    if missing:
        raise DataError(
            "names images in its pairs that it does not have",
            file=scene.frames.path,
            scene=scene.frames.scene,
            expected="all images of all pairs",
            found=f"{len(missing)} missing, {missing[0]} among them",
            remedy="do not leave out frames of this dataset (`frames.every`, `frames.max_hole_fraction`)",
        )
    return [(number[pair["a"]], number[pair["b"]], np.array(pair["pose_a_to_b"], dtype=np.float64)) for pair in pairs]


def bin_number(values: ArrayLike, edges: ArrayLike) -> NDArray[np.integer]:
    """Number of the bin that holds each value: lower edges belong to it, as does the last one's upper edge.

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
    """Draw at most ``count`` image pairs of a bin, as evenly from all scenes as they allow.

    Args:
        candidates: scenes, and of each pair of theirs the value that is binned, (m,).
        edges: of the bins.
        number: of the bin (:func:`bin_number`).
        count: most pairs to draw, over all scenes.
        seed: of the draws.

    Returns:
        Of each drawn pair the number of its scene in ``candidates``, and its own among the scene's pairs.
    """
    decks = []
    for s, (scene, values) in enumerate(candidates):
        in_bin = np.flatnonzero(bin_number(values, edges) == number)
        decks.append([(s, int(i)) for i in scene.rng(seed, number).permutation(in_bin)])
    return list(islice(deal(decks), count))


def deal(decks: Sequence[Sequence[Card]]) -> Iterator[Card]:
    """One from each deck, then another from each, until all are dealt."""
    for hand in zip_longest(*decks):
        yield from (card for card in hand if card is not None)
