"""A handheld video: a colour and a depth camera that rotate on a small circle at each of several free positions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import open3d as o3d
from numpy.typing import NDArray

from loco.simulate.house import build_house, scene_seed
from loco.simulate.panoramas import choose_panoramas
from loco.simulate.render import RenderedView, Renderer
from loco.simulate.sensor import develop, expose, sense
from loco.simulate.shapes import Floats

IMAGES_A_PLACE = 60  # images per position: a full rotation in steps of about 6 degrees
EYES = 1.5  # height of the centre of the circle above the floor, metres
RADIUS = 0.3  # radius of the circle if the clearance permits, metres
USED = 0.6  # largest radius as a fraction of the distance to the nearest surface
TILT, ROLL = 15.0, 3.0  # largest tilt and roll of the camera, degrees
STOPS = 0.25  # largest deviation of the exposure from the metered one, stops
FOCAL = 0.9  # focal length as a fraction of the image width: 58 degrees horizontal field of view


@dataclass(frozen=True)
class DepthRig:
    """A depth camera beside the colour camera.

    ``intrinsics`` (3, 3) of depth images of ``size`` (height, width); ``pose_in_color`` (4, 4), depth camera to colour
    camera, metres.
    """

    intrinsics: Floats
    size: tuple[int, int]
    pose_in_color: NDArray[np.float64]


@dataclass(frozen=True)
class Photo:
    """One frame of a trajectory.

    ``rgb`` (H, W, 3); ``depth`` (h, w) float32 z-depth at the depth camera, metres, 0 = none; ``pose`` (4, 4)
    camera-to-world and ``intrinsics`` (3, 3) of the colour camera; ``view``, the ground truth at the colour camera.
    """

    rgb: NDArray[np.uint8]
    depth: NDArray[np.float32]
    pose: Floats
    intrinsics: Floats
    view: RenderedView


class Walk:
    """A handheld video of a simulated scene, determined by the name of the scene and the settings.

    Attributes:
        house, renderer: the simulated scene.
        size: (height, width) of the colour images.
        intrinsics: (3, 3) of the colour camera.
        poses: (n, 4, 4), camera-to-world, of the colour camera.
    """

    def __init__(self, scene: str, settings: Mapping[str, Any], rig: DepthRig | None = None) -> None:
        """Build the scene and choose the camera trajectory.

        Args:
            scene: name; together with the seed it determines the content.
            settings: ``seed``; ``rooms``; ``repetition``; ``images``, the number of images; ``image``, with ``height``
                and ``width`` in pixels; ``exact_depth``, to omit the sensor's noise and holes.
            rig: the depth camera; if None, depth is measured from the colour camera.
        """
        self._entropy = scene_seed(settings["seed"], scene)
        self._exact = settings.get("exact_depth", False)
        self._rig = rig
        self.house = build_house(self._entropy, settings)
        self.renderer = Renderer(self.house)
        self.size = (settings["image"]["height"], settings["image"]["width"])
        rng = np.random.default_rng([*self._entropy, 3])
        self.intrinsics = _intrinsics(self.size, rng)
        images = settings["images"]
        places = choose_panoramas(self.house, self.renderer.scene, max(1, round(images / IMAGES_A_PLACE)), rng)
        turns = [len(part) for part in np.array_split(np.arange(images), len(places))]
        self.poses = np.concatenate(
            [
                _rotate_on_the_spot(p.position, p.heading, self._clearance(p.position), n, rng)
                for p, n in zip(places, turns)
            ]
        )
        self._exposures = []
        for place, n in zip(places, turns):
            metered = expose(self.renderer.brightness(place.position), rng)
            drift = STOPS * np.sin(np.linspace(0, 2 * np.pi, n, endpoint=False) + rng.uniform(0, 2 * np.pi))
            self._exposures += [replace(metered, gain=metered.gain * 2.0**stops) for stops in drift]

    def photos(self) -> Iterator[Photo]:
        """Yield the frames in order; each call yields the same frames."""
        return (self.photo(k) for k in range(len(self.poses)))

    def photo(self, k: int) -> Photo:
        """Return frame ``k``."""
        pose, rng = self.poses[k], np.random.default_rng([*self._entropy, 4, k])
        view = self.renderer.render(self.intrinsics, pose, self.size)
        rgb = develop(view, self._exposures[k], rng)
        seen = view
        if self._rig is not None:
            rig = self._rig
            seen = self.renderer.render(rig.intrinsics, pose @ rig.pose_in_color, rig.size)
        depth = seen.depth if self._exact else sense(seen, rng)
        return Photo(rgb, depth, pose, self.intrinsics, view)

    def _clearance(self, position: Floats) -> float:
        """Return the distance from the centre of the circle to the nearest surface, metres."""
        centre = np.array([[*position[:2], EYES]], np.float32)
        return float(self.renderer.scene.compute_distance(o3d.core.Tensor(centre), nthreads=1).numpy()[0])


def _rotate_on_the_spot(
    position: Floats, heading: float, clearance: float, images: int, rng: np.random.Generator
) -> Floats:
    """Return camera-to-world poses (images, 4, 4) of one full rotation with smoothly varying tilt and roll.

    Args:
        position: (3,), metres; the camera moves on a circle around it, at heights around ``EYES``.
        heading: direction of the first image, radians.
        clearance: distance from the centre of the circle to the nearest surface, metres.
        images: number of images.
        rng: generator.
    """
    angle = np.linspace(0, 2 * np.pi, images, endpoint=False)
    start = rng.uniform(0, 2 * np.pi, size=4)  # initial phases of the motions
    yaw = heading - angle
    tilt = np.radians(TILT) * np.sin(2 * angle + start[0])
    roll = np.radians(ROLL) * np.sin(3 * angle + start[1])
    radius = min(RADIUS, USED * clearance)
    height = EYES + (position[2] - EYES) * np.sin(angle + start[2])
    centres = np.stack([radius * np.cos(yaw + start[3]), radius * np.sin(yaw + start[3]), height], axis=1)
    centres[:, :2] += position[:2]

    level = np.stack([np.cos(yaw), np.sin(yaw), np.zeros(images)], axis=1)
    right = np.stack([np.sin(yaw), -np.cos(yaw), np.zeros(images)], axis=1)
    forward = np.cos(tilt)[:, None] * level + np.sin(tilt)[:, None] * [0, 0, 1]
    down = np.cross(forward, right)
    cos, sin = np.cos(roll)[:, None], np.sin(roll)[:, None]
    poses = np.tile(np.eye(4), (images, 1, 1))
    poses[:, :3, :3] = np.stack([cos * right + sin * down, cos * down - sin * right, forward], axis=2)
    poses[:, :3, 3] = centres
    return poses


def _intrinsics(size: tuple[int, int], rng: np.random.Generator) -> Floats:
    height, width = size
    focal = FOCAL * width * rng.uniform(0.99, 1.01)
    cx, cy = rng.uniform(0.485, 0.515) * width, rng.uniform(0.485, 0.515) * height
    return np.array([[focal, 0, cx], [0, focal * rng.uniform(0.998, 1.002), cy], [0, 0, 1.0]])
