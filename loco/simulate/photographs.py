"""Photographs of a simulated room, for reconstruction with COLMAP."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from loco.simulate.house import build_house, scene_seed
from loco.simulate.render import Renderer
from loco.simulate.sensor import develop, expose


def simulate_photographs(folder: Path, scene: str, count: int, size: tuple[int, int]) -> NDArray[np.float64]:
    """Write photographs of a room, taken from positions along one wall: ``folder/00.jpg`` and so on.

    Args:
        folder: output folder, created if missing.
        scene: name of the scene, which determines the room.
        count: number of photographs.
        size: (height, width), pixels.

    Returns:
        The poses (count, 4, 4), camera-to-world, metres.
    """
    renderer = room(scene)
    poses = sideways(renderer, count)
    photograph(renderer, poses, size, folder)
    return poses


def room(scene: str) -> Renderer:
    """Return a renderer of a house with one room, which is determined by the name of the scene."""
    return Renderer(build_house(scene_seed(5, scene), {"rooms": 1, "repetition": 0.3}))


def sideways(renderer: Renderer, count: int) -> NDArray[np.float64]:
    """Return camera-to-world poses (count, 4, 4), metres, along one wall of the room and facing the opposite wall."""
    room = renderer.house.rooms[0]
    poses = np.tile(np.eye(4), (count, 1, 1))
    for pose, f in zip(poses, np.linspace(-1, 1, count)):
        y = (room.low[1] + room.high[1]) / 2 + 0.3 * f * (room.high[1] - room.low[1])
        pose[:3, 3] = room.low[0] + 0.6 + 0.2 * np.cos(3 * f), y, 1.5 + 0.15 * np.sin(5 * f)
        forward = np.array([room.high[0], y - 0.5 * f, 1.0]) - pose[:3, 3]
        forward /= np.linalg.norm(forward)
        right = np.cross(forward, [0, 0, 1])
        right /= np.linalg.norm(right)
        pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
    return poses


def photograph(renderer: Renderer, poses: NDArray[np.float64], size: tuple[int, int], folder: Path) -> None:
    """Render and write a photograph from each pose, as ``folder/00.jpg``, ``folder/01.jpg`` and so on.

    Args:
        renderer: renderer of the house.
        poses: (n, 4, 4), camera-to-world, metres.
        size: (height, width), pixels.
        folder: output folder, created if missing.
    """
    rng = np.random.default_rng(0)
    exposure = expose(renderer.brightness(poses[0, :3, 3]), rng)
    height, width = size
    focal = 0.90625 * width
    intrinsics = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    folder.mkdir(parents=True, exist_ok=True)
    for k, pose in enumerate(poses):
        image = develop(renderer.render(intrinsics, pose, size), exposure, rng)
        cv2.imwrite(str(folder / f"{k:02d}.jpg"), image[..., ::-1])
