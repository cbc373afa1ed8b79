from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import open3d as o3d
import pytest
import trimesh

from loco.simulate import simulate_scene
from loco.simulate.house import House

KINDS = [
    "region_segmentations",
    "undistorted_camera_parameters",
    "undistorted_color_images",
    "undistorted_depth_images",
]


def members(raw: Path, kind: str) -> dict[str, bytes]:
    with zipfile.ZipFile(raw / f"{kind}.zip") as file:
        assert file.testzip() is None
        return {name: file.read(name) for name in file.namelist()}


def read_conf(raw: Path) -> list[tuple[str, str, np.ndarray, np.ndarray]]:
    """Return (depth name, colour name, intrinsics and camera-to-world as in the file)."""
    text = members(raw, "undistorted_camera_parameters")["a/undistorted_camera_parameters/a.conf"].decode()
    scans, intrinsics = [], None
    for line in text.splitlines():
        words = line.split()
        if words and words[0] == "intrinsics_matrix":
            intrinsics = np.array(words[1:], float).reshape(3, 3)
        elif words and words[0] == "scan":
            scans.append((words[1], words[2], intrinsics, np.array(words[3:], float).reshape(4, 4)))
    return scans


def read_mesh(raw: Path) -> trimesh.Trimesh:
    files = members(raw, "region_segmentations")
    parts = [
        trimesh.load(io.BytesIO(files[n]), file_type="ply", process=False) for n in sorted(files) if n.endswith("ply")
    ]
    return trimesh.util.concatenate(parts)


def in_order(triangles: np.ndarray) -> np.ndarray:
    rows = triangles.reshape(-1, 9).astype(np.float32)
    return rows[np.lexsort(rows.T)]


def test_layout(raw: Path) -> None:
    assert sorted(path.name for path in raw.iterdir()) == [f"{kind}.zip" for kind in KINDS]
    for kind in KINDS:
        assert all(name.startswith(f"a/{kind}/") for name in members(raw, kind))
    conf = members(raw, "undistorted_camera_parameters")["a/undistorted_camera_parameters/a.conf"].decode()
    assert conf.splitlines()[:5] == [
        "dataset matterport",
        "n_images 18",
        "depth_directory undistorted_depth_images",
        "color_directory undistorted_color_images",
        "",
    ]
    assert re.search(r"^intrinsics_matrix \S+ 0 \S+  0 \S+ \S+  0 0 1$", conf, re.MULTILINE)
    scans = read_conf(raw)
    assert len(scans) == 18
    names = {re.fullmatch(r"[0-9a-f]{32}_i([012])_([0-5])\.jpg", colour).groups() for _, colour, _, _ in scans}
    assert len(names) == 18
    assert all(colour.replace("_i", "_d").replace("jpg", "png") == depth for depth, colour, _, _ in scans)
    assert {Path(name).name for name in members(raw, KINDS[2])} == {colour for _, colour, _, _ in scans}
    assert {Path(name).name for name in members(raw, KINDS[3])} == {depth for depth, _, _, _ in scans}


def test_cameras_tilt_up_level_and_down_and_are_not_alike(raw: Path) -> None:
    """Matterport's cameras look along their -z: its world z is sin(tilt)."""
    for _, colour, _, pose in read_conf(raw):
        tilt = {"0": 30, "1": 0, "2": -30}[colour[-7]]
        assert -pose[2, 2] == pytest.approx(np.sin(np.radians(tilt)), abs=1e-6)
        assert pose[2, 1] > 0.8  # the camera is upright
        np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-6)
        assert np.linalg.det(pose[:3, :3]) == pytest.approx(1)
    assert len({k.tobytes() for _, _, k, _ in read_conf(raw)}) == 3


def test_depth_images_agree_with_the_mesh_seen_from_the_conf(raw: Path) -> None:
    """By the rules of the format, in float64: rays through pixels, x right, y up, -z forward, origin bottom left."""
    depths, mesh = members(raw, "undistorted_depth_images"), read_mesh(raw)
    scene = o3d.t.geometry.RaycastingScene(nthreads=1)
    scene.add_triangles(
        o3d.core.Tensor(mesh.vertices.astype(np.float32)), o3d.core.Tensor(mesh.faces.astype(np.uint32))
    )
    for name, _, intrinsics, pose in read_conf(raw)[::5]:
        image = cv2.imdecode(
            np.frombuffer(depths[f"a/undistorted_depth_images/{name}"], np.uint8), cv2.IMREAD_UNCHANGED
        )
        assert image.dtype == np.uint16
        assert image.shape == (64, 80)
        measured = image / 4000
        row, column = np.mgrid[0:64, 0:80]
        x, y = column + 0.5, 64 - (row + 0.5)
        local = np.stack(
            [(x - intrinsics[0, 2]) / intrinsics[0, 0], (y - intrinsics[1, 2]) / intrinsics[1, 1], -np.ones_like(x)], -1
        )
        rays = local @ pose[:3, :3].T
        rays = np.concatenate([np.broadcast_to(pose[:3, 3], rays.shape), rays], -1).astype(np.float32)
        exact = scene.cast_rays(o3d.core.Tensor(rays), nthreads=1)["t_hit"].numpy()
        assert np.isfinite(exact).all()  # the mesh has no gaps, including panes
        valid = measured > 0
        error = np.abs(measured - exact)[valid]
        sigma = (0.0012 + 0.0019 * np.maximum(exact - 0.4, 0) ** 2)[valid] + 0.25e-3
        assert valid.mean() > 0.3
        assert (error < 5 * sigma).mean() > 0.999
        assert 0.4 < np.median(error / sigma) < 0.8  # 0.67 of a Gaussian, and the quantisation


def test_mesh_is_the_rendered_house(raw: Path, house: House) -> None:
    mesh = read_mesh(raw)
    np.testing.assert_array_equal(in_order(mesh.triangles), in_order(house.vertices[house.triangles]))


def test_each_face_belongs_to_one_labelled_object(raw: Path, house: House) -> None:
    files = members(raw, "region_segmentations")
    assert len(files) == 3 * len(house.rooms)
    labels = set()
    for region in range(len(house.rooms)):
        stem = f"a/region_segmentations/region{region}"
        mesh = trimesh.load(io.BytesIO(files[f"{stem}.ply"]), file_type="ply", process=False)
        assert mesh.visual.kind == "vertex"
        segments = json.loads(files[f"{stem}.fsegs.json"])["segIndices"]
        assert len(segments) == len(mesh.faces)
        groups = json.loads(files[f"{stem}.semseg.json"])["segGroups"]
        assert [group["objectId"] for group in groups] == list(range(len(groups)))
        owned = [segment for group in groups for segment in group["segments"]]
        assert len(owned) == len(set(owned))
        assert set(owned) == set(segments)
        assert len(owned) > len(groups)  # over-segmented
        labels |= {group["label"] for group in groups}
        floor = next(group["segments"] for group in groups if group["label"] == "floor")
        heights = mesh.triangles[np.isin(segments, floor)][..., 2]
        np.testing.assert_allclose(heights, 0, atol=1e-6)
    assert {"wall", "floor", "ceiling", "door frame", "window"} < labels


def test_same_seed_same_bytes_other_seed_other_bytes(raw: Path, settings: dict[str, Any], tmp_path: Path) -> None:
    simulate_scene("matterport3d", tmp_path / "same", "a", settings)
    for kind in KINDS:
        assert (tmp_path / "same" / f"{kind}.zip").read_bytes() == (raw / f"{kind}.zip").read_bytes()
    simulate_scene("matterport3d", tmp_path / "other", "a", {**settings, "seed": 4, "rooms": 1})
    for kind in KINDS:
        assert (tmp_path / "other" / f"{kind}.zip").read_bytes() != (raw / f"{kind}.zip").read_bytes()
