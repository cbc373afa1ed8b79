"""How much two images of a scene see of each other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from loco.geometry.cameras import project
from loco.geometry.patches import depth_span


def overlap_matrix(
    points: NDArray[np.floating],
    valid: NDArray[np.bool_],
    depth: NDArray[np.floating],
    intrinsics: NDArray[np.floating],
    poses: NDArray[np.floating],
    tolerance: float,
) -> NDArray[np.float32]:
    """Fraction of image i's valid patches that image j sees, for all pairs of images.

    Image j sees a point if it projects inside, in front of the camera, and its z-depth lies within ``tolerance`` of
    those of the four pixels around it (:func:`loco.geometry.patches.depth_span`): nearer would float before j's
    surface, farther is hidden behind it. An image's own patches lie between their four pixels, so it sees exactly all
    of itself.

    Args:
        points: (n, h, w, 3), world frame, metres.
        valid: (n, h, w).
        depth: (n, H, W), z-depth in metres, 0 = none.
        intrinsics: (n, 3, 3), pixels of the depth images.
        poses: (n, 4, 4), camera-to-world, metres.
        tolerance: metres.

    Returns:
        (n, n); row i is 0 where image i has no valid patch.
    """
    n = len(points)
    flat = [p[v] for p, v in zip(points.reshape(n, -1, 3).astype(np.float64), valid.reshape(n, -1))]
    centres, radii = _bounding_spheres(flat)
    overlap = np.zeros((n, n), dtype=np.float32)
    for j in range(n):
        candidates = np.flatnonzero((radii >= 0) & _may_see(centres, radii, intrinsics[j], poses[j], depth.shape[1:]))
        if not len(candidates):
            continue
        seen = _sees(np.concatenate([flat[i] for i in candidates]), depth[j], intrinsics[j], poses[j], tolerance)
        counts = np.array([len(flat[i]) for i in candidates])
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        overlap[candidates, j] = np.add.reduceat(seen.astype(np.int64), starts) / counts
    return overlap


def _sees(points: NDArray, depth: NDArray, intrinsics: NDArray, pose: NDArray, tolerance: float) -> NDArray[np.bool_]:
    uv, z = project(points, intrinsics, pose)
    seen = z > 0
    nearest, farthest = depth_span(depth, np.where(seen[:, None], uv, -1.0))
    return seen & (nearest > 0) & (z >= nearest - tolerance) & (z <= farthest + tolerance)


def _bounding_spheres(clouds: list[NDArray]) -> tuple[NDArray, NDArray]:
    """Centres (n, 3) and radii (n,) of spheres around point clouds; radius -1 around none."""
    centres, radii = np.zeros((len(clouds), 3)), np.full(len(clouds), -1.0)
    for i, cloud in enumerate(clouds):
        if len(cloud):
            centres[i] = (cloud.min(axis=0) + cloud.max(axis=0)) / 2
            radii[i] = np.linalg.norm(cloud - centres[i], axis=1).max()
    return centres, radii


def _may_see(
    centres: NDArray, radii: NDArray, intrinsics: NDArray, pose: NDArray, size: tuple[int, int]
) -> NDArray[np.bool_]:
    """Which spheres may touch a camera's viewing pyramid: none lies wholly behind one of its planes."""
    height, width = size
    corners = np.array([[0, 0, 1], [width, 0, 1], [width, height, 1], [0, height, 1]]) @ np.linalg.inv(intrinsics).T
    sides = np.cross(corners, np.roll(corners, -1, axis=0))  # normals point into the pyramid
    planes = np.concatenate([sides / np.linalg.norm(sides, axis=1, keepdims=True), [[0, 0, 1]]])
    local = (centres - pose[:3, 3]) @ pose[:3, :3]
    return np.all(local @ planes.T >= -radii[:, None], axis=1)
