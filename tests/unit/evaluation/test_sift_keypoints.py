"""Keypoints of images with known blobs, and of a textured room seen from known poses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from loco.evaluation import relative_pose
from loco.evaluation.relative_pose import mutual_matches
from loco.evaluation.sift_keypoints import detect, min_score
from loco.geometry.cameras import pixel_centres

SIZE = (240, 320)
INTRINSICS = np.array([[260.0, 0, 160], [0, 260, 120], [0, 0, 1]])
HALF = np.array([1.6, 1.1, 1.8])  # a room of 3.2 x 2.2 x 3.6 m around the origin
SETTINGS = {
    "overlap_bins": [0.1, 1.0],
    "pairs_per_bin": 10,
    "min_baseline": 0.1,
    "methods": ["rigid", "essential"],
    "matches": 300,
    "iterations": 500,
    "inlier_distance": 0.05,
    "inlier_pixels": 1.0,
    "auc": [5],
}


def room(pose):
    """Return depth (h, w) and image (h, w, 3) of the room: its walls cut through a volume of noise, 4 cm per cell."""
    uv = pixel_centres(*SIZE)
    rays = np.concatenate([uv, np.ones_like(uv[..., :1])], axis=-1) @ np.linalg.inv(INTRINSICS).T @ pose[:3, :3].T
    z = ((np.sign(rays) * HALF - pose[:3, 3]) / rays).min(axis=-1)
    points = pose[:3, 3] + z[..., None] * rays
    noise = np.random.default_rng(0).random((100, 100, 100))
    grey = map_coordinates(noise, np.moveaxis((points + 2) / 0.04, -1, 0), order=1)
    return z, np.repeat((255 * grey).astype(np.uint8)[..., None], 3, axis=-1)


@pytest.fixture
def scene(make_scene, turned):
    """Return two images of the room, 12 degrees and 0.36 m apart, of which only keypoints are evaluated."""
    poses = np.stack([turned(40), turned(52, (0.3, 0.1, -0.15))])
    depth, rgb = (np.stack(parts) for parts in zip(*map(room, poses)))
    features = np.full((2, 1, 1, 4), 0.5)
    made = make_scene(poses, features, depth=depth, rgb=rgb, size=SIZE, intrinsics=INTRINSICS)
    return replace(made, features_path=None, keypoints={"name": "sift_keypoints"})


def test_the_keypoint_of_a_blob_is_at_its_centre():
    centre = np.array([50.8, 31.3])  # (u, v); the first pixel is centred at 0.5
    square = ((pixel_centres(64, 96) - centre) ** 2).sum(axis=-1)
    blob = (200 * np.exp(-square / (2 * 3.0**2))).astype(np.uint8)
    uv, descriptors = detect(np.repeat(blob[..., None], 3, axis=-1))
    assert np.linalg.norm(uv - centre, axis=1).min() < 0.1
    torch.testing.assert_close(descriptors.norm(dim=1), torch.ones(len(uv)), atol=1e-5, rtol=0)


def test_an_image_without_texture_has_no_keypoints():
    uv, descriptors = detect(np.full((48, 64, 3), 128, np.uint8))
    assert uv.shape == (0, 2)
    assert descriptors.shape == (0, 128)


def test_the_number_of_keypoints_is_limited():
    _, rgb = room(np.eye(4))
    assert len(detect(rgb, 20)[0]) <= 21  # OpenCV returns several orientations of the last position
    assert len(detect(rgb)[0]) > 200


def test_the_ratio_is_that_of_euclidean_distances():
    rng = np.random.default_rng(0)
    one, two = (torch.nn.functional.normalize(torch.from_numpy(rng.random((60, 6))).float(), dim=1) for _ in "ab")
    matches = mutual_matches(one, two, 100, rng)
    distance = np.sort(torch.cdist(one.double(), two.double()).numpy(), axis=1)[matches.a]
    kept = matches.ratio > min_score(0.8)
    assert 0 < kept.sum() < len(kept)
    np.testing.assert_array_equal(kept, distance[:, 0] < 0.8 * distance[:, 1])


def test_keypoints_find_the_pose(scene):
    items = relative_pose.evaluate([scene], SETTINGS).items
    assert items["method"] == ["rigid", "essential"]
    assert min(items["n_inliers"]) > 40
    rigid, essential = zip(items["rotation_error"], items["direction_error"])
    assert max(rigid[0], essential[0]) < 0.3
    assert max(rigid[1], essential[1]) < 2
    assert items["translation_error"][0] < 0.01


def test_keypoints_in_holes_are_not_lifted(scene, make_scene):
    depth = scene.frames["depth"][:]
    depth[:, :, :160] = 0
    parts = {name: scene.frames[name][:] for name in ("rgb", "pose")}
    holes = make_scene(
        parts["pose"], np.full((2, 1, 1, 4), 0.5), depth=depth, rgb=parts["rgb"], size=SIZE, intrinsics=INTRINSICS
    )
    holes = replace(holes, features_path=None, keypoints={})
    whole, part = (relative_pose.evaluate([s], SETTINGS).items["n_matches"] for s in (scene, holes))
    assert part[1] == whole[1]
    assert 0 < part[0] < whole[0]


def test_a_stricter_ratio_leaves_fewer_matches(scene):
    strict = replace(scene, keypoints={"ratio": 0.5, "max_keypoints": 500})
    loose = replace(scene, keypoints={"ratio": 1.0, "max_keypoints": 500})
    few, many = (relative_pose.evaluate([s], SETTINGS).items["n_matches"][1] for s in (strict, loose))
    assert few < many


def test_images_without_texture_have_no_answer(scene, make_scene):
    plain = make_scene(scene.frames["pose"][:], np.full((2, 1, 1, 4), 0.5), size=SIZE, intrinsics=INTRINSICS)
    items = relative_pose.evaluate([replace(plain, features_path=None, keypoints={})], SETTINGS).items
    assert items["n_matches"] == [0, 0]
    assert items["rotation_error"] == [None, None]
