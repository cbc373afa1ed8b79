"""Choose the views of a scene that together show most of its surface, from several positions."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage

CELLS = 48  # number of cubes along the longest side of the scene; a cube with points counts as one unit of surface
TIMES = 3  # maximum number of positions that count per cube; more than one, because viewpoints are compared


class ChosenViews(NamedTuple):
    """Indices of images, in ascending order, and the fraction of the occupied cubes that these images show."""

    images: list[int]
    coverage: float


def choose_by_coverage(
    points: NDArray[np.floating],
    valid: NDArray[np.bool_],
    centres: NDArray[np.floating],
    count: int,
    min_baseline: float,
) -> ChosenViews:
    """Select at most ``count`` images greedily.

    The next image is the one that adds the most surface which fewer than :data:`TIMES` positions show so far.

    Args:
        points: (n, h, w, 3), world frame.
        valid: (n, h, w), whether a patch has a 3D point.
        centres: (n, 3), positions of the cameras, world frame.
        count: maximum number of images.
        min_baseline: distance below which positions count as one, in the unit of ``points``.

    Returns:
        The images; all of them if there are at most ``count``.
    """
    shows, position = _occupied(points, valid), _positions(centres, min_baseline)
    shown_from = np.zeros((position.max() + 1, shows.shape[1]), bool)
    chosen: list[int] = []
    left = np.ones(len(shows), bool)
    while len(chosen) < min(count, len(shows)):
        lacking = ~shown_from & (shown_from.sum(axis=0) < TIMES)
        gain = np.where(left, (shows & lacking[position]).sum(axis=1), -1)
        best = int(gain.argmax())
        chosen.append(best)
        left[best] = False
        shown_from[position[best]] |= shows[best]
    return ChosenViews(sorted(chosen), float(shown_from.any(axis=0).mean()) if shows.size else 0.0)


def _occupied(points: NDArray[np.floating], valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return whether each image shows each cube, (n, number of cubes that any image shows)."""
    image = np.nonzero(valid)[0]
    surface = points[valid].astype(np.float64)
    if not len(surface):
        return np.zeros((len(points), 0), bool)
    low, high = np.percentile(surface, [1, 99], axis=0)  # a few wrong points would enlarge the cubes
    side = max(float((high - low).max()) / CELLS, 1e-9)
    _, cube = np.unique(np.floor((surface - low) / side).astype(np.int64), axis=0, return_inverse=True)
    shows = np.zeros((len(points), int(cube.max()) + 1), bool)
    shows[image, cube.ravel()] = True
    return shows


def _positions(centres: NDArray[np.floating], min_baseline: float) -> NDArray[np.int64]:
    """Return the number (n,) of the position of each camera: cameras nearer than ``min_baseline`` share one."""
    if len(centres) == 1:
        return np.zeros(1, np.int64)
    return fcluster(linkage(centres, "complete"), min_baseline, "distance").astype(np.int64) - 1
