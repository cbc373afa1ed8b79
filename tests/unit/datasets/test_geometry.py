"""The geometric self-check of raw scenes: faults in the files of simulated recordings are found and named."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from loco.datasets import check_scene
from loco.datasets.geometry import _EXPLANATIONS, ANCHORS, _factor, sample
from loco.simulate import simulate_scene
from loco.simulate.raw_scannet import export_scannet
from loco.simulate.rewrite import reorder_poses, reverse_axes, rewrite_depth, rewrite_intrinsics, rewrite_poses

IMAGE = {"height": 48, "width": 64}
WALK = {"seed": 4, "rooms": 1, "repetition": 0.5, "images": 20, "image": IMAGE}
PANORAMA = {"seed": 4, "rooms": 1, "repetition": 0.5, "panoramas": 2, "image": IMAGE}
FORMATS = ("posed_rgbd", "seven_scenes", "tum_rgbd", "nerfstudio", "scannet", "matterport3d", "colmap")
FAULTS = {
    "-to-": lambda f, folder: rewrite_poses(f, folder, "house", np.linalg.inv),
    "camera axes": lambda f, folder: reverse_axes(f, folder, "house"),
    "5 times too small": lambda f, folder: rewrite_depth(f, folder, 0.2),
    "shuffled": lambda f, folder: reorder_poses(f, folder, "house", np.random.default_rng(0).permutation),
    "the intrinsics appear to be": lambda f, folder: rewrite_intrinsics(f, folder, 0.8),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder per format, each with the scene `house`."""
    folder = tmp_path_factory.mktemp("made")
    for format in FORMATS:
        house = folder / format / "house"
        simulate_scene(format, house, "house", PANORAMA if format == "matterport3d" else WALK)
    export_scannet(folder / "scannet/house/house.sens", folder / "scannet/house")
    (folder / "scannet/house/house.sens").unlink()
    return folder


@pytest.mark.parametrize("format", FORMATS)
def test_correct_recordings_pass(made: Path, format: str) -> None:
    manifest = check_scene(format, made / format, "house", "sample")
    assert manifest["ok"], manifest["problems"]
    found = manifest["geometry"]
    assert found["consistency"] > 0.95
    assert found["pairs"] > 10
    assert format == "colmap" or found["error_cm"] < 3
    assert "fault" not in found


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_named(made: Path, tmp_path: Path, format: str, name: str) -> None:
    shutil.copytree(made / format / "house", tmp_path / "house")
    FAULTS[name](format, tmp_path / "house")
    manifest = check_scene(format, tmp_path, "house", "sample")
    problem = manifest["problems"][0]
    if "belong" in problem and "of another size" in problem:  # the principal point is sufficient to detect a resize
        assert name == "the intrinsics appear to be"
        return
    assert name in problem
    assert "check.accept_geometry" in problem
    assert manifest["geometry"]["fault"]
    if name == "5 times too small" and format in ("posed_rgbd", "seven_scenes", "nerfstudio"):
        assert re.search(r"1000 units per metre, and about 20\d would be consistent: correct `depth_scale`", problem)


def test_an_accepted_scene_has_a_note(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "posed_rgbd/house", tmp_path / "house")
    FAULTS["-to-"]("posed_rgbd", tmp_path / "house")
    manifest = check_scene("posed_rgbd", tmp_path, "house", "sample", accept_geometry=True)
    assert manifest["ok"]
    assert any("world-to-camera" in note for note in manifest["notes"])
    assert manifest["geometry"]["fault"] == "inverse"
    assert manifest["geometry"]["repaired"]["consistency"] > 0.95 > manifest["geometry"]["consistency"]


def test_frames_are_sampled_with_their_neighbours() -> None:
    poses = np.tile(np.eye(4), (500, 1, 1))
    poses[:, 0, 3] = np.arange(500) % 250  # the second half of the camera path passes the locations of the first half
    poses[250:, 1, 3] = 1.5
    chosen = sample(poses)
    assert len(chosen) <= 4 * ANCHORS
    assert (np.diff(chosen) > 0).all()
    anchors = np.linspace(0, 499, ANCHORS).round().astype(int)
    assert np.isin(anchors, chosen).all()
    assert np.isin((anchors[:-1] + 250) % 500, chosen).mean() > 0.7  # loop closures
    assert np.array_equal(sample(poses[: 3 * ANCHORS]), np.arange(3 * ANCHORS))


def write_flat(folder: Path, value: int, apart: float = 0.0) -> Path:
    """Write three frames of posed_rgbd with constant depth, whose cameras are ``apart`` metres from each other."""
    house = folder / "house"
    poses = np.tile(np.eye(4), (3, 1, 1))
    poses[:, 0, 3] = apart * np.arange(3)
    for kind, image in (("color", np.zeros((48, 64, 3), np.uint8)), ("depth", np.full((48, 64), value, np.uint16))):
        (house / kind).mkdir(parents=True)
        for k in range(3):
            cv2.imwrite(str(house / kind / f"{k}.png"), image)
    np.savetxt(house / "poses.txt", poses.reshape(-1, 16))
    np.savetxt(house / "K.txt", [[50, 0, 31.5], [0, 50, 23.5], [0, 0, 1]])
    return folder


@pytest.mark.parametrize(("value", "noted"), [(5000, False), (30000, True)])
def test_depth_beyond_the_default_limit_is_noted(tmp_path: Path, value: int, noted: bool) -> None:
    manifest = check_scene("posed_rgbd", write_flat(tmp_path, value), "house", "sample")
    assert manifest["ok"], manifest["problems"]
    assert any("100% of the measured depth" in note for note in manifest.get("notes", [])) == noted


@pytest.mark.parametrize(("value", "scale", "median"), [(2000, 1.0, "2e+03 m"), (2, 1000.0, "0.002 m")])
def test_depth_of_a_wrong_unit_is_refused(tmp_path: Path, value: int, scale: float, median: str) -> None:
    """Millimetres that are read as metres, and metres that were rounded and are read as millimetres."""
    manifest = check_scene("posed_rgbd", write_flat(tmp_path, value), "house", "sample", {"depth_scale": scale})
    (problem,) = manifest["problems"]
    assert f"the depth has a median of {median}" in problem
    assert "depth_scale" in problem


@pytest.mark.parametrize("value", [0, 65535])
def test_scenes_without_any_depth_are_refused(tmp_path: Path, value: int) -> None:
    (problem,) = check_scene("posed_rgbd", write_flat(tmp_path, value), "house", "sample")["problems"]
    assert "none of the sampled frames has valid depth" in problem


def test_frames_that_could_not_be_compared_are_noted(tmp_path: Path) -> None:
    manifest = check_scene("posed_rgbd", write_flat(tmp_path, 1000, apart=1e6), "house", "sample")
    assert manifest["ok"]
    assert any("0 pairs: the frames could not be compared" in note for note in manifest["notes"])


def test_no_cause_is_claimed_that_was_not_tested() -> None:
    cause, remedy = _EXPLANATIONS["unknown"](1.0)
    assert "none of the tested errors explains it" in cause
    for word in ("shuffled", "quaternions", "transposed", "mirrored", "along the ray", "crops"):
        assert word in cause + remedy


def test_factors_are_written_as_numbers() -> None:
    assert [_factor(x) for x in (1000.0, 1e-3, 1.5)] == [
        "1000 times too small",
        "1000 times too large",
        "1.5 times too small",
    ]


def test_the_remedy_of_eight_bit_depth_names_the_format(tmp_path: Path) -> None:
    write_flat(tmp_path, 1000)
    cv2.imwrite(str(tmp_path / "house/depth/0.png"), np.full((48, 64), 9, np.uint8))
    (problem,) = check_scene("posed_rgbd", tmp_path, "house", "sample")["problems"]
    assert "write 16-bit PNGs with one channel of z-depth" in problem
