"""Panorama positions, and the rig: three cameras, tilted up, level and down, in six rotations per panorama.

Poses are camera-to-world in OpenCV axes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import open3d as o3d

from loco.simulate.house import House
from loco.simulate.plan import Room
from loco.simulate.shapes import Floats

CLEARANCE = 0.5  # smallest distance to furniture and walls if the room permits, metres
APART = 2.5  # metres; larger distances between panoramas are not preferred to this one
CANDIDATES = 20  # random positions among which that of a panorama is chosen
TILTS = (30.0, 0.0, -30.0)  # tilt of cameras 0, 1, 2, degrees
YAWS = 6  # images of each camera per panorama
ARM = 0.04  # distance from the rig's axis to a camera's centre, metres
FOCAL = 1075 / 1280  # focal length as a fraction of the image width: Matterport's 61.5 degrees


@dataclass(frozen=True)
class Panorama:
    """The position (3,) of a panorama, the heading of its first image in radians, and its room."""

    position: Floats
    heading: float
    room: int


@dataclass(frozen=True)
class Shot:
    """An image of a panorama: camera (0 up, 1 level, 2 down), rotation step (0 to 5), camera-to-world pose (4, 4)."""

    camera: int
    yaw: int
    pose: Floats


def choose_panoramas(
    house: House, scene: o3d.t.geometry.RaycastingScene, count: int, rng: np.random.Generator
) -> list[Panorama]:
    """Choose free positions far from each other: one in every room if ``count`` permits, more in large rooms.

    Args:
        house: the house.
        scene: its triangles for ray casting (:func:`loco.simulate.lighting.ray_scene`).
        count: number of positions.
        rng: generator.
    """
    free = [_free_places(room, scene) for room in house.rooms]
    areas, counts = np.array([room.area for room in house.rooms]), np.zeros(len(house.rooms))
    chosen: list[Panorama] = []
    for _ in range(count):
        room = int(np.argmax(areas / (1 + 2 * counts) + 1000 * (counts == 0)))
        counts[room] += 1
        places, clearance = free[room]
        drawn = rng.integers(len(places), size=CANDIDATES)
        others = np.array([p.position[:2] for p in chosen]).reshape(-1, 2)
        apart = np.linalg.norm(places[drawn, None] - others, axis=-1).min(axis=1, initial=APART)
        place = places[drawn[int((apart + 2 * clearance[drawn]).argmax())]]
        chosen.append(Panorama(np.array([*place, rng.uniform(1.4, 1.6)]), rng.uniform(0, 2 * np.pi), room))
    return chosen


def shots(panorama: Panorama) -> list[Shot]:
    """Return the 18 images of a panorama, camera by camera."""
    taken = []
    for camera, tilt in enumerate(np.radians(TILTS)):
        for yaw in range(YAWS):
            angle = panorama.heading - yaw * 2 * np.pi / YAWS
            level = np.array([np.cos(angle), np.sin(angle), 0.0])
            right = np.array([level[1], -level[0], 0.0])
            forward = np.cos(tilt) * level + np.sin(tilt) * np.array([0, 0, 1.0])
            pose = np.eye(4)
            pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
            pose[:3, 3] = panorama.position + ARM * level + [0, 0, 0.02 * (1 - camera)]
            taken.append(Shot(camera, yaw, pose))
    return taken


def camera_intrinsics(size: tuple[int, int], rng: np.random.Generator) -> list[Floats]:
    """Return intrinsics (3, 3) of the three cameras, similar but not equal, for images of ``size`` (height, width)."""
    height, width = size
    cameras = []
    for _ in TILTS:
        focal = FOCAL * width * rng.uniform(0.997, 1.003)
        cx, cy = rng.uniform(0.485, 0.515) * width, rng.uniform(0.485, 0.515) * height
        cameras.append(np.array([[focal, 0, cx], [0, focal * rng.uniform(0.998, 1.002), cy], [0, 0, 1.0]]))
    return cameras


def _free_places(room: Room, scene: o3d.t.geometry.RaycastingScene) -> tuple[Floats, Floats]:
    """Return points (n, 2) with a clearance of at least ``CLEARANCE`` (or the largest found), and the clearances (n,).

    The clearance is the smallest distance to a surface at three heights above the point, in metres.
    """
    axes = [np.arange(low + CLEARANCE, high - CLEARANCE + 1e-6, 0.12) for low, high in zip(room.low, room.high)]
    places = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    heights = np.array([0.55, 1.0, 1.5])
    points = np.concatenate(
        [np.repeat(places, len(heights), axis=0), np.tile(heights, len(places))[:, None]], axis=1
    ).astype(np.float32)
    distance = scene.compute_distance(o3d.core.Tensor(points), nthreads=1).numpy()
    distance = distance.reshape(-1, len(heights)).min(axis=1)
    free = distance >= min(CLEARANCE, distance.max())
    return places[free], distance[free]
