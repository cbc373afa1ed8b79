"""What the depth of an image tells: the points that its pixels show, and whether it sees a point.

Only measured depths count: an inpainted one is a guess.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from loco.geometry.cameras import backproject, pixel_centres, project
from loco.geometry.patches import sample_depth
from loco.storage import Frames

OBSERVED = [Frames.SOURCES.index("sensor"), Frames.SOURCES.index("mesh")]  # an inpainted depth is a guess
OCCLUSION_TOLERANCE = 0.05  # metres


def observed_depth(depth: NDArray[np.floating], source: NDArray[np.integer]) -> NDArray[np.float64]:
    """Depth (h, w) where it was measured or read off the mesh; 0 elsewhere."""
    return np.where(np.isin(source, OBSERVED), depth, 0).astype(np.float64)


def pixels_with_depth(depth: NDArray[np.floating], step: int = 1) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Pixels of a frame made smaller by ``step``: where their depths were measured (h, w, 2), and those depths (h, w).

    A pixel is the one nearest to the middle of a step x step block (the last of the four of an even step), at its own
    centre in pixels of the smaller frame. Depths are taken, never averaged.
    """
    rows, columns = (side // step for side in depth.shape)
    middle = slice(step // 2, None, step)
    centres = (pixel_centres(rows, columns) - 0.5) + (step // 2 + 0.5) / step
    return centres, depth[middle, middle][:rows, :columns]


def shown_points(
    depth: NDArray[np.floating], uv: NDArray[np.floating], intrinsics: NDArray[np.floating], pose: NDArray[np.floating]
) -> NDArray[np.float64]:
    """The points (k, 3) that an image shows at continuous positions (k, 2), world frame; infinite without depth.

    Depth is interpolated within one surface. On a depth edge, and next to missing depth, it is that of the pixel that
    holds the position: nothing is bridged. Arguments as of :func:`is_visible`.
    """
    z, _ = sample_depth(depth, uv)
    columns, rows = np.floor(uv).astype(int).T
    z = np.where(z > 0, z, depth[np.minimum(rows, depth.shape[0] - 1), np.minimum(columns, depth.shape[1] - 1)])
    return np.where(z[:, None] > 0, backproject(uv, z, intrinsics, pose), np.inf)


def is_visible(
    points: NDArray[np.floating],
    depth: NDArray[np.floating],
    intrinsics: NDArray[np.floating],
    pose: NDArray[np.floating],
    tolerance: float,
) -> NDArray[np.bool_]:
    """Whether an image sees points (m, 3): before it, within it, and at the depth of the pixel on which they fall.

    Args:
        points: world frame, metres.
        depth: (h, w), metres, 0 = none; where there is none, nothing is seen.
        intrinsics: (3, 3), pixels of that depth image.
        pose: (4, 4), camera-to-world, metres.
        tolerance: how far a point may lie before or behind the surface, metres.
    """
    uv, z = project(points, intrinsics, pose)
    with np.errstate(invalid="ignore"):
        inside = (z > 0) & (uv >= 0).all(axis=1) & (uv < depth.shape[::-1]).all(axis=1)
    columns, rows = np.floor(uv[inside]).astype(int).T
    there = depth[rows, columns]
    visible = np.zeros(len(points), bool)
    visible[inside] = (there > 0) & (np.abs(z[inside] - there) <= tolerance)
    return visible


def reprojection_errors(
    points: NDArray[np.floating], uv: NDArray[np.floating], intrinsics: NDArray[np.floating], pose: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Distances (m,), pixels, from ``uv`` (m, 2) to the projections of ``points`` (m, 3); infinite behind the image."""
    projected, z = project(points, intrinsics, pose)
    with np.errstate(invalid="ignore"):
        return np.where(z > 0, np.linalg.norm(projected - uv, axis=1), np.inf)
