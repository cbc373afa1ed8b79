"""Depth and surface ids from a triangle mesh, by ray casting (Open3D)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import open3d as o3d
from numpy.typing import NDArray

from loco.geometry.cameras import pixel_centres
from loco.geometry.mesh import Mesh


class Hits(NamedTuple):
    """First hit of each pixel's ray: z-depth (h, w) in metres, 0 = no hit; triangle index (h, w), -1 = no hit."""

    depth: NDArray[np.float32]
    triangle: NDArray[np.int64]


class RayCaster:
    """Casts rays from many cameras at one mesh, whose acceleration structure is built once."""

    def __init__(self, mesh: Mesh, threads: int = 0) -> None:
        """Build the acceleration structure of a mesh; ``threads`` = 0 uses all cores."""
        self._threads = threads
        self._scene = o3d.t.geometry.RaycastingScene(nthreads=threads)
        self._scene.add_triangles(np.ascontiguousarray(mesh.vertices, np.float32), np.ascontiguousarray(mesh.triangles))

    def cast(
        self,
        intrinsics: NDArray[np.floating],
        pose: NDArray[np.floating],
        size: tuple[int, int],
        mask: NDArray[np.bool_] | None = None,
    ) -> Hits:
        """Cast a ray through the centre of every pixel, or of those in ``mask``.

        The ray through pixel (u, v) is R K^-1 (u, v, 1), *not* normalised: its z-component in the camera frame is 1,
        so the ray parameter at the hit is the z-depth itself.

        Args:
            intrinsics: (3, 3), pixels of an image of ``size``.
            pose: (4, 4), camera-to-world, metres.
            size: (height, width), pixels.
            mask: (height, width); pixels outside it are reported as no hit.
        """
        directions = pixel_directions(intrinsics, pose, size)
        mask = np.ones(size, dtype=bool) if mask is None else mask
        rays = np.empty((int(mask.sum()), 6), dtype=np.float32)
        rays[:, :3] = pose[:3, 3]
        rays[:, 3:] = directions[mask]
        answer = self._scene.cast_rays(o3d.core.Tensor(rays), nthreads=self._threads)
        distance = answer["t_hit"].numpy()
        hit = np.isfinite(distance)
        hits = Hits(np.zeros(size, dtype=np.float32), np.full(size, -1, dtype=np.int64))
        hits.depth[mask] = np.where(hit, distance, 0)
        hits.triangle[mask] = np.where(hit, answer["primitive_ids"].numpy().astype(np.int64), -1)
        return hits


def pixel_directions(
    intrinsics: NDArray[np.floating], pose: NDArray[np.floating], size: tuple[int, int]
) -> NDArray[np.floating]:
    """Return the world directions (h, w, 3) of the rays through all pixel centres, with camera z-component 1."""
    centres = pixel_centres(*size)
    homogeneous = np.concatenate([centres, np.ones((*size, 1))], axis=-1)
    return homogeneous @ np.linalg.inv(intrinsics).T @ pose[:3, :3].T
