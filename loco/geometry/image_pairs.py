"""Which images of a scene see enough of each other, from different places."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def mutual_overlap(overlap: NDArray[np.floating]) -> NDArray[np.floating]:
    """(n, n): the mean of both directions of an overlap matrix, whose (i, j) is the share of image i that j sees."""
    return (overlap + overlap.T) / 2


def overlapping_pairs(
    poses: NDArray[np.floating], overlap: NDArray[np.floating], min_overlap: float, min_baseline: float
) -> NDArray[np.bool_]:
    """Pairs of different images that overlap, from different places.

    Args:
        poses: (n, 4, 4), camera-to-world, metres.
        overlap: (n, n); (i, j) is the share of image i that image j sees.
        min_overlap: least mutual overlap.
        min_baseline: least distance between the cameras, metres. Images from one place, as those of a panorama, differ
            by a homography whatever the scene.

    Returns:
        (n, n), symmetric.
    """
    centres = poses[:, :3, 3]
    baseline = np.linalg.norm(centres[:, None] - centres[None], axis=-1)
    pairs = (mutual_overlap(overlap) >= min_overlap) & (baseline >= min_baseline)
    np.fill_diagonal(pairs, False)
    return pairs
