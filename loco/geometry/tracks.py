"""Correspondences where places are known as points of a sparse model: patch -> point, and the overlap of images."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from loco.geometry.patches import patch_centres

NONE = -1


def patch_tracks(
    uv: NDArray[np.floating], track: NDArray[np.integer], grid: tuple[int, int], extent: tuple[int, int]
) -> NDArray[np.int64]:
    """The point that each patch of an image shows: of those observed within it, the one nearest to its centre.

    Args:
        uv: (m, 2), where points are observed, pixels; those outside the patches are left out.
        track: (m,), the numbers of the points.
        grid: (rows, columns) of patches.
        extent: (height, width) that they cover, pixels.

    Returns:
        (rows, columns), numbers of points, -1 where none is observed. Of two that are equally near, the lower number.
    """
    (rows, columns), (height, width) = grid, extent
    inside = ((uv >= 0) & (uv < (width, height))).all(axis=1)
    uv, track = uv[inside], track[inside]
    column, row = np.floor(uv * (columns, rows) / (width, height)).astype(int).T
    patch = row * columns + column
    distance = np.linalg.norm(uv - patch_centres(grid, extent).reshape(-1, 2)[patch], axis=1)
    order = np.lexsort((track, distance, patch))
    filled, first = np.unique(patch[order], return_index=True)
    tracks = np.full(rows * columns, NONE, np.int64)
    tracks[filled] = track[order][first]
    return tracks.reshape(grid)


def track_overlap(
    tracks: NDArray[np.integer], observation_frame: NDArray[np.integer], observation_track: NDArray[np.integer]
) -> NDArray[np.float32]:
    """Share of image i's valid patches whose point image j observes, for all pairs of images.

    Args:
        tracks: (n, h, w), the point that each patch shows, -1 = none (:func:`patch_tracks`).
        observation_frame: (m,), the image of each observation; those that the patches were made from are among them.
        observation_track: (m,), its point.

    Returns:
        (n, n); row i is 0 where image i has no valid patch, else its diagonal is 1.
    """
    n = len(tracks)
    points = int(observation_track.max(initial=NONE)) + 1
    frame, row, column = np.nonzero(tracks != NONE)
    shown = _counts(frame, tracks[frame, row, column], (n, points))
    observed = _counts(observation_frame, observation_track, (n, points))
    observed.data[:] = 1
    valid = np.bincount(frame, minlength=n)
    return ((shown @ observed.T).toarray() / np.maximum(valid, 1)[:, None]).astype(np.float32)


def _counts(rows: NDArray[Any], columns: NDArray[Any], shape: tuple[int, int]) -> csr_array:
    """How often each (row, column) occurs."""
    counts = csr_array((np.ones(len(rows)), (rows, columns)), shape=shape)
    counts.sum_duplicates()
    return counts
