"""Which images are matched with which: all pairs, neighbours in a sequence, or the most similar images."""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor

Pair = tuple[int, int]


def select_pairs(selection: str, descriptors: Tensor, neighbours: int) -> list[Pair]:
    """Return the pairs of images to match, (i, j) with i < j, without repetitions.

    Args:
        selection: one of :data:`loco.matching.SELECTIONS`: ``exhaustive``, every pair; ``sequential``, each image with
            the ``neighbours`` images that follow it; ``retrieval``, each image with the ``neighbours`` images whose
            descriptors are most similar.
        descriptors: (n, c), L2-normalised global descriptors in the order of the images.
        neighbours: number of images with which an image is matched, for ``sequential`` and ``retrieval``.
    """
    count = len(descriptors)
    if selection == "exhaustive":
        return list(combinations(range(count), 2))
    if selection == "sequential":
        return [(i, j) for i in range(count) for j in range(i + 1, min(i + 1 + neighbours, count))]
    similarity = (descriptors @ descriptors.T).fill_diagonal_(-torch.inf)
    nearest = similarity.topk(min(neighbours, count - 1), dim=1).indices.tolist()
    return sorted({(min(i, j), max(i, j)) for i, others in enumerate(nearest) for j in others})
