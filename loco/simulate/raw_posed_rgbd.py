"""Write a handheld video in four layouts of posed RGB-D images: 7-Scenes, TUM RGB-D, plain folders, and nerfstudio.

Pixel centres are integers in the camera files of the first three, so half a pixel is subtracted from their principal
points.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from tqdm import tqdm

from loco.datasets.pose_files import HALF_A_PIXEL
from loco.simulate.handheld import FOCAL, DepthRig, Photo, Walk
from loco.simulate.house import scene_seed
from loco.simulate.shapes import Floats
from loco.storage import atomic_path, write_text

MILLIMETRES, TUM_UNITS = 1000, 5000  # units of depth images per metre
SEQUENCES = 2  # of a scene of 7-Scenes
START = 1305031100.0  # first time stamp of TUM RGB-D, seconds
PERIOD, MOCAP = 0.1, 0.01  # seconds between frames, and between poses
REST = 0.035  # seconds that the camera is at rest before and after the nominal time of a frame
LATE, APART = 0.005, 0.015  # largest delay of a colour image, and largest time between it and its depth image, seconds


def simulate_seven_scenes(directory: Path, scene: str, settings: Mapping[str, Any]) -> None:
    """Write a raw scene of 7-Scenes: two sequences, whose poses are those of a depth camera beside the colour camera.

    Args:
        directory: output folder, created if missing.
        scene: its name; together with the seed it determines the content.
        settings: settings of :class:`loco.simulate.handheld.Walk`.
    """
    rig = _kinect((settings["image"]["height"], settings["image"]["width"]))
    walk = Walk(scene, settings, rig)
    numbers = np.array_split(np.arange(len(walk.poses)), SEQUENCES)
    places = [(sequence, k) for sequence, part in enumerate(numbers, start=1) for k in range(len(part))]
    for (sequence, k), photo in zip(places, _photos(walk, scene)):
        stem = directory / f"seq-{sequence:02}" / f"frame-{k:06}"
        _write_image(stem.with_suffix(".color.png"), photo.rgb[..., ::-1])
        _write_image(stem.with_suffix(".depth.png"), _units(photo.depth, MILLIMETRES, none=65535))
        _write_numbers(stem.with_suffix(".pose.txt"), photo.pose @ rig.pose_in_color)
    _write_camera(directory / "K.txt", walk.intrinsics)
    _write_camera(directory / "K_depth.txt", rig.intrinsics)
    _write_numbers(directory / "depth_to_color.txt", rig.pose_in_color)


def simulate_tum_rgbd(directory: Path, scene: str, settings: Mapping[str, Any]) -> None:
    """Write a raw sequence of TUM RGB-D; see :func:`simulate_seven_scenes` for the arguments.

    Colour, depth and ground truth have different time stamps. The camera is at rest around each frame, so that colour
    and depth show the same view although they are recorded at different times.
    """
    walk = Walk(scene, settings)
    rng = np.random.default_rng([*scene_seed(settings["seed"], scene), 5])
    due = PERIOD * np.arange(len(walk.poses))
    taken = due + rng.uniform(0, LATE, len(due))
    sensed = taken + rng.uniform(-APART, APART, len(due))
    lines: dict[str, list[str]] = {"rgb": [], "depth": []}
    for photo, *stamps in zip(_photos(walk, scene), taken, sensed):
        images: list[NDArray[Any]] = [photo.rgb[..., ::-1], _units(photo.depth, TUM_UNITS)]
        for kind, stamp, image in zip(lines, stamps, images):
            name = f"{kind}/{START + stamp:.6f}.png"
            _write_image(directory / name, image)
            lines[kind].append(f"{START + stamp:.6f} {name}")
    for kind in lines:
        write_text(directory / f"{kind}.txt", _listing(f"{kind} images", "timestamp filename", lines[kind]))
    times = np.arange(rng.uniform(0, MOCAP) - PERIOD, due[-1] + PERIOD, MOCAP)
    rows = [" ".join([f"{START + t:.6f}", *(f"{x:.8f}" for x in p)]) for t, p in zip(times, _held(walk.poses, times))]
    write_text(
        directory / "groundtruth.txt", _listing("ground truth trajectory", "timestamp tx ty tz qx qy qz qw", rows)
    )
    _write_camera(directory / "K.txt", walk.intrinsics)


def simulate_posed_rgbd(directory: Path, scene: str, settings: Mapping[str, Any]) -> None:
    """Write a plain folder of posed RGB-D images; see :func:`simulate_seven_scenes` for the arguments."""
    walk = Walk(scene, settings)
    for k, photo in enumerate(_photos(walk, scene)):
        _write_image(directory / "color" / f"{k:05}.png", photo.rgb[..., ::-1])
        _write_image(directory / "depth" / f"{k:05}.png", _units(photo.depth, MILLIMETRES))
    _write_numbers(directory / "poses.txt", walk.poses.reshape(-1, 16))
    _write_camera(directory / "K.txt", walk.intrinsics)


def simulate_nerfstudio(directory: Path, scene: str, settings: Mapping[str, Any]) -> None:
    """Write images with a ``transforms.json``; see :func:`simulate_seven_scenes` for the arguments."""
    walk = Walk(scene, settings)
    axes = np.diag([1.0, -1.0, -1.0, 1.0])  # from OpenGL's to OpenCV's
    frames = []
    for k, photo in enumerate(_photos(walk, scene)):
        names = [f"{kind}/frame_{k + 1:05}.png" for kind in ("images", "depth")]
        _write_image(directory / names[0], photo.rgb[..., ::-1])
        _write_image(directory / names[1], _units(photo.depth, MILLIMETRES))
        pose = (photo.pose @ axes).tolist()
        frames.append({"file_path": names[0], "depth_file_path": names[1], "transform_matrix": pose})
    (height, width), matrix = walk.size, walk.intrinsics
    camera = {"camera_model": "PINHOLE", "w": width, "h": height}
    camera |= {"fl_x": matrix[0, 0], "fl_y": matrix[1, 1], "cx": matrix[0, 2], "cy": matrix[1, 2]}
    write_text(directory / "transforms.json", json.dumps({**camera, "frames": frames}, indent=1))


def _photos(walk: Walk, scene: str) -> Iterable[Photo]:
    return tqdm(walk.photos(), total=len(walk.poses), desc=f"{scene}: images", unit="image", mininterval=1.0)


def _kinect(size: tuple[int, int]) -> DepthRig:
    """Return a depth camera 25 mm beside the colour camera, slightly rotated, with a slightly smaller field of view."""
    height, width = size
    focal = 585 / 525 * FOCAL * width
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_rotvec([0.004, -0.006, 0.002]).as_matrix()
    pose[:3, 3] = -0.025, 0.001, 0.002
    return DepthRig(np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]]), size, pose)


def _held(poses: Floats, times: Floats) -> Floats:
    """Return the positions and quaternions (n, 7) of a camera that rests at each pose.

    Args:
        poses: (images, 4, 4), camera-to-world; pose k is reached at ``k * PERIOD`` seconds.
        times: (n,), seconds since the first frame.
    """
    poses = np.concatenate([poses, poses[-1:]])
    k = np.clip(np.floor(times / PERIOD).astype(int), 0, len(poses) - 2)
    fraction = np.clip((times - k * PERIOD - REST) / (PERIOD - 2 * REST), 0, 1)  # of the motion from k to k + 1
    fraction = ((1 - np.cos(np.pi * fraction)) / 2)[:, None]
    rotations, positions = Rotation.from_matrix(poses[:, :3, :3]), poses[:, :3, 3]
    turns = (rotations[k].inv() * rotations[k + 1]).as_rotvec()
    quaternions = (rotations[k] * Rotation.from_rotvec(fraction * turns)).as_quat()
    return np.concatenate([positions[k] + fraction * (positions[k + 1] - positions[k]), quaternions], axis=1)


def _listing(title: str, columns: str, lines: list[str]) -> str:
    return "\n".join([f"# {title}", "# simulated", f"# {columns}", *lines, ""])


def _units(depth: NDArray[np.float32], per_metre: int, none: int = 0) -> NDArray[np.uint16]:
    units = np.round(depth.astype(np.float64) * per_metre)
    return np.where((units > 0) & (units < 65535), units, none).astype(np.uint16)


def _write_image(path: Path, image: NDArray) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(cv2.imencode(".png", image)[1].tobytes())


def _write_numbers(path: Path, rows: Floats) -> None:
    write_text(path, "".join(" ".join(f"{value:.9g}" for value in row) + "\n" for row in rows))


def _write_camera(path: Path, intrinsics: Floats) -> None:
    _write_numbers(path, intrinsics - HALF_A_PIXEL)


# Format -> the function that simulates a scene of it, for `loco.simulate.simulate_scene`.
SIMULATE = {
    "seven_scenes": simulate_seven_scenes,
    "tum_rgbd": simulate_tum_rgbd,
    "posed_rgbd": simulate_posed_rgbd,
    "nerfstudio": simulate_nerfstudio,
}
