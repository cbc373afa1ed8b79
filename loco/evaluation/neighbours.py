"""Nearest neighbours between the features of two images."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BLOCK = 1024  # features of A compared with all features of B at a time


def mutual_neighbours(features_a: Tensor, features_b: Tensor) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows that are mutual nearest neighbours, in the order of A. Ties go to the first row.

    Similarities are held for :data:`BLOCK` rows of A at a time.

    Args:
        features_a: (m, c), L2-normalised rows.
        features_b: (n, c), L2-normalised rows.

    Returns:
        Rows of A (k,), and of B (k,); both empty if an image has no features.
    """
    if not (len(features_a) and len(features_b)):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    nearest_b = []
    best = torch.full((len(features_b),), -torch.inf)
    nearest_a = torch.zeros(len(features_b), dtype=torch.int64)
    for start in range(0, len(features_a), BLOCK):
        similarities = features_a[start : start + BLOCK] @ features_b.T
        nearest_b.append(similarities.argmax(dim=1))
        highest, row = similarities.max(dim=0)
        nearer = highest > best
        best, nearest_a = torch.where(nearer, highest, best), torch.where(nearer, row + start, nearest_a)
    of_a = torch.cat(nearest_b)
    mutual = nearest_a[of_a] == torch.arange(len(of_a))
    return mutual.nonzero()[:, 0].numpy(), of_a[mutual].numpy()
