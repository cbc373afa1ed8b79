"""TUM RGB-D (Sturm et al., IROS 2012) in its raw download layout.

``<raw>/<sequence>/`` has ``rgb.txt`` and ``depth.txt``, one time stamp and image file per line; the images, depth in
units of 0.2 mm (or as ``depth_scale`` states) and registered to colour by the driver; and ``groundtruth.txt``, lines of
``time tx ty tz qx qy qz qw``, the camera-to-world pose of the colour camera at 100 Hz.

The three streams are not synchronised. Colour and depth are paired as by the benchmark's tool: nearest in time first,
each used once, at most 0.02 s apart. A pose is interpolated between the two poses around its time, both at most 0.02 s
away: positions linearly, rotations at a constant rate. Depth has the pose of its *own* time, so that a moving camera
does not shift it relative to colour. Images without a partner or a pose are skipped, and so are frames with missing
images.

The intrinsics are those that the benchmark publishes for the cameras freiburg1 to 3, with pixel centres at integers.
The lenses of the first two have distortion, which also affects registered depth; both are undistorted here.
``K.txt`` overrides the intrinsics, and states that the images are not distorted unless ``distortion.txt`` is beside it
(:mod:`loco.datasets.posed_images`).
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from loco.datasets.calibration import Lens
from loco.datasets.distortion import RADIAL_TANGENTIAL, Distortion
from loco.datasets.pose_files import centred, read_depth_to_color, read_number, read_numbers, read_table, require_near
from loco.datasets.posed_images import COLOR_CAMERA, Listing, PosedImages, Rig, Shot, read_depth_scale, read_rig
from loco.errors import DataError

RGB, DEPTH, POSES = "rgb.txt", "depth.txt", "groundtruth.txt"
APART = 0.02  # largest difference in time, seconds
UNITS = 5000.0  # units of depth per metre
SIZE = (480, 640)
# https://cvg.cit.tum.de/data/datasets/rgbd-dataset/file_formats: fx, fy, cx, cy; k1, k2, p1, p2, k3 as in OpenCV
PUBLISHED = {
    name: Lens(
        centred(np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])),
        SIZE,
        Distortion(RADIAL_TANGENTIAL, coefficients) if coefficients else None,
    )
    for name, (fx, fy, cx, cy), coefficients in (
        ("freiburg1", (517.3, 516.5, 318.6, 255.3), (0.2624, -0.9531, -0.0054, 0.0026, 1.1633)),
        ("freiburg2", (520.9, 521.0, 325.1, 249.7), (0.2312, -0.7849, -0.0033, -0.0001, 0.9172)),
        ("freiburg3", (535.4, 539.2, 320.1, 247.6), None),
    )
}


class TumRgbdScene(PosedImages):
    """A sequence of TUM RGB-D."""

    format = "tum_rgbd"
    remedy = "check rgb.txt, depth.txt, groundtruth.txt and the images that they list; `raw` must be the parent folder"
    published = "rgbd_dataset_freiburg[123]_.*"
    download = (
        "download the sequence's tgz from https://cvg.cit.tum.de/data/datasets/rgbd-dataset/download and unpack it; "
        "set `raw` to the parent folder"
    )

    @staticmethod
    def cameras(folder: Path, scene: str, depth_scale: float | None = None) -> Rig:
        scale = read_depth_scale(folder, scene, depth_scale, UNITS)
        camera = re.search("freiburg[123]", scene)
        if camera is None or (folder / COLOR_CAMERA).exists():
            return read_rig(folder, scene, scale)
        lens = PUBLISHED[camera[0]]
        return read_rig(folder, scene, scale, lens, lens)

    @staticmethod
    def listing(folder: Path, scene: str) -> Listing:
        colors, depths = (_read_images(folder, name, scene) for name in (RGB, DEPTH))
        pairs = associate(colors.times, depths.times)
        if not pairs:
            raise DataError(
                f"no colour image has a depth image within {APART} s",
                file=folder / DEPTH,
                scene=scene,
                expected=f"time stamps between {colors.times[0]:f} and {colors.times[-1]:f}, as in {RGB}",
                found=f"{depths.times[0]:f} to {depths.times[-1]:f}",
                remedy=TumRgbdScene.remedy_of(scene),
            )
        depth_to_color = read_depth_to_color(folder, scene, np.eye(4))
        trajectory = _read_trajectory(folder / POSES, scene)
        poses, known = trajectory.at(colors.times)
        depth_poses, depth_known = trajectory.at(depths.times)
        absent = [file for file in (*colors.files, *depths.files) if not os.path.lexists(file)]
        found, gone = Listing([], {}, absent), set(absent)
        for i, color in enumerate(colors.files):
            j = pairs.get(i)
            if color in gone:
                found.skipped[color.stem] = "its image is missing"
            elif j is None:
                found.skipped[color.stem] = f"no depth image within {APART} s"
            elif depths.files[j] in gone:
                found.skipped[color.stem] = "its depth image is missing"
            elif not (known[i] and depth_known[j]):
                found.skipped[color.stem] = f"no ground truth within {APART} s"
            else:
                found.shots.append(Shot(color.stem, color, depths.files[j], poses[i], depth_poses[j] @ depth_to_color))
        return found


def associate(a: NDArray[np.float64], b: NDArray[np.float64], apart: float = APART) -> dict[int, int]:
    """Return pairs (index into ``a`` -> index into ``b``) of times at most ``apart`` seconds apart, each used once.

    Both arrays are ascending. The nearest times are paired first.
    """
    first, last = np.searchsorted(b, a - apart), np.searchsorted(b, a + apart, side="right")
    near = [(abs(a[i] - b[j]), i, j) for i in range(len(a)) for j in range(first[i], last[i])]
    pairs: dict[int, int] = {}
    taken: set[int] = set()
    for _, i, j in sorted(near):
        if i not in pairs and j not in taken:
            pairs[i] = j
            taken.add(j)
    return pairs


class Trajectory(NamedTuple):
    """Poses over time: ``times`` (n,) in increasing order, seconds; ``positions`` (n, 3), metres; ``rotations``, n."""

    times: NDArray[np.float64]
    positions: NDArray[np.float64]
    rotations: Rotation

    def at(self, times: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return the poses (m, 4, 4) interpolated at ``times`` (m,), and a mask (m,) of those that are valid.

        A pose is valid if the poses before and after its time are at most :data:`APART` seconds away.
        """
        before = np.searchsorted(self.times, times, side="right") - 1
        after = np.searchsorted(self.times, times, side="left")
        known = (before >= 0) & (after < len(self.times))
        before, after = np.maximum(before, 0), np.minimum(after, len(self.times) - 1)
        known &= (times - self.times[before] <= APART) & (self.times[after] - times <= APART)
        span = self.times[after] - self.times[before]
        fraction = np.divide(times - self.times[before], span, out=np.zeros(len(times)), where=known & (span > 0))
        rotation = (self.rotations[before].inv() * self.rotations[after]).as_rotvec()
        poses = np.tile(np.eye(4), (len(times), 1, 1))
        poses[:, :3, :3] = (self.rotations[before] * Rotation.from_rotvec(fraction[:, None] * rotation)).as_matrix()
        poses[:, :3, 3] = self.positions[before] + fraction[:, None] * (self.positions[after] - self.positions[before])
        return poses, known


class _Images(NamedTuple):
    """Time stamps (n,) in increasing order, seconds, and the image of each."""

    times: NDArray[np.float64]
    files: list[Path]


def _read_images(folder: Path, name: str, scene: str) -> _Images:
    listed: dict[float, Path] = {}
    stems: set[str] = set()
    for stamp, image in read_table(folder / name, scene, 2):
        problem = None
        try:
            time = read_number(stamp)
        except ValueError:
            problem = f"{stamp!r} is not a time stamp"
        else:
            path = PurePosixPath(image)
            if not np.isfinite(time):
                problem = f"{stamp!r} is not a time stamp"
            elif time in listed or path.stem in stems:
                problem = f"{stamp} {image} is listed twice"
            elif path.is_absolute() or ".." in path.parts:
                problem = f"{image!r} is outside the folder of the scene"
        if problem:
            raise DataError(
                problem,
                file=folder / name,
                scene=scene,
                expected="lines with a time stamp in seconds and an image file, such as rgb/1305031102.175304.png",
                remedy=TumRgbdScene.remedy_of(scene),
            )
        listed[time] = folder / path
        stems.add(path.stem)
    if not listed:
        raise DataError(
            "the file lists no image", file=folder / name, scene=scene, remedy=TumRgbdScene.remedy_of(scene)
        )
    times = sorted(listed)
    return _Images(np.array(times), [listed[time] for time in times])


def _read_trajectory(file: Path, scene: str) -> Trajectory:
    """Read the poses of a file, without those that are not finite."""
    rows = read_numbers(file, scene, 8)
    rows = rows[np.isfinite(rows).all(axis=1)]
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    off = np.abs(np.linalg.norm(rows[:, 4:], axis=1) - 1)
    if not len(rows) or off.max() > 0.01:
        raise DataError(
            "the file contains a quaternion that does not have unit norm" if len(rows) else "the file contains no pose",
            file=file,
            scene=scene,
            expected="lines of `time tx ty tz qx qy qz qw`, with metres and quaternions of unit norm",
            found=" ".join(f"{value:g}" for value in rows[off.argmax()]) if len(rows) else None,
            remedy=f"write one such line per pose, or {TumRgbdScene.remedy_of(scene)}",
        )
    farthest = rows[np.abs(rows[:, 1:4]).max(axis=1).argmax(), 1:4]
    require_near(farthest, "", file=file, scene=scene)
    return Trajectory(rows[:, 0], rows[:, 1:4], Rotation.from_quat(rows[:, 4:]))
