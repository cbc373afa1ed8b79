"""Correspondences from the points of a sparse model: the point of each patch, and the overlap of images."""

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
    """Return, for each patch of an image, the point observed within the patch that is nearest to its centre.

    Args:
        uv: (m, 2), observed positions of points, pixels; those outside the grid are ignored.
        track: (m,), indices of the points.
        grid: (rows, columns) of patches.
        extent: (height, width) that they cover, pixels.

    Returns:
        (rows, columns), indices of points, -1 where none is observed; the lower index if two points are equally near.
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
    """Return the fraction of image i's valid patches whose point image j observes, for all pairs of images.

    Args:
        tracks: (n, h, w), the point of each patch, -1 = none (:func:`patch_tracks`).
        observation_frame: (m,), the image of each observation, including the observations used for the patches.
        observation_track: (m,), the point of each observation.

    Returns:
        (n, n); row i is 0 if image i has no valid patch, else its diagonal entry is 1.
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
    """Count how often each (row, column) occurs."""
    counts = csr_array((np.ones(len(rows)), (rows, columns)), shape=shape)
    counts.sum_duplicates()
    return counts
