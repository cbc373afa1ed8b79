"""Every raw layout through the real workflow: simulated, checked, prepared, and its patches put in space."""

from __future__ import annotations

import numpy as np
import pytest

from loco.storage import Correspondences, Frames, Labels

pytestmark = pytest.mark.xdist_group("workflow")

FORMATS = ("scannet", "seven_scenes", "tum_rgbd", "posed_rgbd", "colmap")
SIMULATE = {"seed": 1, "rooms": 1, "images": 12, "image": {"height": 96, "width": 128}, "repetition": 0.3}


@pytest.fixture(scope="module")
def world(finished, tmp_path_factory):
    """One small scene of every layout, up to its correspondences."""
    world = finished.clone(tmp_path_factory.mktemp("formats"))
    tiny = {
        "check": {"decode": "all"},
        "frames": {"height": 48, "width": 64, "images": "all", "max_hole_fraction": 0.9},
        "patches": {"stride": 4, "overlap_tolerance": 0.05},
        "scenes": ["elm"],
    }
    datasets = {
        name: {**tiny, "format": name, "raw": f"results/raw/{name}", "simulate": dict(SIMULATE)} for name in FORMATS
    }
    for name in ("posed_rgbd", "colmap"):  # whose surfaces and points must be seen by several images
        datasets[name]["simulate"]["images"] = 24
    datasets["scannet"]["simulate"]["lost_poses"] = 2
    datasets["scannet"]["labels"] = {"mapping": "config/labels/simulated.tsv"}
    datasets["posed_rgbd"]["fuse"] = {"voxel": 0.05, "max_depth": 5.0}
    datasets["posed_rgbd"]["frames"] = {**tiny["frames"], "max_overlap": 0.7}
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
        assert 0 < len(frames.facts["thinned"]) == 24 - len(frames) - len(frames.facts["dropped"])
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
