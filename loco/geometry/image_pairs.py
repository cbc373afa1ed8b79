"""Pairs of images of a scene that overlap and were taken from different positions."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack

_BLOCK = 1 << 20  # entries of the matrix that are read at once


class Rows(Protocol):
    """An array in memory, or an array of a file that is read in parts."""

    def __getitem__(self, index: Any) -> NDArray[Any]: ...


def mutual_overlap(overlap: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the mean (n, n) of both directions of an overlap matrix: (i, j) is the fraction of image i that j sees."""
    return (overlap + overlap.T) / 2


def overlapping_pairs(poses: NDArray[np.floating], overlap: Rows, min_overlap: float, min_baseline: float) -> csr_array:
    """Return the pairs of different images that overlap and were taken from different positions.

    Only pairs that qualify are held in memory, and the overlap matrix is read in blocks of rows.

    Args:
        poses: (n, 4, 4), camera-to-world, metres.
        overlap: (n, n), in memory or in a file; (i, j) is the fraction of image i that image j sees.
        min_overlap: minimum mutual overlap.
        min_baseline: minimum distance between the camera centres, metres. Images from the same centre, such as those
            of a panorama, are related by a homography in any scene.

    Returns:
        (n, n) bool, sparse, symmetric, with sorted indices.
    """
    centres = poses[:, :3, 3]
    step = max(1, _BLOCK // max(len(poses), 1))
    parts = [slice(start, start + step) for start in range(0, len(poses), step)]
    rows = [_pairs_of(centres, overlap, part, min_overlap, min_baseline) for part in parts]
    return vstack(rows, format="csr", dtype=bool) if rows else csr_array((0, 0), dtype=bool)


def _pairs_of(
    centres: NDArray[np.floating], overlap: Rows, rows: slice, min_overlap: float, min_baseline: float
) -> csr_array:
    """Return the pairs in a block of rows."""
    baseline = np.linalg.norm(centres[rows, None] - centres[None], axis=-1)
    mutual = (overlap[rows] + overlap[:, rows].T) / 2
    pairs = (mutual >= min_overlap) & (baseline >= min_baseline)
    pairs[np.arange(len(pairs)), rows.start + np.arange(len(pairs))] = False
    return csr_array(pairs)
