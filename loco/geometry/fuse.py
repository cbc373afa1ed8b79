"""Fuse many depth images into one mesh by a truncated signed distance field (TSDF), averaged over the images (Open3D).

After Curless and Levoy, "A volumetric method for building complex models from range images" (SIGGRAPH 1996).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import open3d as o3d
from numpy.typing import NDArray

from loco.geometry.cameras import Camera
from loco.geometry.mesh import Mesh

BLOCK = 16  # edge in voxels of the blocks that are stored together
TRUNCATION = 4.0  # truncation distance on both sides of a surface, voxels
MIN_IMAGES = 2  # minimum number of images in which a surface must be seen


class Fusion:
    """Accumulates the depth images of one scene."""

    def __init__(self, voxel: float, max_depth: float) -> None:
        """Set the edge of a voxel and the largest depth to use, both metres."""
        self._max_depth = float(max_depth)
        number = o3d.core.float32
        self._grid = o3d.t.geometry.VoxelBlockGrid(("tsdf", "weight"), (number, number), ((1,), (1,)), voxel, BLOCK)

    def add(self, depth: NDArray[np.floating], camera: Camera) -> None:
        """Add a depth image (h, w), z-depth in metres, 0 = none, and its camera."""
        usable = np.where((depth > 0) & (depth <= self._max_depth), depth, 0).astype(np.float32)
        if not usable.any():
            return
        # Open3D truncates pixel coordinates, so the centre of pixel i is at i + 0.5, as in this package.
        view = (
            o3d.t.geometry.Image(usable),
            o3d.core.Tensor(camera.intrinsics),
            o3d.core.Tensor(np.linalg.inv(camera.pose)),
            1.0,  # depth is in metres
            self._max_depth,
            TRUNCATION,
        )
        self._grid.integrate(self._grid.compute_unique_block_coordinates(*view), *view)

    def mesh(self) -> Mesh:
        """Extract the surface. The mesh depends on the depth images only, not on the number of threads.

        Raises:
            ValueError: no surface was seen in enough images.
        """
        try:
            surface = self._grid.extract_triangle_mesh(MIN_IMAGES - 0.5)  # Open3D requires a count above this
        except RuntimeError as error:  # Open3D cannot make a mesh without triangles
            raise ValueError("the depth images do not form a surface") from error
        return _ordered(surface.vertex.positions.numpy(), surface.triangle.indices.numpy())


def _ordered(vertices: NDArray[Any], triangles: NDArray[Any]) -> Mesh:
    """Sort vertices and triangles by geometry, because threads produce them in any order."""
    order = np.lexsort(vertices.T)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    triangles = rank[triangles]
    first = triangles.argmin(axis=1)[:, None]
    triangles = np.take_along_axis(triangles, (first + np.arange(3)) % 3, axis=1)
    return Mesh(vertices[order], triangles[np.lexsort(triangles.T)].astype(np.uint32))
