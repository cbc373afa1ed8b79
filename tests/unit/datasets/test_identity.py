"""What the manifest and the recorded state of the raw files depend on, for every layout."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from loco.datasets import (
    FORMATS,
    check_labels,
    check_scene,
    identity,
    label_files,
    label_state,
    layouts,
    raw_files,
    raw_state,
)
from loco.datasets.identity import Source

HEAVY = ("cv2", "numpy", "open3d", "pycolmap", "scipy", "torch", "trimesh")
# Format -> the files of a scene `s` that its frames are made from, and the other files.
SCENES = {
    "matterport3d": (
        [
            "undistorted_color_images/0_i1_0.jpg",
            "undistorted_depth_images/0_d1_0.png",
            "s/undistorted_camera_parameters/s.conf",
            "region_segmentations/region0.ply",
        ],
        ["region_segmentations/region0.fsegs.json", "region_segmentations/region0.semseg.json", "house.txt"],
    ),
    "scannet": (
        ["color/0.jpg", "depth/0.png", "pose/0.txt", "intrinsic/intrinsic_color.txt", "s_vh_clean_2.ply"],
        ["s.aggregation.json", "s_vh_clean_2.0.010000.segs.json", "s_vh_clean.ply", "color/.DS_Store"],
    ),
    "seven_scenes": (
        ["seq-01/frame-0.color.png", "seq-01/frame-0.depth.png", "seq-02/frame-0.pose.txt", "K.txt", "K_depth.txt"],
        ["TrainSplit.txt", "seq-01.zip"],
    ),
    "tum_rgbd": (["rgb.txt", "depth.txt", "groundtruth.txt", "rgb/1.png", "other/2.png", "K.txt"], ["imu.txt"]),
    "posed_rgbd": (["color/0.PNG", "depth/0.png", "poses.txt", "K.txt", "depth_scale.txt", "mesh.ply"], ["notes.txt"]),
    "nerfstudio": (["transforms.json", "images/0.png", "depth/0.png", "depth_scale.txt"], ["colmap/cameras.bin"]),
    "colmap": (["images/a/0.jpg", "sparse/0/cameras.bin", "sparse/0/points3D.bin"], ["database.db", "dense/0.jpg"]),
    "scannet_pairs": (["test.npz", "intrinsics.npz", "scene0_00/color/0.jpg", "scene0_00/depth/0.png"], ["a.txt"]),
    "hpatches": (["1.ppm", "6.ppm", "H_1_2", "H_1_6"], ["readme"]),
    "baidu": (["training_images_undistort/0.jpg", "training_gt/0.camera", "query_gt/0.camera"], ["map.pcd"]),
    "gardens": (["day_right/0.jpg", "night_right/0.jpg", "gardens_gt.npy"], ["day_left/0.jpg"]),
    "seventeen_places": (["ref/0.jpg", "query/0.jpg", "better_ground_truth.npy"], ["x.npy"]),
    "geotagged": (["images/test/database/@1@2@.jpg", "images/test/queries/@1@2@.jpg"], ["images/train/0.jpg"]),
    "oxford_robotcar": (["oxdatapart.mat", "oxDataPart/1-s-resized/0.png"], ["x.mat"]),
    "hawkins": (["db_images/0.png", "q_images/0.png", "pose_topic_list.npy"], ["x.npy"]),
    "laurel_caverns": (["db_images/0.png", "q_images/0.png", "pose_topic_list.npy"], ["x.npy"]),
    "mid_atlantic_ridge": (["db_images/0.png", "q_images/0.png", "eiffel_gt.npy"], ["x.npy"]),
    "nardo_air": (["reference_images/0.png", "query_images/0.png", "gt_matches.csv"], ["x.csv"]),
    "vp_air": (["reference_views/0.png", "distractors/0.png", "queries/0.png", "vpair_gt.npy"], ["x.csv"]),
}  # fmt: skip


def make(raw: Path, format: str) -> Path:
    for part in SCENES[format]:
        for name in part:
            file = raw / "s" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"0 other/{name}\n" if name == "depth.txt" else f"0 rgb/{name}\n")
    return raw / "s"


def manifest_digest(format: str, raw: Path, content: bool) -> str:
    sources = FORMATS[format].sources(raw / "s", "s")
    entries = [identity.describe(source, raw / "s", content=content) for source in sources]
    return identity.digest_of(entry for entry in entries if entry)


def rewrite_in_place(file: Path) -> None:
    """The size and the time of the folder are unchanged; the content differs."""
    time = file.stat().st_mtime_ns
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(file, ns=(time + 1, time + 1))


def test_every_format_has_a_scene_here():
    assert SCENES.keys() == FORMATS.keys()


@pytest.mark.parametrize("format", SCENES)
def test_each_file_of_the_frames_counts_and_no_other(format, tmp_path):
    scene = make(tmp_path, format)
    used, unused = SCENES[format]
    before = raw_state(format, tmp_path, "s")
    digests = [manifest_digest(format, tmp_path, content) for content in (False, True)]
    for name in unused:
        rewrite_in_place(scene / name)
    assert raw_state(format, tmp_path, "s") == before
    assert [manifest_digest(format, tmp_path, content) for content in (False, True)] == digests
    for name in used:
        rewrite_in_place(scene / name)
        changed = [manifest_digest(format, tmp_path, content) for content in (False, True)]
        assert raw_state(format, tmp_path, "s") != before, name
        assert all(one != other for one, other in zip(changed, digests, strict=True)), name
        before, digests = raw_state(format, tmp_path, "s"), changed


@pytest.mark.parametrize("format", SCENES)
def test_raw_files_are_there_and_hold_all_that_counts(format, tmp_path):
    scene = make(tmp_path, format)
    present = [path for path in raw_files(format, tmp_path, "s") if path.exists()]
    assert len(set(present)) == len(present)
    for name in SCENES[format][0]:
        assert any(path in (scene / name, *(scene / name).parents) for path in present), name


@pytest.mark.parametrize("format", SCENES)
def test_files_that_come_and_go_count(format, tmp_path):
    scene = make(tmp_path, format)
    seen = {raw_state(format, tmp_path, "s")}
    for name in reversed(SCENES[format][0]):
        (scene / name).unlink()
        seen.add(raw_state(format, tmp_path, "s"))
    assert len(seen) == len(SCENES[format][0]) + 1
    shutil.rmtree(scene)
    assert len(raw_state(format, tmp_path, "s")) == 64


def test_a_scene_that_is_moved_keeps_its_state_and_manifest(tmp_path):
    scene = make(tmp_path / "a", "scannet")
    state, digest = raw_state("scannet", tmp_path / "a", "s"), manifest_digest("scannet", tmp_path / "a", False)
    shutil.copytree(scene, tmp_path / "b" / "s")  # keeps the times
    assert raw_state("scannet", tmp_path / "b", "s") == state
    assert manifest_digest("scannet", tmp_path / "b", False) == digest


def test_images_touched_are_new_unless_identified_by_their_bytes(tmp_path):
    scene = make(tmp_path, "posed_rgbd")
    sampled, whole = (manifest_digest("posed_rgbd", tmp_path, content) for content in (False, True))
    os.utime(scene / "color/0.PNG", ns=(1, 1))
    os.utime(scene / "poses.txt", ns=(1, 1))
    assert manifest_digest("posed_rgbd", tmp_path, False) != sampled
    assert manifest_digest("posed_rgbd", tmp_path, True) == whole


def test_labels_are_apart_from_frames(tmp_path):
    for format, unused in (("scannet", SCENES["scannet"][1][:2]), ("matterport3d", SCENES["matterport3d"][1][:2])):
        scene = make(tmp_path / format, format)
        state = label_state(format, tmp_path / format, "s")
        for name in unused:
            rewrite_in_place(scene / name)
            assert label_state(format, tmp_path / format, "s") != state
            state = label_state(format, tmp_path / format, "s")
        for name in SCENES[format][0]:
            rewrite_in_place(scene / name)
        assert label_state(format, tmp_path / format, "s") == state
    assert label_files("colmap", tmp_path, "s") == []
    (tmp_path / "s").mkdir(exist_ok=True)
    assert "has no labels" in check_labels("colmap", tmp_path, "s", "sample")["problems"][0]


def test_describe_against_sha256(tmp_path):
    (tmp_path / "few").mkdir()
    for name, content in (("b.txt", b"two"), ("a.txt", b"one"), (".hidden", b"x"), ("c.png", b"p")):
        (tmp_path / "few" / name).write_bytes(content)
    found = identity.describe(Source(tmp_path / "few", (".txt",)), tmp_path, content=False)
    lines = [[name, hashlib.sha256(content).hexdigest()] for name, content in (("a.txt", b"one"), ("b.txt", b"two"))]
    assert found == {
        "name": "few/*.txt",
        "files": 2,
        "bytes": 6,
        "identified_by": "sha256",
        "digest": hashlib.sha256(json.dumps(lines).encode()).hexdigest(),
    }
    sampled = identity.describe(Source(tmp_path / "few", images=True), tmp_path, content=False)
    assert (sampled["files"], sampled["identified_by"]) == (3, "size and modification time")
    assert identity.describe(Source(tmp_path / "none"), tmp_path, content=True) is None


def test_a_ring_of_links_ends(tmp_path):
    scene = make(tmp_path, "colmap")
    (scene / "images" / "again").symlink_to(scene / "images")
    assert len(raw_state("colmap", tmp_path, "s")) == 64


def test_lists_of_tum_name_no_folder_outside(tmp_path):
    scene = make(tmp_path, "tum_rgbd")
    (scene / "rgb.txt").write_text("0 ../../x/0.png\n1 /etc/passwd\n2 rgb/a/2.png\n# 3 b/3.png\n4\n")
    folders = {s.path.relative_to(scene).as_posix() for s in layouts.tum_rgbd(scene, "s") if s.images}
    assert folders == {"depth", "rgb", "other"}


def test_two_checks_of_a_scene_give_the_same_manifest(pristine, raw):
    one, other = (check_scene("matterport3d", folder, "house", "all") for folder in (pristine, raw))
    assert json.dumps(one) == json.dumps(other)


def test_an_unpacked_scene_is_described_and_planned_by_its_folders(raw):
    for path in raw_files("matterport3d", raw, "house"):
        with zipfile.ZipFile(path) as archive:
            archive.extractall(raw)
        path.unlink()
    files = raw_files("matterport3d", raw, "house")
    assert all(path.is_dir() for path in files)
    assert len(files) == 4
    before = check_scene("matterport3d", raw, "house", "sample")
    assert [entry["files"] for entry in before["files"]] == [18, 18, 1, 1]
    state = raw_state("matterport3d", raw, "house")
    rewrite_in_place(next((raw / "house/undistorted_depth_images").iterdir()))
    assert raw_state("matterport3d", raw, "house") != state
    assert check_scene("matterport3d", raw, "house", "sample")["digest"] != before["digest"]


def test_planning_imports_no_heavy_library():
    program = f"import sys, loco.datasets; print([name for name in {HEAVY} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
