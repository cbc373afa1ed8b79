"""Grids of image patches and the 3D points at their centres."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from loco.geometry.cameras import backproject

# Neighbouring pixels whose depths differ by more than this factor are separated by a depth edge.
EDGE_RATIO = 1.1


def grid_size(size: tuple[int, int], stride: int) -> tuple[int, int]:
    """Return (rows, columns) of the patch grid that covers an image of ``size`` (height, width)."""
    return -(-size[0] // stride), -(-size[1] // stride)


def extent_of(grid: tuple[int, int], stride: int) -> tuple[int, int]:
    """Return (height, width), pixels, that a patch grid covers: the image and the parts of patches beyond it."""
    return grid[0] * stride, grid[1] * stride


def patch_centres(grid: tuple[int, int], extent: tuple[int, int]) -> NDArray[np.float64]:
    """Return patch centres (rows, columns, 2), in (u, v) order, of a grid that covers ``extent`` (height, width)."""
    (rows, columns), (height, width) = grid, extent
    u, v = np.meshgrid((np.arange(columns) + 0.5) * width / columns, (np.arange(rows) + 0.5) * height / rows)
    return np.stack([u, v], axis=-1)


def patch_of(
    uv: NDArray[np.floating], grid: tuple[int, int], extent: tuple[int, int]
) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """Return row and column of the patch that contains a continuous pixel position.

    Args:
        uv: (..., 2), pixels.
        grid: (rows, columns) of patches.
        extent: (height, width) that they cover, pixels.

    Returns:
        Rows (...,) and columns (...,). A position beyond the extent belongs to the nearest patch.
    """
    column, row = np.moveaxis(np.floor(uv * np.array(grid[::-1]) / np.array(extent[::-1])).astype(int), -1, 0)
    return np.clip(row, 0, grid[0] - 1), np.clip(column, 0, grid[1] - 1)


def sample_depth(depth: NDArray[np.floating], uv: NDArray[np.floating]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return the depth at continuous pixel positions.

    The inverse depth is interpolated bilinearly between four pixels of one surface. This is exact on planes at any
    slant, because the inverse depth of a plane is linear in the image. If the four pixels are separated by a depth edge
    (:data:`EDGE_RATIO`), the pixel that contains the position is read instead. If one of the four
    has no depth, the result has none.

    Args:
        depth: (h, w), metres, 0 = none.
        uv: (..., 2), pixels.

    Returns:
        z-depth (...,) in metres, 0 outside the image or where depth is missing; and whether the position is within one
        surface, away from depth edges.
    """
    corners, weights = _surrounding(depth, uv)
    nearest, farthest = corners.min(axis=0), corners.max(axis=0)
    known = nearest > 0
    smooth = known & (farthest <= EDGE_RATIO * nearest)
    with np.errstate(divide="ignore", invalid="ignore"):
        interpolated = nearest / np.sum(weights * (nearest / corners), axis=0)
    looked_up = np.take_along_axis(corners, weights.argmax(axis=0)[None], axis=0)[0]
    return np.where(smooth, interpolated, np.where(known, looked_up, 0)), smooth


def _surrounding(depth: NDArray[Any], uv: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return depths and bilinear weights of the four pixels around positions, (4, ...) each; depths 0 if outside.

    A pixel of weight 0 is replaced by its neighbour, so that only one pixel is read at a pixel centre. Between the
    image border and the outermost pixel centres, the outermost pixel is repeated.
    """
    height, width = depth.shape
    u, v = uv[..., 0], uv[..., 1]
    inside = (u >= 0) & (u < width) & (v >= 0) & (v < height)
    x = np.clip(np.where(inside, u, 0.5) - 0.5, 0, width - 1)
    y = np.clip(np.where(inside, v, 0.5) - 0.5, 0, height - 1)
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    right, bottom = np.ceil(x).astype(int), np.ceil(y).astype(int)
    corners = np.stack([depth[top, left], depth[top, right], depth[bottom, left], depth[bottom, right]])
    fx, fy = x - left, y - top
    weights = np.stack([(1 - fx) * (1 - fy), fx * (1 - fy), (1 - fx) * fy, fx * fy])
    return np.where(inside, corners, 0), weights


def patch_points(
    depth: NDArray[np.floating],
    intrinsics: NDArray[np.floating],
    pose: NDArray[np.floating],
    grid: tuple[int, int],
    extent: tuple[int, int] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the 3D point at the centre of every patch.

    Args:
        depth: (h, w), z-depth in metres, 0 = none.
        intrinsics: (3, 3), pixels of the depth image.
        pose: (4, 4), camera-to-world, metres.
        grid: (rows, columns) of patches.
        extent: (height, width) that they cover, pixels; the image if None.

    Returns:
        World points (rows, columns, 3) in metres, and which are valid. A patch is invalid if its centre has no depth,
        is on a depth edge or is outside the image, because it then has no single 3D point.
    """
    return surface_points(depth, intrinsics, pose, patch_centres(grid, extent or depth.shape))


def surface_points(
    depth: NDArray[np.floating], intrinsics: NDArray[np.floating], pose: NDArray[np.floating], uv: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the 3D points that an image shows at continuous positions.

    Args:
        depth, intrinsics, pose: as for :func:`patch_points`.
        uv: (..., 2), pixels of the depth image.

    Returns:
        World points (..., 3) in metres, and which are valid, as in :func:`patch_points`; invalid points are 0.
    """
    z, smooth = sample_depth(depth, uv)
    points = backproject(uv, z, intrinsics, pose)
    return np.where(smooth[..., None], points, 0.0), smooth
