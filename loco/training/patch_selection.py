"""Selection of the patches of an image that are used in the loss, if not all can be."""

from __future__ import annotations

from typing import Literal

import numpy as np
import open3d
from numpy.typing import NDArray

_SAME_SURFACE = 2.0  # ratio of the steps to both sides of a patch beyond which the longer one crosses a depth edge
_SLANT = 10.0  # maximum length / width of a patch (a surface seen at 6 degrees); beyond, it crosses a depth edge
_CANDIDATES = 4  # candidates per patch to be selected for coverage
_FEW = 2500  # number of patches up to which all are candidates
_STEPS = 8  # maximum number of voxel sizes that are tested
_MIN_AREA = 1e-12  # square metres; above 0, so that patches with coincident points can be drawn as well


def select_patches(
    valid: NDArray[np.bool_],
    points: NDArray[np.floating],
    count: int,
    how: Literal["image", "space", "coverage"],
    rng: np.random.Generator,
) -> NDArray[np.bool_]:
    """Select at most ``count`` of the valid patches of an image.

    ``image`` draws them uniformly over the image, where near surfaces have more patches per square metre than far ones.
    ``space`` draws them uniformly over the visible surface: a patch is selected with a probability proportional to its
    area (:func:`patch_areas`), up to 1. ``coverage`` covers the visible surface evenly: after a random patch, the patch
    that is farthest from all selected ones is selected repeatedly (Gonzalez 1985). If there are more than 2500 valid
    patches and more than 4 ``count``, only 4 ``count`` of them are candidates: a random patch of each occupied voxel of
    a grid, and random others.

    Args:
        valid: (h, w) bool.
        points: (h, w, 3), metres.
        count: number of patches to select; if there are no more valid patches, all are selected.
        how: ``image``, ``space`` or ``coverage``.
        rng: random number generator.

    Returns:
        (h, w) bool, a subset of ``valid``.
    """
    order = rng.permutation(np.flatnonzero(valid))
    if len(order) > count:
        if how == "image":
            order = order[:count]
        elif how == "space":
            order = order[_in_proportion(patch_areas(points, valid).flat[order], count, rng)]
        else:
            order = order[_farthest(points.reshape(-1, 3)[order].astype(np.float64), count)]
    keep = np.zeros(valid.size, dtype=bool)
    keep[order] = True
    return keep.reshape(valid.shape)


def patch_areas(points: NDArray[np.floating], valid: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the area of the surface in each patch of an image.

    It is the area of the parallelogram that is spanned by the steps to the neighbouring patches along the row and along
    the column. A step is the mean of the steps to both sides, or the shorter one if the other crosses a depth edge. A
    patch with a valid neighbour along one axis only counts as a square; a patch without any valid neighbour gets the
    median area of the others. The area is limited to that of a patch ten times as long as wide.

    Args:
        points: (h, w, 3), metres.
        valid: (h, w).

    Returns:
        (h, w), square metres; undefined for patches that are not valid.
    """
    axes = np.ascontiguousarray(np.moveaxis(points, -1, 0), dtype=np.float64)
    across, down = _steps(axes, valid), _steps(axes.swapaxes(1, 2), valid.T).swapaxes(1, 2)
    width, height = _length(across), _length(down)
    shorter, longer = np.minimum(width, height), np.maximum(width, height)
    area = np.minimum(_length(_cross(across, down)), _SLANT * shorter**2)
    area = np.where(shorter > 0, area, longer**2)
    known = valid & (longer > 0)
    area[~known] = np.median(area[known]) if known.any() else 0
    return np.maximum(area, _MIN_AREA)


def _steps(points: NDArray[np.float64], valid: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the step from each patch to its neighbours along the last axis, (3, h, w), metres (:func:`patch_areas`).

    Args:
        points: (3, h, w), metres.
        valid: (h, w) bool.

    Returns:
        (3, h, w); 0 for a patch without a valid neighbour along this axis.
    """
    both = valid[:, 1:] & valid[:, :-1]
    step = np.where(both, points[..., 1:] - points[..., :-1], 0)
    length = np.where(both, _length(step), np.inf)
    before, after = _pad(length, (1, 0), np.inf), _pad(length, (0, 1), np.inf)
    limit = _SAME_SURFACE * np.minimum(before, after)
    use_before, use_after = (np.isfinite(side) & (side <= limit) for side in (before, after))
    total = use_before * _pad(step, (1, 0), 0) + use_after * _pad(step, (0, 1), 0)
    return total / np.maximum(use_before.astype(np.int64) + use_after, 1)


def _length(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the length of vectors (3, ...)."""
    x, y, z = vectors
    return np.sqrt(x * x + y * y + z * z)


def _cross(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the cross product of vectors (3, ...)."""
    return np.stack([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])


def _pad(array: NDArray, width: tuple[int, int], value: float) -> NDArray:
    """Pad the last axis."""
    return np.pad(array, [(0, 0)] * (array.ndim - 1) + [width], constant_values=value)


def _in_proportion(weights: NDArray, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw ``count`` different indices, each with probability min(1, c ``weights``).

    This is systematic sampling of a list in random order (Hartley and Rao 1962): the probabilities are placed end to
    end as intervals on a line, and marks at distance 1, with a random offset, select the intervals that they fall into.
    The caller must pass the weights in random order.
    """
    descending = np.sort(weights)[::-1]
    rest = np.cumsum(descending[::-1])[::-1]
    certain = int(np.argmax(descending * (count - np.arange(len(weights))) < rest))  # number with probability 1
    probability = np.minimum(1, (count - certain) / rest[certain] * weights)
    return np.flatnonzero(np.diff(np.floor(np.cumsum(probability) + rng.uniform()), prepend=0))


def _farthest(points: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Return ``count`` indices of points (m, 3): the first point, then repeatedly the one farthest from all before.

    If there are many more points than ``count``, only a subset that covers the others is considered.
    """
    candidates = np.arange(len(points)) if len(points) <= _FEW else _covering(points, _CANDIDATES * count)
    cloud = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(points[candidates]))
    numbers = np.repeat(np.arange(len(candidates), dtype=np.float64)[:, None], 3, axis=1)
    cloud.colors = open3d.utility.Vector3dVector(numbers)  # Open3D returns points, not their indices
    chosen = np.asarray(cloud.farthest_point_down_sample(count).colors)[:, 0].astype(np.int64)
    if len(np.unique(chosen)) < count:  # all other candidates coincide with selected ones
        chosen = np.union1d(chosen, np.setdiff1d(np.arange(len(candidates)), chosen)[: count - len(np.unique(chosen))])
    return candidates[chosen]


def _covering(points: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Return ``count`` indices of points (m, 3), including the first; all indices if there are no more points.

    These are the first point of each occupied voxel, for the smallest voxels of which at most ``count`` are occupied
    (found approximately, in a few steps), and then the first of the other points. The distance of each point to the
    nearest selected one is at most the diagonal of a voxel.
    """
    if len(points) <= count:
        return np.arange(len(points))
    shifted = points - points.min(axis=0)
    best, best_edge, too_small = None, max(shifted.max(), 1e-6), 0.0
    edge = best_edge / np.sqrt(count)
    for _ in range(_STEPS):
        key = _voxels(shifted, edge)
        occupied = 1 + np.count_nonzero(np.diff(np.sort(key)))
        if occupied > count:
            too_small = edge
        elif edge < best_edge:
            best, best_edge = key, edge
            if occupied > 0.8 * count:
                break
        edge *= np.sqrt(occupied / (0.9 * count))  # the number of voxels on a surface is proportional to 1 / edge^2
        if not too_small < edge < best_edge:
            edge = (too_small + best_edge) / 2
    chosen = np.zeros(len(points), bool)
    chosen[0] = True
    if best is not None:
        chosen[np.unique(best, return_index=True)[1]] = True
    rest = np.flatnonzero(~chosen)[: count - np.count_nonzero(chosen)]
    return np.concatenate([np.flatnonzero(chosen), rest])


def _voxels(points: NDArray[np.float64], edge: float) -> NDArray[np.int64]:
    """Return the voxel index of each point (m, 3) with non-negative coordinates; up to 2^20 along each axis."""
    x, y, z = np.minimum(points / edge, (1 << 20) - 1).astype(np.int64).T
    return (x << 40) | (y << 20) | z
