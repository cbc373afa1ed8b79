"""Which of an image's patches take part in the loss, where not all can."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

_SAME_SURFACE = 2.0  # of the steps to both sides of a patch, one that is longer by more crosses a depth edge
_SLANT = 10.0  # longest patch, in its widths: a surface seen at 6 degrees; beyond, the step crosses a depth edge
_LEAST_AREA = 1e-12  # square metres; where points coincide, so that every patch has a chance


def thin(
    valid: NDArray[np.bool_],
    points: NDArray[np.floating],
    count: int,
    how: Literal["image", "space", "coverage"],
    rng: np.random.Generator,
) -> NDArray[np.bool_]:
    """At most ``count`` of an image's valid patches.

    ``image`` draws them uniformly from the image. There, near surfaces have more patches per square metre than far
    ones. ``space`` draws them uniformly from the surface that is seen: a patch is kept with a probability in proportion
    to its area (:func:`patch_areas`), up to 1. ``coverage`` covers that surface: after a random one, each is the patch
    farthest from those kept before (Gonzalez 1985).

    Args:
        valid: (h, w).
        points: (h, w, 3), metres.
        count: how many to keep; all if there are no more.
        how: as above.
        rng: source of the draws.

    Returns:
        (h, w), a subset of ``valid``.
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
    """Area of the surface that each patch of an image shows.

    That of the parallelogram of the steps to the next patches along the row and along the column: the mean of the steps
    to both sides, or the shorter where the other crosses a depth edge. Without a valid neighbour along one of them, a
    patch counts as a square; without any, as the median of the others. No patch is longer than ten times its width.

    Args:
        points: (h, w, 3), metres.
        valid: (h, w).

    Returns:
        (h, w), square metres; meaningless where not valid.
    """
    across, down = _steps(points, valid, axis=1), _steps(points, valid, axis=0)
    width, height = (np.linalg.norm(step, axis=-1) for step in (across, down))
    shorter, longer = np.minimum(width, height), np.maximum(width, height)
    area = np.minimum(np.linalg.norm(np.cross(across, down), axis=-1), _SLANT * shorter**2)
    area = np.where(shorter > 0, area, longer**2)
    known = valid & (longer > 0)
    area[~known] = np.median(area[known]) if known.any() else 0
    return np.maximum(area, _LEAST_AREA)


def _steps(points: NDArray, valid: NDArray, axis: int) -> NDArray[np.float64]:
    """From each patch to the next along ``axis`` (h, w, 3), metres; 0 where no neighbour is valid."""
    points, valid = (np.moveaxis(array, axis, 0) for array in (points.astype(np.float64), valid))
    both = valid[1:] & valid[:-1]
    step = np.where(both[..., None], np.diff(points, axis=0), 0)
    length = np.where(both, np.linalg.norm(step, axis=-1), np.inf)
    steps = np.stack([_pad(step, (1, 0), 0), _pad(step, (0, 1), 0)])
    lengths = np.stack([_pad(length, (1, 0), np.inf), _pad(length, (0, 1), np.inf)])
    keep = np.isfinite(lengths) & (lengths <= _SAME_SURFACE * lengths.min(axis=0))
    mean = np.sum(keep[..., None] * steps, axis=0) / np.maximum(keep.sum(axis=0), 1)[..., None]
    return np.moveaxis(mean, 0, axis)


def _pad(array: NDArray, width: tuple[int, int], value: float) -> NDArray:
    """Widen the first axis."""
    return np.pad(array, [width] + [(0, 0)] * (array.ndim - 1), constant_values=value)


def _in_proportion(weights: NDArray, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """``count`` of more indices, each with probability min(1, c ``weights``).

    Systematic sampling of a list in random order (Hartley and Rao 1962): the probabilities are laid end to end, and
    marks at distance 1, of random phase, each hit one. The order is the caller's.
    """
    descending = np.sort(weights)[::-1]
    rest = np.cumsum(descending[::-1])[::-1]
    certain = int(np.argmax(descending * (count - np.arange(len(weights))) < rest))  # as many have probability 1
    probability = np.minimum(1, (count - certain) / rest[certain] * weights)
    return np.flatnonzero(np.diff(np.floor(np.cumsum(probability) + rng.uniform()), prepend=0))


def _farthest(points: NDArray, count: int) -> NDArray[np.int64]:
    """Indices of ``count`` of more points (m, 3): the first, then time and again the one farthest from all before."""
    axes = np.ascontiguousarray(points.T)
    chosen = np.zeros(count, dtype=np.int64)
    distance = np.full(len(points), np.inf)
    for k in range(1, count):
        last = chosen[k - 1]
        distance = np.minimum(distance, np.sum((axes - axes[:, [last]]) ** 2, axis=0))
        distance[last] = -1  # not again, even where all others coincide with chosen ones
        chosen[k] = np.argmax(distance)
    return chosen
