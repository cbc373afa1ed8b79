"""Register a depth image to another camera, such as the colour camera beside a depth sensor."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from loco.geometry.cameras import Camera, backproject, pixel_centres, scale_intrinsics
from loco.geometry.mesh import Mesh
from loco.geometry.patches import EDGE_RATIO, patch_centres, sample_depth
from loco.geometry.raycast import RayCaster

SAME_CENTRE = 1e-5  # metres; at focal length 500 and a depth of 0.5 m this is a shift of 0.01 pixels


def register_depth(
    depth: NDArray[np.floating], depth_camera: Camera, camera: Camera, size: tuple[int, int]
) -> NDArray[np.floating]:
    """Return the depth image as seen by ``camera``.

    If both cameras share a centre they see the same surfaces, so each ray of ``camera`` is looked up in the depth image
    (:func:`loco.geometry.patches.sample_depth`). Otherwise the depth image is converted to a triangle mesh, cut at
    holes and depth edges, and rays are cast at it. Surfaces that the depth camera did not see stay unknown, and
    occlusions from the view of ``camera`` are respected.

    Args:
        depth: (h, w), z-depth in metres, 0 = none.
        depth_camera: camera of the depth image.
        camera: target camera; intrinsics in pixels of an image of ``size``.
        size: (height, width), pixels.

    Returns:
        (height, width), z-depth of ``camera`` at its pixel centres in metres, 0 = none.
    """
    relative = np.linalg.inv(depth_camera.pose) @ camera.pose
    if np.linalg.norm(relative[:3, 3]) <= SAME_CENTRE:
        return _looked_up(depth, depth_camera.intrinsics, camera.intrinsics, relative[:3, :3], size)
    pitch = min(1.0, camera.intrinsics[0, 0] / depth_camera.intrinsics[0, 0])
    mesh = _surface(*_resized(depth, depth_camera.intrinsics, pitch))
    if not len(mesh.triangles):
        return np.zeros(size, np.float32)
    return RayCaster(mesh, threads=1).cast(camera.intrinsics, relative, size).depth


def _looked_up(
    depth: NDArray[Any],
    depth_intrinsics: NDArray[Any],
    intrinsics: NDArray[Any],
    rotation: NDArray[Any],
    size: tuple[int, int],
) -> NDArray[Any]:
    """Return the depth at the rays of a camera at the centre of the depth camera, with relative ``rotation``."""
    homogeneous = np.concatenate([pixel_centres(*size), np.ones((*size, 1))], axis=-1)
    # In the frame of the depth camera. In the frame of the target camera, the z-component of each ray is 1.
    rays = homogeneous @ np.linalg.inv(intrinsics).T @ rotation.T
    ahead = rays[..., 2] > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        uv = (rays @ depth_intrinsics.T)[..., :2] / rays[..., 2:]
    # Rounded, so that a ray through a pixel's centre reads only that pixel, independent of its neighbours.
    z, _ = sample_depth(depth, np.where(ahead[..., None], np.round(uv, 6), -1.0))
    return np.where(ahead, z / np.where(ahead, rays[..., 2], 1), 0)


def _resized(depth: NDArray[Any], intrinsics: NDArray[Any], factor: float) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return a depth image and its intrinsics, resized by ``factor``; ray casting time grows with the pixels."""
    height, width = depth.shape
    size = max(1, round(factor * height)), max(1, round(factor * width))
    if size == depth.shape:
        return depth, intrinsics
    return sample_depth(depth, patch_centres(size, depth.shape))[0], scale_intrinsics(intrinsics, depth.shape, size)


def _surface(depth: NDArray[Any], intrinsics: NDArray[Any]) -> Mesh:
    """Return triangles between neighbouring pixels of one surface, in the camera frame."""
    height, width = depth.shape
    vertices = backproject(pixel_centres(height, width), depth, intrinsics, np.eye(4)).reshape(-1, 3)
    pixel = np.arange(height * width).reshape(height, width)
    a, b, c, d = (part.ravel() for part in (pixel[:-1, :-1], pixel[:-1, 1:], pixel[1:, :-1], pixel[1:, 1:]))
    triangles = np.concatenate([np.stack([a, c, b], axis=1), np.stack([b, c, d], axis=1)])
    corners = depth.ravel()[triangles]
    nearest = corners.min(axis=1)
    whole = (nearest > 0) & (corners.max(axis=1) <= EDGE_RATIO * nearest)
    return Mesh(vertices.astype(np.float32), triangles[whole].astype(np.uint32))
