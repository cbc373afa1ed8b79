"""`transforms.json`: cameras, conventions, and what is refused. Round trips are in test_posed_rgbd.py."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loco.datasets import check_scene, layouts
from loco.datasets.distortion import FISHEYE, RADIAL_TANGENTIAL
from loco.datasets.nerfstudio import NerfstudioScene
from loco.datasets.recognise import recognise
from loco.errors import DataError

CAMERA = {"w": 640, "h": 480, "fl_x": 500.0, "fl_y": 510.0, "cx": 321.0, "cy": 239.0}


def frame(k: int, **changes: Any) -> dict[str, Any]:
    pose = np.eye(4)
    pose[:3, 3] = [k, 2, 3]
    paths = {"file_path": f"images/{k}.png", "depth_file_path": f"depth/{k}.png"}
    return {**paths, "transform_matrix": pose.tolist(), **changes}


def scene(tmp_path: Path, content: Any) -> Path:
    folder = tmp_path / "raw" / "room"
    folder.mkdir(parents=True)
    (folder / "transforms.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def test_the_camera_is_in_pixels_with_the_first_centre_at_one_half(tmp_path: Path) -> None:
    folder = scene(tmp_path, {**CAMERA, "camera_model": "OPENCV", "k1": 0.1, "p2": 0.01, "frames": [frame(0)]})
    lens = NerfstudioScene.cameras(folder, "room").color
    np.testing.assert_array_equal(lens.intrinsics, [[500, 0, 321], [0, 510, 239], [0, 0, 1]])
    assert lens.size == (480, 640)
    assert lens.distortion == (RADIAL_TANGENTIAL, (0.1, 0, 0, 0.01, 0))


def test_cameras_of_frames_and_fields_of_view_are_read(tmp_path: Path) -> None:
    angle = {"w": 640, "h": 480, "camera_angle_x": 2 * math.atan(0.64), "camera_model": "OPENCV_FISHEYE", "k4": 0.02}
    folder = scene(tmp_path, {"frames": [frame(0, **angle), frame(1, **angle)]})
    lens = NerfstudioScene.cameras(folder, "room").color
    np.testing.assert_allclose(lens.intrinsics, [[500, 0, 320], [0, 500, 240], [0, 0, 1]])
    assert lens.distortion == (FISHEYE, (0, 0, 0, 0.02))


def test_poses_are_converted_from_opengl_axes(tmp_path: Path) -> None:
    """A camera at (0, 2, 3) that looks along -z of the world with y up: OpenCV's y is down, its z is the view."""
    folder = scene(tmp_path, {**CAMERA, "frames": [frame(0)]})
    (shot,) = NerfstudioScene.listing(folder, "room").shots
    np.testing.assert_allclose(shot.pose[:3, 2], [0, 0, -1])
    np.testing.assert_allclose(shot.pose[:3, 1], [0, -1, 0])
    np.testing.assert_allclose(shot.pose[:3, 3], [0, 2, 3])
    assert (shot.color, shot.depth) == (folder / "images/0.png", folder / "depth/0.png")


def test_lost_poses_are_skipped(tmp_path: Path) -> None:
    lost = frame(1, transform_matrix=[[math.nan] * 4] * 4)
    listing = NerfstudioScene.listing(scene(tmp_path, {**CAMERA, "frames": [frame(0), lost, frame(2)]}), "room")
    assert [shot.name for shot in listing.shots] == ["images-0", "images-2"]
    assert listing.skipped == {"images-1": "its pose was lost"}


def test_the_folders_of_the_images_belong_to_the_scene(tmp_path: Path) -> None:
    frames = [frame(0), frame(1, file_path="more/images/1.png"), frame(2, file_path="../secret.png")]
    folder = scene(tmp_path, {**CAMERA, "frames": frames})
    named = {source.path.relative_to(folder).as_posix() for source in layouts.nerfstudio(folder, "room")}
    assert named == {"transforms.json", "images", "depth", "more/images", "depth_scale.txt"}


def test_loco_init_recognises_a_scene_with_depth_only(tmp_path: Path) -> None:
    folder = scene(tmp_path, {**CAMERA, "frames": [frame(0)]})
    assert (found := recognise(folder.parent)) is not None
    assert (found.format, found.scenes) == ("nerfstudio", ["room"])
    (folder / "transforms.json").write_text(json.dumps({**CAMERA, "frames": [{"file_path": "images/0.png"}]}))
    assert recognise(folder.parent) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"not valid JSON"),
        ([1], r"does not contain a JSON object"),
        ({**CAMERA, "frames": []}, r"lists no frames"),
        ({**CAMERA, "frames": [1]}, r"lists no frames"),
        ({"w": 640, "h": 480, "frames": [frame(0)]}, r"camera is incomplete[\s\S]*found: w, h"),
        ({**CAMERA, "fl_x": "500", "frames": [frame(0)]}, r"not numbers"),
        ({**CAMERA, "fl_x": -5.0, "frames": [frame(0)]}, r"intrinsics of the camera are invalid"),
        ({**CAMERA, "cx": 960.0, "cy": 720.0, "frames": [frame(0)]}, r"belongs to images of another size"),
        ({**CAMERA, "camera_model": "EQUIRECTANGULAR", "frames": [frame(0)]}, r"'EQUIRECTANGULAR' is not supported"),
        ({**CAMERA, "frames": [frame(0), frame(1, fl_x=700.0)]}, r"frame 2 has another camera"),
        ({**CAMERA, "frames": [frame(0, depth_file_path=None)]}, r"frame 1 has no depth image[\s\S]*`colmap`"),
        ({**CAMERA, "frames": [frame(0, file_path="/etc/passwd")]}, r"`file_path` of frame 1 is not a path within"),
        ({**CAMERA, "frames": [frame(0, depth_file_path="../d.png")]}, r"`depth_file_path` of frame 1 is not a path"),
        ({**CAMERA, "frames": [frame(0), frame(0)]}, r"images/0.png is listed twice"),
        ({**CAMERA, "frames": [frame(0, transform_matrix=[[1, 2], [3]])]}, r"not a matrix of numbers"),
        ({**CAMERA, "frames": [frame(0, transform_matrix=np.diag([2, 2, 2, 1]).tolist())]}, r"not a rigid"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, content: Any, message: str) -> None:
    folder = scene(tmp_path, content)
    with pytest.raises(DataError, match=message):
        NerfstudioScene(folder.parent, "room")
    manifest = NerfstudioScene.check(folder.parent, "room", "sample")
    assert not manifest["ok"]
    assert any("transforms.json" in problem for problem in manifest["problems"])


def test_a_check_parses_the_file_once(tmp_path: Path) -> None:
    folder = scene(tmp_path, {**CAMERA, "frames": [frame(0)]})
    layouts.parse_transforms.cache_clear()
    check_scene("nerfstudio", tmp_path / "raw", "room", "all")
    assert layouts.parse_transforms.cache_info().misses == 1
    (folder / "transforms.json").write_text(json.dumps({**CAMERA, "frames": [frame(0), frame(1)]}))
    assert len(NerfstudioScene.listing(folder, "room").shots) == 2
