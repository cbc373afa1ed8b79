"""Write images of a plane in the layout of HPatches: a poster of a room, under changes of viewpoint or illumination.

A sequence whose name begins with ``i_`` is one view under six illuminations; any other sequence has six viewpoints
under one illumination. Image 1 is fronto-parallel. HPatches counts pixel centres from 0, so the homographies are
written for integer pixel centres.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from loco.geometry.cameras import scale_intrinsics
from loco.simulate.handheld import Walk
from loco.simulate.house import scene_seed
from loco.simulate.shapes import Floats
from loco.storage import atomic_path, write_text

IMAGES = 6
MARGIN = 1.6  # ratio of the size of the poster to that of the part in image 1; beyond the poster, it is reflected
FINER = 2  # supersampling factor of the poster and of images before they are downsampled
STEP, ROLL = 9.0, 12.0  # increment of the viewing angle per view, and largest roll, degrees
DISTANCE = 0.9, 1.3  # distance from the poster relative to image 1
FOCAL = 1.1  # focal length as a fraction of the image width
VIEWS, GLANCE = 12, (48, 60)  # number of images from which the poster is chosen, and their size
STOPS, BALANCE, SLOPE = 1.2, 0.25, 0.5  # largest change of exposure (2^x), of colour balance, of light across the image


def simulate_hpatches(directory: Path, scene: str, settings: Mapping[str, Any]) -> None:
    """Write six images (PPM) of a plane and the homographies from the first to the others.

    Args:
        directory: output folder, created if missing.
        scene: its name; together with the seed it determines the content.
        settings: ``seed``, ``rooms`` and ``repetition`` of the scene that the poster shows, and ``image``, with
            ``height`` and ``width`` in pixels.
    """
    size = settings["image"]["height"], settings["image"]["width"]
    rng = np.random.default_rng([*scene_seed(settings["seed"], scene), 6])
    poster = _poster(scene, settings, size)
    lit = scene.startswith("i_")
    for number in range(1, IMAGES + 1):
        homography = np.eye(3) if lit or number == 1 else view_homography(number - 1, size, rng)
        image = _photograph(poster, homography, size)
        if lit and number > 1:
            image = relight(image, rng)
        image = image + rng.normal(0, 1.5, image.shape)
        _write_image(directory / f"{number}.ppm", np.clip(np.round(image), 0, 255).astype(np.uint8))
        if number > 1:
            between_integers = _shift(-0.5) @ homography @ _shift(0.5)
            rows = "".join(" ".join(f"{value:.9g}" for value in row) + "\n" for row in between_integers)
            write_text(directory / f"H_1_{number}", rows)


def view_homography(step: int, size: tuple[int, int], rng: np.random.Generator) -> Floats:
    """Return the homography (3, 3) from pixels of image 1, which is fronto-parallel, to a random other view.

    The camera moves around the centre of the plane by ``step`` times :data:`STEP` degrees in a random direction, keeps
    pointing at it, changes its distance, and rolls. With K and the pose (R, t) of the camera, and the plane z = 1 in
    the frame of the first camera, the homography is K (R + t n^T) K^-1, n = (0, 0, 1).
    """
    height, width = size
    focal = FOCAL * width
    k = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])
    direction, roll = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(-ROLL, ROLL))
    axis = np.array([np.cos(direction), np.sin(direction), 0])
    turned = Rotation.from_rotvec([0, 0, roll]) * Rotation.from_rotvec(np.radians(STEP * step) * axis)
    rotation = turned.as_matrix()
    optical_axis = np.array([0, 0, 1.0])
    translation = (
        rng.uniform(*DISTANCE) * optical_axis - rotation @ optical_axis
    )  # the centre stays on the optical axis
    homography = k @ (rotation + np.outer(translation, optical_axis)) @ np.linalg.inv(k)
    return homography / homography[2, 2]


def relight(image: Floats, rng: np.random.Generator) -> Floats:
    """Change the exposure, the colour of the light and its direction in an image (h, w, 3) of 0 to 255."""
    height, width = image.shape[:2]
    y, x = np.mgrid[-0.5 : 0.5 : height * 1j, -0.5 : 0.5 : width * 1j]
    direction = rng.uniform(0, 2 * np.pi)
    slope = 1 + rng.uniform(0, SLOPE) * (np.cos(direction) * x + np.sin(direction) * y)
    gain = 2 ** rng.uniform(-STOPS, STOPS) * np.exp(rng.uniform(-BALANCE, BALANCE, size=3))
    light = (image / 255) ** 2.2 * gain * slope[..., None]
    return 255 * np.minimum(light, 1) ** (1 / 2.2)


def _poster(scene: str, settings: Mapping[str, Any], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return an image of a room, finer and larger than image 1: the most textured of several."""
    height, width = (round(FINER * MARGIN * side) for side in size)
    walk = Walk(scene, {**settings, "images": VIEWS, "image": {"height": height, "width": width}})
    intrinsics = scale_intrinsics(walk.intrinsics, (height, width), GLANCE)
    glances = [walk.renderer.render(intrinsics, pose, GLANCE).radiance for pose in walk.poses]
    shown = [np.abs(np.diff(np.log(glance + 0.01), axis=0)).mean() for glance in glances]
    return walk.photo(int(np.argmax(shown))).rgb


def _photograph(poster: NDArray[np.uint8], homography: Floats, size: tuple[int, int]) -> Floats:
    """Return an image (h, w, 3) float64, 0 to 255, of the poster; ``homography`` maps pixels of image 1 to it."""
    height, width = size
    fine = np.diag([FINER, FINER, 1.0])
    corner = [(side - FINER * other) / 2 for side, other in zip(poster.shape[1::-1], (width, height))]
    onto_first = np.linalg.inv(fine) @ np.array([[1, 0, -corner[0]], [0, 1, -corner[1]], [0, 0, 1.0]])
    onto_fine = _shift(-0.5) @ fine @ homography @ onto_first @ _shift(0.5)
    seen = cv2.warpPerspective(
        poster, onto_fine, (FINER * width, FINER * height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101
    )
    return cv2.resize(seen, (width, height), interpolation=cv2.INTER_AREA).astype(np.float64)


def _shift(by: float) -> Floats:
    """Return a homography that shifts pixels by this amount in both directions."""
    return np.array([[1, 0, by], [0, 1, by], [0, 0, 1.0]])


def _write_image(path: Path, rgb: NDArray[np.uint8]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(cv2.imencode(".ppm", rgb[..., ::-1])[1].tobytes())


# Format -> the function that simulates a scene of it, for `loco.simulate.simulate_scene`.
SIMULATE = {"hpatches": simulate_hpatches}
