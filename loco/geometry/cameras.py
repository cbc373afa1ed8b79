"""Pinhole cameras: project, back-project, and compare poses. Conventions as in :mod:`loco`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


class Camera(NamedTuple):
    """Camera of an image: ``intrinsics`` (3, 3), pixels of this image; ``pose`` (4, 4), camera-to-world, metres."""

    intrinsics: NDArray[np.float64]
    pose: Floats


def project(points: Floats, intrinsics: Floats, pose: Floats) -> tuple[Floats, Floats]:
    """Project world points into an image.

    Args:
        points: (..., 3), world frame, metres.
        intrinsics: (3, 3), pixels.
        pose: (4, 4), camera-to-world, metres.

    Returns:
        Pixel coordinates (..., 2) and z-depths (...,) in metres. Points at or behind the camera plane have
        z <= 0; their pixel coordinates are meaningless (NaN or infinite where z = 0).
    """
    camera = (points - pose[:3, 3]) @ pose[:3, :3]
    z = camera[..., 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        uv = (camera @ intrinsics.T)[..., :2] / z[..., None]
    return uv, z


def backproject(uv: Floats, z: Floats, intrinsics: Floats, pose: Floats) -> Floats:
    """Lift pixels with z-depth to world points: the inverse of :func:`project`.

    Args:
        uv: (..., 2), pixels.
        z: (...,), metres.
        intrinsics: (3, 3), pixels.
        pose: (4, 4), camera-to-world, metres.

    Returns:
        (..., 3), world frame, metres.
    """
    homogeneous = np.concatenate([uv, np.ones_like(uv[..., :1])], axis=-1)
    rays = homogeneous @ np.linalg.inv(intrinsics).T
    return (rays * z[..., None]) @ pose[:3, :3].T + pose[:3, 3]


def scale_intrinsics(intrinsics: Floats, size: tuple[int, int], new_size: tuple[int, int]) -> NDArray[np.float64]:
    """Return intrinsics (..., 3, 3) after resizing the image from ``size`` to ``new_size``, both (height, width)."""
    (height, width), (new_height, new_width) = size, new_size
    return np.diag([new_width / width, new_height / height, 1.0]) @ intrinsics


def pixel_centres(height: int, width: int) -> Floats:
    """Return the centres of all pixels, (height, width, 2) in (u, v) order, pixels."""
    u, v = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    return np.stack([u, v], axis=-1)


def rotation_angle(rotations: Floats) -> Floats:
    """Return the angle of rotation matrices (..., 3, 3), degrees in [0, 180].

    Up to 90 degrees, the angle is computed from the chord |R - I| = 2 sqrt(2) sin(angle / 2), which is well
    conditioned at small angles, where the arc cosine of the trace is not. Beyond 90 degrees the trace is used.
    """
    trace = np.trace(rotations, axis1=-2, axis2=-1)
    chord = np.linalg.norm(rotations - np.eye(3), axis=(-2, -1))
    small = 2 * np.arcsin(np.clip(chord / (2 * np.sqrt(2)), 0, 1))
    large = np.arccos(np.clip((trace - 1) / 2, -1, 1))
    return np.degrees(np.where(trace > 1, small, large))


def relative_rotation_angle(pose_a: Floats, pose_b: Floats) -> Floats:
    """Return the rotation angle between two poses (..., 4, 4), degrees in [0, 180]."""
    return rotation_angle(np.swapaxes(pose_a[..., :3, :3], -1, -2) @ pose_b[..., :3, :3])
