"""Depth of a room in closed form: a box with a ball in it, seen by a moving and rotating camera."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from loco.geometry.raycast import pixel_directions

SIZE = (36, 48)
K = np.array([[40.0, 0, 24.5], [0, 40.0, 17.0], [0, 0, 1]])
WALLS = np.array([2.0, 1.4, 3.0])  # half the edge lengths of the room, metres
BALL, RADIUS = np.array([0.8, 0.9, 1.0]), 0.5


def walk(count: int) -> np.ndarray:
    """Poses (count, 4, 4) along a loop."""
    turn = np.linspace(0, 2 * np.pi, count, endpoint=False)
    poses = np.tile(np.eye(4), (count, 1, 1))
    angles = np.stack([turn, 0.2 * np.sin(2 * turn), 0.1 * np.cos(3 * turn)], axis=1)
    poses[:, :3, :3] = Rotation.from_euler("yxz", angles).as_matrix()
    poses[:, :3, 3] = np.stack([0.7 * np.sin(turn), 0.2 * np.cos(2 * turn), 0.9 * np.cos(turn)], axis=1)
    return poses


def depth_of(pose: np.ndarray, intrinsics: np.ndarray = K, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Return z-depth (h, w) from the inside: of the nearer of wall and ball along each ray."""
    rays, start = pixel_directions(intrinsics, pose, size), pose[:3, 3]
    with np.errstate(divide="ignore", invalid="ignore"):
        walls = np.where(rays != 0, (np.sign(rays) * WALLS - start) / rays, np.inf).min(axis=-1)
        a, b = (rays**2).sum(axis=-1), rays @ (start - BALL)
        root = b**2 - a * (np.sum((start - BALL) ** 2) - RADIUS**2)
        ball = np.where(root > 0, (-b - np.sqrt(root)) / a, np.inf)
    return np.where((ball > 0) & (ball < walls), ball, walls)
