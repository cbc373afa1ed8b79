"""3D points at the pixels of an image, and the visibility of points in it, from observed depth.

Only sensor and mesh depths are used, because inpainted depth is an estimate.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from loco.geometry.cameras import backproject, pixel_centres, project
from loco.geometry.patches import sample_depth
from loco.storage import Frames

OBSERVED = [Frames.SOURCES.index("sensor"), Frames.SOURCES.index("mesh")]  # codes of observed depth in ``source``
OCCLUSION_TOLERANCE = 0.05  # metres


def observed_depth(depth: NDArray[np.floating], source: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return the depth (h, w) where ``source`` (h, w) states that it was measured or rendered from the mesh; else 0."""
    return np.where(np.isin(source, OBSERVED), depth, 0).astype(np.float64)


def pixels_with_depth(depth: NDArray[np.floating], step: int = 1) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Subsample the depth of a frame by ``step``; return the positions (h, w, 2) and the depths (h, w).

    Of each step x step block, the pixel nearest to its centre is used (the last of the four, if the step is even). Its
    position is its own centre, in pixels of the subsampled frame. Depths are not averaged.
    """
    rows, columns = (side // step for side in depth.shape)
    centre = slice(step // 2, None, step)
    centres = (pixel_centres(rows, columns) - 0.5) + (step // 2 + 0.5) / step
    return centres, depth[centre, centre][:rows, :columns]


def shown_points(
    depth: NDArray[np.floating], uv: NDArray[np.floating], intrinsics: NDArray[np.floating], pose: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Return the 3D points (k, 3) at continuous positions (k, 2) of an image, world frame; infinite without depth.

    Depth is interpolated within one surface. At a depth edge, and next to missing depth, the depth of the pixel that
    contains the position is used. See :func:`is_visible` for the other arguments.
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
    """Return whether points (m, 3) are visible: in front of the camera, in the image, and at the depth of their pixel.

    Args:
        points: world frame, metres.
        depth: (h, w), metres, 0 for missing depth, where no point is visible.
        intrinsics: (3, 3), in pixels of the depth image.
        pose: (4, 4), camera-to-world, metres.
        tolerance: maximum distance of a point from the surface along the depth, metres.
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
    """Return the distances (m,), pixels, of ``uv`` (m, 2) to projected ``points`` (m, 3); inf behind the camera."""
    projected, z = project(points, intrinsics, pose)
    with np.errstate(invalid="ignore"):
        return np.where(z > 0, np.linalg.norm(projected - uv, axis=1), np.inf)
