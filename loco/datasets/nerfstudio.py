"""Posed RGB-D images listed in one JSON file, as nerfstudio writes it (docs.nerf.studio, "Data conventions").

``<raw>/<scene>/transforms.json`` has

- the camera of all frames: ``fl_x``, ``fl_y``, ``cx``, ``cy``, ``w``, ``h``, or ``camera_angle_x``; ``camera_model``
  and its distortion, ``k1 k2 p1 p2 k3`` (``OPENCV``) or ``k1 k2 k3 k4`` (``OPENCV_FISHEYE``). The centre of the first
  pixel is at (0.5, 0.5), as in COLMAP;
- ``frames``: ``file_path`` of a colour image; ``depth_file_path`` of its depth, a 16-bit PNG of z-depth registered to
  colour, in millimetres unless ``depth_scale`` states otherwise; and ``transform_matrix``, the camera-to-world pose in
  OpenGL axes (x to the right, y up, the camera looks along -z), metres.

Recordings converted from Record3D or Polycam have metric poses and depth. Poses from COLMAP have an arbitrary unit and
no depth: use the format ``colmap`` for these.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loco.datasets.calibration import Lens, require_size
from loco.datasets.distortion import FISHEYE, RADIAL_TANGENTIAL, Distortion
from loco.datasets.files import read_bytes
from loco.datasets.layouts import LARGEST_TRANSFORMS, TRANSFORMS, parse_transforms
from loco.datasets.pose_files import as_pose, is_camera
from loco.datasets.posed_images import Listing, PosedImages, Rig, Shot, read_depth_scale
from loco.errors import DataError

MILLIMETRES = 1000.0
_DISTORTION_KEYS = ("k1", "k2", "k3", "k4", "p1", "p2")
_CAMERA_KEYS = ("fl_x", "fl_y", "cx", "cy", "w", "h", "camera_angle_x", "camera_model", *_DISTORTION_KEYS)
MODELS = {"PINHOLE": None, "SIMPLE_PINHOLE": None, "OPENCV": RADIAL_TANGENTIAL, "OPENCV_FISHEYE": FISHEYE}
_OPENCV_FROM_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])
_REMEDY = "write the file as described at docs.nerf.studio, Data conventions"


class NerfstudioScene(PosedImages):
    """Posed images of a ``transforms.json``."""

    format = "nerfstudio"
    remedy = f"write {TRANSFORMS}, for example with `ns-process-data`, and set `raw` to the parent folder"

    @staticmethod
    def cameras(folder: Path, scene: str, depth_scale: float | None = None) -> Rig:
        return Rig(_read_camera(folder, scene), None, read_depth_scale(folder, scene, depth_scale, MILLIMETRES))

    @staticmethod
    def listing(folder: Path, scene: str) -> Listing:
        file = folder / TRANSFORMS
        found, names = Listing([], {}), set()
        for row, frame in enumerate(_frames(_read(folder, scene), file, scene), start=1):
            color, depth = (_path(frame, key, row, file, scene) for key in ("file_path", "depth_file_path"))
            name = str(color.with_suffix("")).replace("/", "-")
            if name in names:
                raise DataError(f"image {color} is listed twice", file=file, scene=scene, remedy="remove one frame")
            names.add(name)
            pose = as_pose(_matrix(frame, row, file, scene), file=file, scene=scene, row=row)
            if pose is None:
                found.skipped[name] = "its pose was lost"
            else:
                pose = pose @ _OPENCV_FROM_OPENGL
                found.shots.append(Shot(name, folder / color, folder / depth, pose, pose))
        return found


def _read(folder: Path, scene: str) -> Mapping[str, Any]:
    file = folder / TRANSFORMS
    try:
        content = parse_transforms(read_bytes(file, scene, limit=LARGEST_TRANSFORMS))
    except ValueError as error:
        raise DataError("the file is not valid JSON", file=file, scene=scene, found=error, remedy=_REMEDY) from error
    if not isinstance(content, dict):
        found = type(content).__name__
        raise DataError(
            "the file does not contain a JSON object",
            file=file,
            scene=scene,
            expected="an object with the list `frames`",
            found=found,
            remedy=_REMEDY,
        )
    return content


def _read_camera(folder: Path, scene: str) -> Lens:
    """Read the camera of all frames. The file states it once, or each frame states it.

    Raises:
        DataError: numbers are missing or invalid, the model is not supported, or frames have different cameras.
    """
    file, content = folder / TRANSFORMS, _read(folder, scene)
    shared = {key: content[key] for key in _CAMERA_KEYS if key in content}
    camera = None
    for row, frame in enumerate(_frames(content, file, scene), start=1):
        of_frame = {**shared, **{key: frame[key] for key in _CAMERA_KEYS if key in frame}}
        if camera not in (None, of_frame):
            raise DataError(
                f"frame {row} has another camera than the first one",
                file=file,
                scene=scene,
                expected=camera,
                found=of_frame,
                remedy="divide the scene by camera, or resize the images to one camera",
            )
        camera = of_frame
    return _lens(camera or shared, file, scene)


def _lens(camera: Mapping[str, Any], file: Path, scene: str) -> Lens:
    numbers = {key: value for key, value in camera.items() if key != "camera_model"}
    model = camera.get("camera_model", "OPENCV")
    if model not in MODELS:
        raise DataError(
            f"the camera model {model!r} is not supported",
            file=file,
            scene=scene,
            expected=", ".join(MODELS),
            remedy="undistort the images, for example with `colmap image_undistorter`",
        )
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in numbers.values()):
        raise DataError(
            "the camera contains values that are not numbers", file=file, scene=scene, found=numbers, remedy=_REMEDY
        )
    width, height = numbers.get("w"), numbers.get("h")
    focal = numbers.get("fl_x")
    if focal is None and width and "camera_angle_x" in numbers:
        focal = width / 2 / math.tan(numbers["camera_angle_x"] / 2)
    if not (width and height and focal):
        raise DataError(
            "the camera is incomplete",
            file=file,
            scene=scene,
            expected="w, h and fl_x (or camera_angle_x), in pixels",
            found=", ".join(camera) or "none of them",
            remedy=_REMEDY,
        )
    cx, cy = numbers.get("cx", width / 2), numbers.get("cy", height / 2)
    intrinsics = np.array([[focal, 0, cx], [0, numbers.get("fl_y", focal), cy], [0, 0, 1]], np.float64)
    size = round(height), round(width)
    if not is_camera(intrinsics):
        raise DataError(
            "the intrinsics of the camera are invalid",
            file=file,
            scene=scene,
            expected="positive focal lengths and finite numbers, in pixels",
            found=numbers,
            remedy=_REMEDY,
        )
    remedy = "state the camera for the current size of the images"
    require_size(intrinsics, size, f"the camera in {file.name}", file=file, scene=scene, remedy=remedy)
    return Lens(intrinsics, size, _distortion(MODELS[model], numbers), file)


def _distortion(model: str | None, numbers: Mapping[str, float]) -> Distortion | None:
    keys = ("k1", "k2", "k3", "k4") if model == FISHEYE else ("k1", "k2", "p1", "p2", "k3")
    coefficients = tuple(float(numbers.get(key, 0)) for key in keys)
    return Distortion(model, coefficients) if model and any(coefficients) else None


def _frames(content: Mapping[str, Any], file: Path, scene: str) -> list[Mapping[str, Any]]:
    frames = content.get("frames")
    if not isinstance(frames, list) or not frames or not all(isinstance(frame, dict) for frame in frames):
        raise DataError("the file lists no frames", file=file, scene=scene, expected="a list `frames`", remedy=_REMEDY)
    return frames


def _path(frame: Mapping[str, Any], key: str, row: int, file: Path, scene: str) -> PurePosixPath:
    """Return the path of an image relative to the folder of the scene.

    Raises:
        DataError: it is missing or leads out of the folder.
    """
    stated = frame.get(key)
    if key == "depth_file_path" and stated is None:
        raise DataError(
            f"frame {row} has no depth image",
            file=file,
            scene=scene,
            expected="`depth_file_path`, a 16-bit PNG of z-depth",
            remedy="record with a depth sensor; for poses from COLMAP use the format `colmap`, which requires no depth",
        )
    path = PurePosixPath(stated) if isinstance(stated, str) and "\0" not in stated else None
    if path is None or path.is_absolute() or ".." in path.parts or not path.name:
        raise DataError(
            f"`{key}` of frame {row} is not a path within the folder",
            file=file,
            scene=scene,
            expected="such as images/frame_00001.png",
            found=stated,
            remedy=_REMEDY,
        )
    return path


def _matrix(frame: Mapping[str, Any], row: int, file: Path, scene: str) -> NDArray[np.float64]:
    try:
        matrix = np.array(frame.get("transform_matrix"), np.float64)
    except (TypeError, ValueError, OverflowError):
        matrix = np.empty(0)
    if matrix.shape == (3, 4):
        matrix = np.vstack([matrix, [0, 0, 0, 1]])
    if matrix.shape != (4, 4):
        raise DataError(
            f"`transform_matrix` of frame {row} is not a matrix of numbers",
            file=file,
            scene=scene,
            expected="4 x 4 numbers, camera-to-world",
            found=str(frame.get("transform_matrix"))[:80],
            remedy=_REMEDY,
        )
    return matrix
