"""Pairs of nearby points of different images: count them once for all points, then find the partners of single points.

The partners of a point are the points of other images within a radius. Points are sorted by the cells of a grid whose
cells are as wide as this radius. The partners of a point are therefore in the 27 cells around it, which are nine runs
of consecutive points. Only :func:`_within` decides whether two points are a pair, in double precision and with the same
operations, so counting and finding always agree.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_BITS = 21  # bits of the cell number along each axis
_MIDDLE, _LAST = 1 << (_BITS - 1), (1 << _BITS) - 2  # cells are numbered 1 to _LAST, so that each has two neighbours
_MARGIN = 1 + 1e-6  # width of a cell in radii; above 1 so that rounding never separates a pair by two cells
_COLUMNS = np.array([(x << 2 * _BITS) + (y << _BITS) for x in (-1, 0, 1) for y in (-1, 0, 1)])
_CELLS = 4096  # cells whose neighbours are looked up together
_DENSE = 2048  # a cell with at least this number of comparisons is compared as one block
_BLOCK = 1 << 19  # comparisons at once


class NearPairs(NamedTuple):
    """Points sorted by cell, with the number of partners of each: m points in c cells that are not empty.

    ``points`` (m, 3) float32 and ``images`` (m,) uint32 are sorted by cell. For each point in the original order,
    ``place`` (m,) uint32 is its index in the sorted arrays and ``counts`` (m,) uint32 its number of partners. ``cells``
    (c,) int64 are the cell numbers, ascending, and ``starts`` (c + 1,) int64 the index of the first point of each;
    ``origin`` (3,) is the origin of the grid.
    """

    points: NDArray[np.float32]
    images: NDArray[np.uint32]
    place: NDArray[np.uint32]
    counts: NDArray[np.uint32]
    cells: NDArray[np.int64]
    starts: NDArray[np.int64]
    origin: NDArray[np.float64]


def index_pairs(points: NDArray[np.floating], images: NDArray[np.integer], radius: float) -> NearPairs:
    """Sort points by cell and count, for each point, the points of other images within ``radius``.

    Args:
        points: (m, 3), finite, metres; converted to single precision.
        images: (m,), the image of each point.
        radius: largest distance of a pair, metres.

    Returns:
        The sorted points. The computation takes about 80 bytes of memory per point.
    """
    points = np.asarray(points, np.float32)
    origin = np.median(points, axis=0).astype(np.float64) if len(points) else np.zeros(3)
    keys = cell_keys(points, origin, radius)
    order = np.argsort(keys, kind="stable")
    cells, starts = np.unique(keys[order], return_index=True)
    starts = np.append(starts, len(points)).astype(np.int64)
    del keys
    points, image_of = points[order], images[order].astype(np.uint32)
    place = np.empty(len(order), np.uint32)
    place[order] = np.arange(len(order), dtype=np.uint32)
    counts = _count_partners(points, image_of, cells, starts, radius)[place]
    return NearPairs(points, image_of, place, counts, cells, starts, origin)


def partners(pairs: NearPairs, point: int, radius: float) -> NDArray[np.uint32]:
    """Return the images of the partners of a point, one entry per pair, in the order of the sorted points.

    Only the runs of points around the point are read, so the arrays may be mapped from a file.

    Args:
        pairs: the sorted points; ``place`` and ``counts`` are not used.
        point: index of the point among the sorted points.
        radius: the radius passed to :func:`index_pairs`, metres.

    Returns:
        (k,), image numbers; an image occurs once for each of its points that is a partner.
    """
    own = pairs.points[point : point + 1]
    low, high = _runs(pairs.cells, pairs.starts, cell_keys(own, pairs.origin, radius))
    runs = [slice(*ends) for ends in zip(low[0], high[0])]
    others = np.concatenate([pairs.points[run] for run in runs]).T.astype(np.float64)
    images = np.concatenate([pairs.images[run] for run in runs])
    return images[_within(own.T.astype(np.float64), others, radius) & (images != pairs.images[point])]


def cell_keys(points: NDArray[np.floating], origin: NDArray[np.float64], radius: float) -> NDArray[np.int64]:
    """Return the cell number (m,) of each point (m, 3); neighbours along the last axis have consecutive numbers.

    Points farther than a million cells from ``origin`` are assigned to the outermost cells, so neighbours stay
    neighbours.
    """
    key = np.zeros(len(points), np.int64)
    for axis in range(3):
        cell = np.floor((points[:, axis] - origin[axis]) / (radius * _MARGIN)) + _MIDDLE
        key = (key << _BITS) | np.clip(cell, 1, _LAST).astype(np.int64)
    return key


def _within(a: NDArray[np.float64], b: NDArray[np.float64], radius: float) -> NDArray[np.bool_]:
    """Return whether points are at most ``radius`` apart; coordinates (3, ...) are broadcast."""
    x, y, z = a[0] - b[0], a[1] - b[1], a[2] - b[2]
    return x * x + y * y + z * z <= radius * radius


def _runs(cells: NDArray[Any], starts: NDArray[Any], keys: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return start and end (k, 9) of the nine runs of points around each of the cells ``keys`` (k,)."""
    columns = keys[:, None] + _COLUMNS
    return starts[np.searchsorted(cells, columns - 1)], starts[np.searchsorted(cells, columns + 1, side="right")]


def _count_partners(
    points: NDArray[Any], images: NDArray[Any], cells: NDArray[Any], starts: NDArray[Any], radius: float
) -> NDArray[np.uint32]:
    """Return the number of partners (m,) of each sorted point."""
    axes = np.ascontiguousarray(points.T, dtype=np.float64)
    counts, sizes = np.zeros(len(points), np.uint32), np.diff(starts)
    for first in range(0, len(cells), _CELLS):
        part = slice(first, first + _CELLS)
        low, high = _runs(cells, starts, cells[part])
        work = sizes[part] * (high - low).sum(axis=1)
        for k in np.flatnonzero(work >= _DENSE):
            others = _ranges(low[k], high[k] - low[k])
            for block in _slices(starts[first + k], starts[first + k + 1], max(1, _BLOCK // len(others))):
                near = _within(axes[:, block, None], axes[:, None, others], radius)
                near &= images[block, None] != images[others]
                counts[block] = np.count_nonzero(near, axis=1)
        few = np.flatnonzero(work < _DENSE)
        for some in np.array_split(few, max(1, -(-work[few].sum() // _BLOCK))):
            own = _ranges(starts[first + some], sizes[first + some])
            runs = np.repeat(low[some], sizes[first + some], axis=0), np.repeat(high[some], sizes[first + some], axis=0)
            lengths = runs[1] - runs[0]
            others, candidates = _ranges(runs[0].ravel(), lengths.ravel()), lengths.sum(axis=1)
            mine = np.repeat(own, candidates)
            near = _within(axes[:, mine], axes[:, others], radius) & (images[mine] != images[others])
            if len(own):  # each point is among its candidates, so no segment is empty
                counts[own] = np.add.reduceat(near, np.cumsum(candidates) - candidates, dtype=np.uint32)
    return counts


def _ranges(starts: NDArray[np.integer], lengths: NDArray[np.integer]) -> NDArray[np.int64]:
    """Concatenate the ranges of consecutive integers that start at ``starts`` and have ``lengths``."""
    shift = starts - (np.cumsum(lengths) - lengths)
    return np.repeat(shift, lengths) + np.arange(lengths.sum())


def _slices(start: int, stop: int, length: int) -> Iterator[slice]:
    return (slice(k, min(k + length, stop)) for k in range(start, stop, length))
