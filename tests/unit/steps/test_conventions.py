"""Conventions of raw files that are set in the configuration reach every step that reads the files."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import trimesh
from numpy.testing import assert_allclose

from loco.datasets import conventions_of
from loco.errors import DataError
from loco.records import Recipe
from loco.steps import check_scene, frames, fuse
from loco.storage import Frames, read_manifest

FRAMES = {"height": 24, "width": 32, "images": "all", "max_hole_fraction": 0.5}
FUSE = {"voxel": 0.05, "max_depth": 4.0}


def check_recipe(**conventions: float) -> Recipe:
    return Recipe("check_scene", "c", {"format": "posed_rgbd", "decode": "all", "raw": "raw", **conventions})


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Write a wall 2 m away, in units of 0.2 mm that no file states."""
    folder = tmp_path / "raw" / "wall"
    for kind in ("color", "depth"):
        (folder / kind).mkdir(parents=True)
    color = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    for k in range(3):
        for kind, image in (("color", color), ("depth", np.full((48, 64), 10_000, np.uint16))):
            (folder / kind / f"{k}.png").write_bytes(cv2.imencode(".png", image)[1].tobytes())
    (folder / "poses.txt").write_text("".join(f"1 0 0 {k / 50} 0 1 0 0 0 0 1 0 0 0 0 1\n" for k in range(3)))
    (folder / "K.txt").write_text("60 0 31.5 0 60 23.5 0 0 1")
    return tmp_path / "raw"


@pytest.mark.parametrize(
    ("conventions", "depth", "source"), [({"depth_scale": 5000}, 2, "configuration"), ({}, 10, "d")]
)
def test_the_depth_scale_reaches_the_check_the_mesh_and_the_frames(raw, tmp_path, conventions, depth, source):
    checked, made = check_recipe(**conventions), tmp_path / "mesh.ply"
    manifest = tmp_path / "wall.json"
    check_scene.run(checked, raw, manifest, "walls", "wall")
    content = read_manifest(manifest, checked).content
    assert content["ok"]
    assert content["depth_scale"] == 10_000 / depth
    assert content["depth_scale_from"].startswith(source)
    of_frames = Recipe("frames", "f", {"format": "posed_rgbd", **FRAMES}, {"check_scene": checked})
    frames.run(of_frames, manifest, raw, tmp_path / "frames.h5", "walls", "wall")
    with Frames(tmp_path / "frames.h5") as file:
        assert_allclose(file["depth"][:], depth, rtol=1e-6)
    of_mesh = Recipe("fuse", "m", {"format": "posed_rgbd", **FUSE, "max_depth": 20.0}, {"check_scene": checked})
    fuse.run(of_mesh, manifest, raw, made, "walls", "wall")
    assert_allclose(trimesh.load(made).vertices[:, 2], depth, atol=0.02)


def test_frames_of_another_scale_are_refused(raw, tmp_path):
    manifest = tmp_path / "wall.json"
    check_scene.run(check_recipe(depth_scale=5000), raw, manifest, "walls", "wall")
    other = Recipe("frames", "f", {"format": "posed_rgbd", **FRAMES}, {"check_scene": check_recipe(depth_scale=1000)})
    with pytest.raises(DataError, match="depth_scale"):
        frames.run(other, manifest, raw, tmp_path / "frames.h5", "walls", "wall")


def test_conventions_are_those_of_the_format():
    settings = {"depth_scale": 5000, "raw": "raw", "decode": "all"}
    for format in ("posed_rgbd", "seven_scenes", "tum_rgbd"):
        assert conventions_of({"format": format, **settings}) == {"depth_scale": 5000}
    assert conventions_of({"format": "scannet", **settings}) == {}
    assert conventions_of({"format": "posed_rgbd"}) == {}
