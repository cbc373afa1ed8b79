"""Overlap of the images of a scene: the fraction of each image that another one sees."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from loco.geometry.cameras import scale_intrinsics
from loco.geometry.patches import patch_centres, patch_points, sample_depth

BLOCK = 8  # edge in patches of the blocks that are culled together
CHUNK = 512  # blocks that are projected at once, few enough to stay in the CPU cache
KEYFRAME_ROWS = 32  # rows of the patch grid on which keyframe selection compares frames
KEYFRAME_TOLERANCE = 0.05  # metres


def overlap_matrix(
    points: NDArray[np.floating],
    valid: NDArray[np.bool_],
    depth: NDArray[np.floating] | h5py.Dataset,
    intrinsics: NDArray[np.floating],
    poses: NDArray[np.floating],
    tolerance: float,
    threads: int = 1,
) -> NDArray[np.float32]:
    """Return the fraction of image i's valid patches that image j sees, for all pairs of images.

    Image j sees a point if the point is in front of the camera, projects into the image, and its z-depth is between the
    smallest and the largest depth of the four surrounding pixels, extended by ``tolerance`` on both sides. All four
    must have depth. A nearer point would float in front of the surface that j sees; a farther point is occluded. The
    depth of a patch is interpolated between its four pixels, so each image sees all of its own valid patches.

    Only potentially visible points are projected. Images, then blocks of their patches, are culled if their bounding
    boxes are outside j's viewing frustum, or in front of or behind all depths of j in the region that they project to,
    as in the hierarchical z-buffer of Greene, Kass and Miller (SIGGRAPH 1993). The time therefore grows with the number
    of overlapping pairs.

    Args:
        points: (n, h, w, 3), world frame, metres.
        valid: (n, h, w).
        depth: (n, H, W), z-depth in metres, 0 = none; read one image at a time.
        intrinsics: (n, 3, 3), pixels of the depth images.
        poses: (n, 4, 4), camera-to-world, metres.
        tolerance: largest distance of a visible point from the range of depths of its four pixels, metres.
        threads: number of images that are processed at once.

    Returns:
        (n, n); row i is 0 if image i has no valid patch.
    """
    n = len(points)
    cloud = _Cloud(points, valid)
    overlap = np.zeros((n, n), dtype=np.float32)

    def look_from(j: int, depth_of_j: NDArray[Any]) -> None:
        overlap[:, j] = cloud.visible_fraction(_View(depth_of_j, intrinsics[j], poses[j], tolerance))

    with ThreadPoolExecutor(threads) as pool, tqdm(total=n, desc="overlap", unit="image") as progress:
        for start in range(0, n, 8 * threads):
            images = range(start, min(start + 8 * threads, n))
            # HDF5 requires that depth is read in one thread; it is not read far ahead, to bound the memory.
            list(pool.map(look_from, images, (depth[j] for j in images)))
            progress.update(len(images))
    return overlap


class KeyframeSelection:
    """Keyframe selection: compare each new frame with the keyframes selected before.

    Frames are compared on a coarse grid of :data:`KEYFRAME_ROWS` rows of patches, within :data:`KEYFRAME_TOLERANCE`.
    """

    def __init__(self, max_overlap: float) -> None:
        """Set ``max_overlap``, the largest overlap that the caller accepts; a search stops once it is exceeded."""
        self._max_overlap = max_overlap
        self._cloud = _Cloud(np.empty((0, 1, 1, 3)), np.empty((0, 1, 1), dtype=bool))
        self._views: list[_View] = []

    def overlap(
        self, depth: NDArray[np.floating], intrinsics: NDArray[np.floating], pose: NDArray[np.floating]
    ) -> float:
        """Return the largest mutual overlap (mean of both directions) with a frame added before, 0 if there is none.

        If several frames overlap by more than ``max_overlap``, the overlap with one of them is returned.

        Args:
            depth: (h, w), z-depth in metres, 0 = none.
            intrinsics: (3, 3), pixels of the depth image.
            pose: (4, 4), camera-to-world, metres.
        """
        if not self._views:
            return 0.0
        cloud, view = _coarse(depth, intrinsics, pose)
        seen = self._cloud.visible_fraction(view)
        facing = _within(np.array([kept.limits for kept in self._views]), cloud.image_boxes).any(axis=1)
        largest = seen[~facing].max(initial=0) / 2
        for k in sorted(np.flatnonzero(facing), key=lambda k: -seen[k]):
            if largest > self._max_overlap or (seen[k] + 1) / 2 <= largest:
                break
            largest = max(largest, (seen[k] + cloud.visible_fraction(self._views[k])[0]) / 2)
        return float(largest)

    def add(self, depth: NDArray[np.floating], intrinsics: NDArray[np.floating], pose: NDArray[np.floating]) -> None:
        """Add a frame to the keyframes. See :meth:`overlap` for the arguments."""
        cloud, view = _coarse(depth, intrinsics, pose)
        self._cloud.extend(cloud)
        self._views.append(view)


class SparseKeyframeSelection:
    """Keyframe selection for frames without depth, by the points of a sparse model that they observe."""

    def __init__(self) -> None:
        self._observed: list[NDArray[np.int64]] = []

    def overlap(self, track: NDArray[np.int64]) -> float:
        """Return the largest mutual overlap with a frame added before, 0 if there is none.

        The overlap of two frames is the fraction of the points of one that the other observes, averaged over both
        directions.

        Args:
            track: (m,), indices of the observed points.
        """
        points = np.unique(track)  # an image can observe a point twice
        return max((_common_fraction(points, observed) for observed in self._observed), default=0.0)

    def add(self, track: NDArray[np.int64]) -> None:
        """Add a frame to the keyframes. See :meth:`overlap` for the argument."""
        self._observed.append(np.unique(track))


def _common_fraction(a: NDArray[np.int64], b: NDArray[np.int64]) -> float:
    common = len(np.intersect1d(a, b, assume_unique=True))
    return (common / len(a) + common / len(b)) / 2 if common else 0.0


def _coarse(depth: NDArray[Any], intrinsics: NDArray[Any], pose: NDArray[Any]) -> tuple[_Cloud, _View]:
    """Return the points and the view of a frame, with patches of 2 x 2 pixels of a downsampled depth image."""
    height, width = depth.shape
    grid = KEYFRAME_ROWS, max(1, round(KEYFRAME_ROWS * width / height))
    size = 2 * grid[0], 2 * grid[1]
    small, _ = sample_depth(depth, patch_centres(size, depth.shape))
    intrinsics = scale_intrinsics(intrinsics, depth.shape, size)
    points, valid = patch_points(small, intrinsics, pose, grid)
    return _Cloud(points[None], valid[None]), _View(small, intrinsics, pose, KEYFRAME_TOLERANCE)


class _Cloud:
    """The valid patches of images, in blocks of neighbouring patches.

    Bounding boxes (2, 3, k) are aligned with the world axes and stored as centres and half edges.
    """

    def __init__(self, points: NDArray[Any], valid: NDArray[Any]) -> None:
        """Group ``points`` (n, h, w, 3) with mask ``valid`` (n, h, w) into blocks."""
        n, h, w = valid.shape
        rows, columns = -(-h // BLOCK), -(-w // BLOCK)
        blocks = np.full((n, rows * BLOCK, columns * BLOCK, 3), np.nan, points.dtype)  # NaN: no valid patch
        blocks[:, :h, :w] = np.where(valid[..., None], points, np.nan)
        blocks = blocks.reshape(n, rows, BLOCK, columns, BLOCK, 3).transpose(5, 0, 1, 3, 2, 4)
        blocks = blocks.reshape(3, n * rows * columns, BLOCK**2)
        used = np.flatnonzero(~np.isnan(blocks[0]).all(axis=1))
        self._points = blocks[:, used]
        self._image = used // (rows * columns)
        self._counts = valid.sum(axis=(1, 2))
        low, high = np.nanmin(self._points, axis=2), np.nanmax(self._points, axis=2)
        self._block_boxes = _boxes(low, high)
        self._shown, first = np.unique(self._image, return_index=True)
        self.image_boxes = _boxes(np.minimum.reduceat(low, first, axis=1), np.maximum.reduceat(high, first, axis=1))

    def extend(self, other: _Cloud) -> None:
        """Append the images of another cloud."""
        n = len(self._counts)
        self._points = np.concatenate([self._points, other._points], axis=1)
        self._image = np.concatenate([self._image, n + other._image])
        self._shown = np.concatenate([self._shown, n + other._shown])
        self._counts = np.concatenate([self._counts, other._counts])
        self._block_boxes = np.concatenate([self._block_boxes, other._block_boxes], axis=2)
        self.image_boxes = np.concatenate([self.image_boxes, other.image_boxes], axis=2)

    def visible_fraction(self, view: _View) -> NDArray[np.float64]:
        """Return the fraction (n,) of the valid patches of each image that ``view`` sees."""
        met = np.zeros(len(self._counts), dtype=bool)
        met[self._shown[view.may_see(self.image_boxes)]] = True
        blocks = np.flatnonzero(met[self._image])
        blocks = blocks[view.may_see(self._block_boxes[:, :, blocks])]
        seen = np.zeros(len(met), dtype=np.int64)
        for start in range(0, len(blocks), CHUNK):
            chunk = blocks[start : start + CHUNK]
            points = view.sees(self._points[:, chunk].reshape(3, -1))
            seen += np.bincount(self._image[chunk[points // BLOCK**2]], minlength=len(seen))
        return seen / np.maximum(self._counts, 1)


def _within(limits: NDArray[Any], boxes: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which boxes (2, 3, k) are not entirely outside one of the planes (..., p, 4) of frusta, (..., k)."""
    normals = limits[..., :3]
    farthest_in = normals @ boxes[0] + np.abs(normals) @ boxes[1] + limits[..., 3:]
    return (farthest_in >= 0).all(axis=-2)


def _boxes(low: NDArray[Any], high: NDArray[Any]) -> NDArray[Any]:
    return np.stack([low + high, high - low]) / 2


class _View:
    """What an image sees: the smallest and the largest depth of the four pixels around each position.

    Both are constant over the square between four pixel centres, called a cell. Position (u, v) is in the cell
    (floor(u + 0.5), floor(v + 0.5)); beyond the outermost pixel centres, the border pixels are repeated. Each level of
    a pyramid stores the smallest and the largest depth of 2 x 2 cells of the level below.
    """

    def __init__(self, depth: NDArray[Any], intrinsics: NDArray[Any], pose: NDArray[Any], tolerance: float) -> None:
        self._tolerance = tolerance
        height, width = depth.shape
        self._cells = height + 1, width + 1
        rotation = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]]) @ intrinsics @ pose[:3, :3].T
        self._rotation, self._shift = rotation, -rotation @ pose[:3, 3:]
        x, y, z = np.concatenate([self._rotation, self._shift], axis=1)
        self.limits = np.stack([z, x - 0.5 * z, (width + 0.5) * z - x, y - 0.5 * z, (height + 0.5) * z - y])

        held = np.pad(depth, 1, mode="edge")
        four = held[:-1, :-1], held[:-1, 1:], held[1:, :-1], held[1:, 1:]
        near, far = np.minimum.reduce(four), np.maximum.reduce(four)
        hole = ~(near > 0)
        near[hole], far[hole] = np.inf, -np.inf  # sees nothing
        nears, fars = _pyramid(np.minimum, near), _pyramid(np.maximum, far)
        self._near, self._far = (np.concatenate([level.ravel() for level in levels]) for levels in (nears, fars))
        self._first = np.cumsum([0, *(level.size for level in nears[:-1])])
        self._columns = np.array([level.shape[1] for level in nears])

    def sees(self, points: NDArray[Any]) -> NDArray[np.int64]:
        """Return the indices of the points (3, k) that are seen. NaN points are not."""
        x, y, z = self._project(points)
        (height, width), border = self._cells, 0.5 * z
        inside = (z > 0) & (x >= border) & (x < (width - 0.5) * z) & (y >= border) & (y < (height - 0.5) * z)
        inside = np.flatnonzero(inside)
        z = z[inside]
        cell = (y[inside] / z).astype(np.int64) * width + (x[inside] / z).astype(np.int64)
        seen = (z >= self._near[cell] - self._tolerance) & (z <= self._far[cell] + self._tolerance)
        return inside[seen]

    def may_see(self, boxes: NDArray[Any]) -> NDArray[np.int64]:
        """Return the indices of the boxes (2, 3, k) that may contain a visible point."""
        inside = np.flatnonzero(_within(self.limits, boxes))
        return inside[self._among_depths(boxes[:, :, inside])]

    def _among_depths(self, boxes: NDArray[Any]) -> NDArray[np.bool_]:
        """Return which boxes are neither entirely in front of nor entirely behind the depths where they project to."""
        signs = np.array(list(itertools.product((-1, 1), repeat=3))).T
        corners = boxes[0][:, None] + signs[..., None] * boxes[1][:, None]
        x, y, z = self._project(corners.reshape(3, -1)).reshape(corners.shape)
        nearest, farthest = z.min(axis=0), z.max(axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            rows, columns = (_covered(p / z, nearest > 0, n) for p, n in zip((y, x), self._cells))
        # On the level whose cells are as large as the projected box, the box touches at most 2 x 2 cells.
        extent = np.maximum(rows[1] - rows[0], columns[1] - columns[0])
        level = np.ceil(np.log2(np.maximum(extent, 1))).astype(np.int64)
        cell = self._first[level] + (rows >> level)[:, None] * self._columns[level] + (columns >> level)
        near, far = self._near[cell].min(axis=(0, 1)), self._far[cell].max(axis=(0, 1))
        return (farthest >= near - self._tolerance) & (nearest <= far + self._tolerance)

    def _project(self, points: NDArray[Any]) -> NDArray[Any]:
        """Return the homogeneous cell coordinates (times z, and z) of points (3, k)."""
        projected = self._rotation @ points
        projected += self._shift
        return projected


def _covered(positions: NDArray[Any], ahead: NDArray[Any], cells: int) -> NDArray[np.int64]:
    """Return the first and last cell (2, k) that boxes with corners at ``positions`` (8, k) cover along an axis.

    Boxes that are not entirely in front of the camera (``ahead``, (k,)) are assumed to cover all cells.
    """
    first, last = np.where(ahead, positions.min(axis=0), 0), np.where(ahead, positions.max(axis=0), cells)
    return np.clip(np.stack([first, last]), 0, cells - 1).astype(np.int64)


def _pyramid(extreme: np.ufunc, cells: NDArray[Any]) -> list[NDArray[Any]]:
    """Return the levels of the pyramid, from all cells down to one."""
    levels = [cells]
    while levels[-1].size > 1:
        levels.append(_halved(extreme, _halved(extreme, levels[-1]).T).T)
    return levels


def _halved(extreme: np.ufunc, cells: NDArray[Any]) -> NDArray[Any]:
    """Merge pairs of rows; an odd last row is kept as it is."""
    odd = cells[-1:] if len(cells) % 2 else cells[:0]
    return extreme(cells[::2], np.concatenate([cells[1::2], odd]))
