"""Posed RGB-D images in a plain folder, for the user's own data.

``<raw>/<scene>/`` contains

- ``color/``, one JPEG or PNG per frame, and ``depth/``, one 16-bit PNG per frame with the same name, in millimetres or
  in the units per metre of ``depth_scale.txt``;
- ``poses.txt``, one row per frame: 16 numbers, the camera-to-world matrix of the colour camera row by row, OpenCV axes,
  metres; NaN or infinite where tracking was lost. Each row may begin with the name or number of its image, and the
  frames are in the order of the rows. Otherwise they are in the order of the names, which must be unambiguous
  (:mod:`loco.datasets.frame_order`);
- ``K.txt``, the intrinsics of the colour camera, and ``distortion.txt`` if its lens has distortion;
- if depth is not registered to colour, ``K_depth.txt``, and optionally ``distortion_depth.txt`` (default: no
  distortion) and ``depth_to_color.txt`` (default: the identity);
- optionally ``mesh.ply``, a mesh in the frame of the poses.

See :mod:`loco.datasets.posed_images` for the conventions, including pixel centres.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from loco.datasets.files import read_bytes
from loco.datasets.frame_order import match_rows
from loco.datasets.ply import read_ply
from loco.datasets.pose_files import as_pose, read_depth_to_color, read_named_rows
from loco.datasets.posed_images import (
    COLOR_CAMERA,
    Listing,
    PosedImages,
    Rig,
    Shot,
    images_in,
    read_depth_scale,
    read_rig,
)
from loco.errors import DataError
from loco.geometry.mesh import Mesh

COLOR, DEPTH, POSES, MESH = "color", "depth", "poses.txt", "mesh.ply"
MILLIMETRES = 1000.0


class PosedRgbdScene(PosedImages):
    """A plain folder of posed RGB-D images."""

    format = "posed_rgbd"
    remedy = (
        f"convert the scene to the layout {COLOR}/ {DEPTH}/ {POSES} {COLOR_CAMERA}, and set `raw` to the parent folder"
    )

    @staticmethod
    def cameras(folder: Path, scene: str, depth_scale: float | None = None) -> Rig:
        return read_rig(folder, scene, read_depth_scale(folder, scene, depth_scale, MILLIMETRES))

    @staticmethod
    def listing(folder: Path, scene: str) -> Listing:
        colors = images_in(folder / COLOR, (".jpg", ".jpeg", ".png"), scene)
        depths = images_in(folder / DEPTH, (".png",), scene)
        keys, numbers = read_named_rows(folder / POSES, scene, 16)
        _require_pairs(list(colors), list(depths), folder, scene)
        names = match_rows(keys, len(numbers), colors, table=folder / POSES, scene=scene)
        depth_to_color = read_depth_to_color(folder, scene, np.eye(4))
        found = Listing([], {})
        for row, (name, matrix) in enumerate(zip(names, numbers.reshape(-1, 4, 4)), start=1):
            pose = as_pose(matrix, file=folder / POSES, scene=scene, row=row)
            if pose is None:
                found.skipped[name] = "its pose was lost"
            else:
                found.shots.append(Shot(name, colors[name], depths[name], pose, pose @ depth_to_color))
        return found

    @staticmethod
    def read_mesh(folder: Path, scene: str) -> Mesh | None:
        file = folder / MESH
        return read_ply(read_bytes(file, scene), file=file, scene=scene) if file.exists() else None


def _require_pairs(colors: list[str], depths: list[str], folder: Path, scene: str) -> None:
    """Require that every colour image has a depth image, and vice versa."""
    for names, others, kind, other in ((colors, set(depths), COLOR, DEPTH), (depths, set(colors), DEPTH, COLOR)):
        lonely = next((name for name in names if name not in others), None)
        if lonely is not None:
            raise DataError(
                f"image {lonely!r} of {kind}/ has no counterpart in {other}/",
                file=folder / other,
                scene=scene,
                expected=f"one image for each of the {len(names)} images in {kind}/, with the same name",
                found=f"{len(others)} images, none named {lonely!r}",
                remedy="give the colour and the depth image of a frame the same name, and remove images without a "
                "counterpart",
            )
