"""Every raw layout through the real workflow: simulated, checked, prepared, and with the 3D points of its patches."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from loco.datasets.sens import SensFile
from loco.storage import Correspondences, Frames, Labels
from tests.workflow.conftest import download

FORMATS = ("scannet", "seven_scenes", "tum_rgbd", "posed_rgbd", "colmap")
TINY: dict[str, Any] = {
    "check": {"decode": "all"},
    "frames": {"height": 48, "width": 64, "images": "all", "max_hole_fraction": 0.9},
    "patches": {"stride": 4, "overlap_tolerance": 0.05},
    "scenes": ["elm"],
}
LABELLED = {"labels": {"mapping": "config/labels/simulated.tsv"}}
SIMULATE = {"seed": 1, "rooms": 1, "images": 12, "image": {"height": 96, "width": 128}, "repetition": 0.3}


@pytest.fixture(scope="module")
def world(finished, tmp_path_factory):
    """Run one small scene of every layout, up to its correspondences."""
    world = finished.clone(tmp_path_factory.mktemp("formats"))
    datasets = {
        name: {**TINY, "format": name, "raw": f"results/raw/{name}", "simulate": dict(SIMULATE)} for name in FORMATS
    }
    for name in ("posed_rgbd", "colmap"):  # their surfaces and points must be visible in several images
        datasets[name]["simulate"]["images"] = 24
    datasets["scannet"]["simulate"]["lost_poses"] = 2
    datasets["scannet"] |= LABELLED
    datasets["posed_rgbd"]["fuse"] = {"voxel": 0.05, "max_depth": 5.0}
    datasets["posed_rgbd"]["frames"] = {**TINY["frames"], "max_overlap": 0.7}
    world.overlay({"datasets": datasets})
    scenes = [f"results/correspondences/{name}/stride4/elm.h5" for name in FORMATS]
    world.run(*scenes, "results/labels/scannet/elm.h5")
    return world


def frames_of(world, name: str) -> Frames:
    return Frames(world.directory / f"results/frames/{name}/elm.h5")


@pytest.mark.parametrize("name", FORMATS)
def test_patches_are_put_in_space(world, name):
    with Correspondences(world.directory / f"results/correspondences/{name}/stride4/elm.h5") as found:
        valid, overlap = found["valid"][:], found["overlap"][:]
    seen = valid.any(axis=(1, 2))
    assert seen.sum() >= 3
    np.testing.assert_array_equal(overlap.diagonal()[seen], 1.0)
    assert (overlap[~np.eye(len(overlap), dtype=bool)] > 0.1).any()


def test_lost_poses_are_skipped_and_counted(world):
    with frames_of(world, "scannet") as frames:
        assert len(frames) == 10
        assert list(frames.facts["skipped"].values()) == ["pose lost"] * 2


def test_a_fused_mesh_fills_holes_and_frames_are_thinned(world):
    with frames_of(world, "posed_rgbd") as frames:
        assert (frames["source"][:] == Frames.SOURCES.index("mesh")).any()
        assert 0 < len(frames.facts["not_keyframes"]) == 24 - len(frames) - len(frames.facts["dropped"])
    with frames_of(world, "tum_rgbd") as frames:  # without a mesh
        assert not (frames["source"][:] == Frames.SOURCES.index("mesh")).any()


def test_labels_are_those_of_the_frames(world):
    with Labels(world.directory / "results/labels/scannet/elm.h5") as labels, frames_of(world, "scannet") as frames:
        labels.require_frames(frames)
        assert np.mean(labels["instance"][:] >= 0) > 0.9
        assert {thing["category"] for thing in labels.facts["objects"]} >= {"wall", "floor"}


def test_nothing_is_left_to_do(world):
    scenes = [f"results/correspondences/{name}/stride4/elm.h5" for name in FORMATS]
    assert not world.plan(*scenes)


# The same scenes as if downloaded: no step of the workflow makes their files.


def export(scan: Path) -> None:
    """Export a scan of ScanNet to folders, as ScanNet's ``SensReader/python/reader.py`` does."""
    (sens,) = scan.glob("*.sens")
    recording = SensFile(sens, scan.name)
    for kind in ("color", "depth", "pose", "intrinsic"):
        (scan / kind).mkdir()
    for k in range(len(recording)):
        (scan / f"color/{k}.jpg").write_bytes(recording.color_bytes(k))
        cv2.imwrite(str(scan / f"depth/{k}.png"), recording.depth(k))
        np.savetxt(scan / f"pose/{k}.txt", recording.poses[k])
    for matrix in ("intrinsic_color", "extrinsic_color", "intrinsic_depth", "extrinsic_depth"):
        np.savetxt(scan / f"intrinsic/{matrix}.txt", getattr(recording.header, matrix))
    sens.unlink()


@pytest.fixture(scope="module")
def downloads(world, tmp_path_factory):
    """All scenes are checked, and two are prepared. The labels of ScanNet are in a separate folder."""
    world = world.clone(tmp_path_factory.mktemp("downloads"))
    for name in FORMATS:
        shutil.copytree(world.directory / f"results/raw/{name}", world.directory / f"download/{name}")
    scan = world.directory / "download/scannet/elm"
    export(scan)
    (world.directory / "later").mkdir()
    for path in [*scan.glob("*.segs.json"), *scan.glob("*.aggregation.json")]:
        path.rename(world.directory / "later" / path.name)
    datasets = {f"{name}_download": {**TINY, "format": name, "raw": f"download/{name}"} for name in FORMATS}
    datasets["scannet_download"] |= LABELLED
    world.overlay({"datasets": datasets})
    world.run(*MANIFESTS, *PREPARED)
    return world


MANIFESTS = [f"results/manifests/{name}_download/elm.json" for name in FORMATS]
PREPARED = [f"results/frames/{name}_download/elm.h5" for name in ("scannet", "seven_scenes")]


def move(path: Path) -> None:
    """Move the camera of a 4 x 4 pose in a file by 1 m, in place."""
    pose = np.loadtxt(path)
    pose[0, 3] += 1
    np.savetxt(path, pose)


def append(path: Path) -> None:
    """Change a file in place, for any content: the check decides what the change means."""
    with path.open("ab") as file:
        file.write(b"\n")


def test_files_that_are_rewritten_in_place_are_noticed(downloads):
    """The time of their folder does not change. Only the checks run at first, then the other steps."""
    raw = downloads.directory / "download"
    before = [json.loads(downloads.read(path))["content"]["digest"] for path in MANIFESTS]
    poses = {}
    for path in PREPARED:
        with Frames(downloads.directory / path) as frames:
            poses[path] = frames["pose"][0], frames["intrinsics"][0]
            first = int(frames.names[0].rpartition("-")[2])
        scene = raw / Path(path).parent.name.removesuffix("_download") / "elm"
        move(scene / f"pose/{first}.txt" if "scannet" in path else scene / f"seq-01/frame-{first:06}.pose.txt")
    for matrix in ("intrinsic_color", "intrinsic_depth"):
        path = raw / f"scannet/elm/intrinsic/{matrix}.txt"
        np.savetxt(path, np.loadtxt(path) * [[1.01, 1, 1, 1], [1, 1.01, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]])
    append(raw / "tum_rgbd/elm/groundtruth.txt")
    append(raw / "posed_rgbd/elm/poses.txt")
    append(next((raw / "colmap/elm/images").iterdir()))

    assert downloads.plan(*MANIFESTS) == {"check_scene": len(FORMATS)}
    downloads.run(*MANIFESTS)
    assert not downloads.plan(*MANIFESTS)
    after = [json.loads(downloads.read(path))["content"]["digest"] for path in MANIFESTS]
    assert all(old != new for old, new in zip(before, after))

    assert downloads.plan(*PREPARED) == {"frames": len(PREPARED)}
    downloads.run(*PREPARED)
    for path, (pose, intrinsics) in poses.items():
        with Frames(downloads.directory / path) as frames:
            np.testing.assert_allclose(frames["pose"][0] - pose, np.eye(4)[:, :1] @ [[0, 0, 0, 1]], atol=1e-5)
            factor = 1.01 if "scannet" in path else 1.0
            np.testing.assert_allclose(frames["intrinsics"][0][0, 0], factor * intrinsics[0, 0], rtol=1e-5)


def test_labels_that_are_downloaded_later_concern_the_labels_alone(downloads):
    scan, frames = downloads.directory / "download/scannet/elm", "results/frames/scannet_download/elm.h5"
    labels = "results/labels/scannet_download/elm.h5"
    said = downloads.refuse(labels)
    assert "elm.aggregation.json" in said
    assert "what to do: " in said
    for path in (downloads.directory / "later").iterdir():
        shutil.copy(path, scan)
    assert not downloads.plan(frames)
    assert downloads.plan(labels) == {"check_labels": 1, "label": 1}
    downloads.run(labels)
    with Labels(downloads.directory / labels) as file:
        assert file.facts["objects"]


def test_a_scene_that_was_unpacked_is_checked_again_when_it_is_repaired(finished, tmp_path):
    world = finished.clone(tmp_path)
    scene = world.directory / "download/cedar"
    scene.mkdir(parents=True)
    for archive in (world.directory / "results/raw/tiny/cedar").glob("*.zip"):
        with zipfile.ZipFile(archive) as file:
            file.extractall(scene.parent)
    image = next((scene / "undistorted_color_images").iterdir())
    image.rename(tmp_path / image.name)
    world.overlay(download("download"))
    manifest, frames = "results/manifests/real/cedar.json", "results/frames/real/cedar.h5"
    said = world.refuse(frames)
    assert "download/cedar/undistorted_color_images" in said
    assert image.name in said
    assert not json.loads(world.read(manifest))["content"]["ok"]

    (tmp_path / image.name).rename(image)
    assert world.plan(frames) == {"check_scene": 1, "frames": 1}
    world.run(frames)
    assert json.loads(world.read(manifest))["content"]["ok"]
    with Frames(world.directory / frames) as one, Frames(world.directory / "results/frames/tiny/cedar.h5") as other:
        assert one.names == other.names
        np.testing.assert_array_equal(one["rgb"][:], other["rgb"][:])
    assert not world.plan(frames)


def test_pictures_of_a_scene_without_depth(world, tmp_path):
    world = world.clone(tmp_path)
    run = {"splits": ["sparse"], "experiments": ["untrained"], "benchmarks": ["location_consistency"]}
    world.overlay({"run": run, "splits": {"sparse": {"test": {"colmap": ["elm"]}}}, "figures": {"scene": "elm"}})
    picture = "results/figures/sparse/similarity_maps.png"
    world.run(picture)
    assert np.ptp(cv2.imread(str(world.directory / picture))) > 100
    world.run("explorer")
    page = (world.directory / "results/figures/sparse/explorer.html").read_text()
    assert '"unit":"units"' in page  # COLMAP recovers no scale
    assert str(world.directory) not in page
