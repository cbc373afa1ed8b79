"""A wall whose left half is visible in the training images, and the scores of both halves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from loco.evaluation import location_consistency, pixel_correspondence, place_recognition, relative_pose
from loco.evaluation import training_surfaces as surfaces_module
from loco.evaluation.result import EvaluatedScene
from loco.evaluation.training_surfaces import chunks, image_fractions, mostly, pair_fractions, training_surfaces
from loco.storage import Correspondences

REPORT = {"seen_by_training": "report"}
SIZE = (8, 16)  # pixels, and patches
K = np.array([[8.0, 0, 8], [0, 8.0, 4], [0, 0, 1]])  # a pixel of a wall 1 m away is 1/8 m wide


def wall(left: float) -> np.ndarray:
    """Return patches (8, 16, 3), 1/8 m apart, of the wall z = 1, as a camera at x = left sees them."""
    u, v = np.meshgrid(np.arange(16) + 0.5, np.arange(8) + 0.5)
    return np.stack([left + (u - 8) / 8, (v - 4) / 8, np.ones_like(u)], axis=-1)


def cameras(*left: float) -> np.ndarray:
    poses = np.tile(np.eye(4), (len(left), 1, 1))
    poses[:, 0, 3] = left
    return poses


def trained_on(scene: EvaluatedScene, points: np.ndarray, path, valid=None, origin=(0.0, 0.0, 0.0)) -> EvaluatedScene:
    """Return the scene, and a training scene with these patches (n, h, w, 3), relative to an origin."""
    n, h, w, _ = points.shape
    facts = {"extent": (h, w), "names": [f"t{i}" for i in range(n)], "origin": list(origin)}
    with Correspondences.create(path, "test", "training", {"n": n, "h": h, "w": w}, facts, frames_id="x") as file:
        file["points"][:], file["overlap"][:] = points - np.array(origin), np.ones((n, n))
        file["valid"][:] = np.ones((n, h, w), bool) if valid is None else valid
    return replace(scene, training_paths=(*scene.training_paths, path))


@pytest.fixture
def room(make_scene, tmp_path):
    """Views of the wall from x = 0 (images 0 and 1), -1 and 1 m; the training images show it from -1 m, up to x = 0."""
    x = (0.0, 0.0, -1.0, 1.0)
    points = np.stack([wall(left) for left in x])
    rng = np.random.default_rng(0)
    features = np.concatenate([np.cos(3 * points), np.sin(3 * points), 0.1 * rng.random((*points.shape[:3], 2))], -1)
    features /= np.linalg.norm(features, axis=-1, keepdims=True)
    overlap = np.array([[1, 1, 0.5, 0.5], [1, 1, 0.5, 0.5], [0.5, 0.5, 1, 0], [0.5, 0.5, 0, 1]])
    scene = make_scene(cameras(*x), features, points=points, size=SIZE, intrinsics=K, overlap=overlap)
    return trained_on(scene, wall(-1.0)[None], tmp_path / "training.h5")


def test_half_of_the_wall_is_seen(room):
    found = training_surfaces(room, REPORT)
    x = room.correspondences["points"][:][..., 0]
    # The last training patch is centred at x = -1/16; the next patches, at 1/16, 3/16, ..., are 1/8, 1/4, ... m from
    # it.
    np.testing.assert_array_equal(found["seen"], x < 0)
    np.testing.assert_array_equal(found["unseen"], x > 1 / 8)
    near = training_surfaces(room, REPORT | {"seen_within": 0.13, "unseen_beyond": 0.26})
    np.testing.assert_array_equal(near["seen"], x < 1 / 8)
    np.testing.assert_array_equal(near["unseen"], x > 1 / 4)


def test_distances_are_those_of_brute_force_in_trees_of_any_size(make_scene, tmp_path, monkeypatch):
    rng = np.random.default_rng(1)
    points, valid = rng.random((3, 4, 5, 3)).astype(np.float32), rng.random((3, 4, 5)) < 0.8
    features = np.full((3, 4, 5, 4), 0.5)
    scene = make_scene(cameras(0, 1, 2), features, points=points, valid=valid)
    others = [rng.random((2, 3, 4, 3)).astype(np.float32) for _ in range(2)]
    known = [rng.random((2, 3, 4)) < 0.7 for _ in others]
    far = (500_000.0, 4_000_000.0, 0.0)  # stored relative to another origin, in single precision
    for number, (other, mask) in enumerate(zip(others, known)):
        scene = trained_on(
            scene, other + np.array(far) * number, tmp_path / f"{number}.h5", mask, np.array(far) * number
        )
    every = np.concatenate([other[mask] for other, mask in zip([others[0]], known)]).astype(np.float64)
    distance = np.linalg.norm(points[..., None, :].astype(np.float64) - every, axis=-1).min(axis=-1)
    for chunk in (1, 7, 2**20):
        monkeypatch.setattr(surfaces_module, "CHUNK", chunk)
        found = training_surfaces(scene, REPORT | {"seen_within": 0.15, "unseen_beyond": 0.25})
        np.testing.assert_array_equal(found["seen"], valid & (distance <= 0.15))
        np.testing.assert_array_equal(found["unseen"], valid & (distance > 0.25))


def test_the_same_place_under_another_origin_is_seen(room, tmp_path):
    plain = replace(room, training_paths=())
    moved = trained_on(plain, wall(-1.0)[None], tmp_path / "moved.h5", origin=(500_000.0, 4_000_000.0, 100.0))
    for name, mask in training_surfaces(moved, REPORT).items():
        np.testing.assert_array_equal(mask, training_surfaces(room, REPORT)[name])


def test_nothing_is_reported_unless_asked_for_and_known(room):
    assert training_surfaces(room, {}) is None
    assert training_surfaces(replace(room, training_paths=()), REPORT) is None


def test_chunks_hold_all_rows_in_order():
    parts = [np.arange(start, start + length) for start, length in ((0, 3), (3, 0), (3, 5), (8, 1), (9, 2))]
    found = list(chunks(parts, 4))
    np.testing.assert_array_equal(np.concatenate(found), np.arange(11))
    assert [len(part) for part in found] == [8, 3]
    assert list(chunks([np.empty(0)], 4)) == []


def test_fractions_of_images_and_of_what_two_share(room):
    found = training_surfaces(room, REPORT)
    assert image_fractions(room, found, 0) == (0.5, 7 / 16)  # the column at 1/16 is neither seen nor unseen
    assert image_fractions(room, found, 2) == (1.0, 0.0)
    assert pair_fractions(room, found, (0, 2), 0.05) == (1.0, 0.0)  # both images show the left half of image 0
    assert pair_fractions(room, found, (0, 3), 0.05) == (0.0, 7 / 8)
    assert pair_fractions(room, found, (2, 3), 0.05) == (None, None)
    assert image_fractions(room, None, 0) == pair_fractions(room, None, (0, 1), 0.05) == (None, None)


def test_more_than_half_is_mostly():
    items = {"seen": [1.0, 0.5, 0.0, None], "unseen": [0.0, 0.5, 0.6, None]}
    assert mostly(items, range(4)) == {"mostly seen": [0], "mostly unseen": [2]}
    assert mostly({"seen": [None], "unseen": [None]}, [0]) == mostly({}, []) == {}


def test_location_consistency_by_surface(room):
    settings = {"radii": [2.0], "weights": ["uniform"], "queries_per_scene": 200, "samples_per_query": 50}
    plain = location_consistency.evaluate([room], settings)
    rows = {row.condition: row for row in location_consistency.evaluate([room], settings | REPORT).rows}
    assert list(rows) == ["2 m, uniform", "2 m, uniform, seen", "2 m, uniform, unseen"]
    assert rows["2 m, uniform"] == plain.rows[0]
    items = location_consistency.evaluate([room], settings | REPORT).items
    counts = {
        name: sum(n for n, of in zip(items["n_queries"], items["surface"]) if of == name) for name in ("seen", "unseen")
    }
    assert counts["seen"] == pytest.approx(100, abs=30)
    assert counts["unseen"] == pytest.approx(93.75, abs=30)
    assert {image for image, of in zip(items["image"], items["surface"]) if of == "seen"} == {"view0", "view1", "view2"}
    # All queries except those in the column between them are seen or unseen.
    assert counts["seen"] + counts["unseen"] < 200
    assert rows["2 m, uniform, seen"].n == 3
    without = location_consistency.evaluate([replace(room, training_paths=())], settings | REPORT)
    assert without.rows == plain.rows


def test_pixel_correspondence_by_surface(room):
    """Features that match the left half of the wall at its location, and the right half at the mirrored location."""
    settings = {"rotation_bins": [0, 180], "thresholds": [0.5], "matches": 64, "pairs_per_bin": 9}
    settings |= {"min_overlap": 0.9, "min_baseline": 0.0}
    plain = pixel_correspondence.evaluate([room], settings)
    result = pixel_correspondence.evaluate([room], settings | REPORT)
    rows = {(row.metric, row.condition): row for row in result.rows}
    assert rows["recall@0.5px", "all"] == plain.rows[-1]
    # Half of the 128 points of a pair are kept: 32 of 64 seen points, 28 of 56 unseen points.
    assert result.items["n_matches"] == [64]
    assert result.items["n_matches, seen surfaces"] == [32]
    assert result.items["n_matches, unseen surfaces"] == [28]
    assert ("recall@0.5px, unseen surfaces", "all") in rows
    without = pixel_correspondence.evaluate([replace(room, training_paths=())], settings | REPORT)
    assert without.rows == plain.rows


def test_the_surface_of_a_match_is_that_of_its_point_in_the_first_image(make_scene, tmp_path):
    # The right half of image B has the features of the left half, so its points are found 8 pixels too far left.
    rng = np.random.default_rng(0)
    one = rng.normal(size=(*SIZE, 64))
    two = one.copy()
    two[:, 8:] = rng.normal(size=(8, 8, 64))
    one[:, 8:] = one[:, :8] + 1e-3
    features = np.stack([one, two])
    features /= np.linalg.norm(features, axis=-1, keepdims=True)
    points = np.stack([wall(0.0), wall(0.0)])
    scene = make_scene(cameras(0, 0), features, points=points, size=SIZE, intrinsics=K)
    scene = trained_on(scene, wall(-1.0)[None], tmp_path / "training.h5")
    settings = {"rotation_bins": [0, 180], "thresholds": [1], "matches": 1000, "pairs_per_bin": 9}
    result = pixel_correspondence.evaluate([scene], settings | REPORT | {"min_overlap": 0.9, "min_baseline": 0.0})
    items = result.items
    assert (items["n_matches, seen surfaces"], items["n_matches, unseen surfaces"]) == ([64], [56])
    assert (items["recall@1px, seen surfaces"], items["recall@1px, unseen surfaces"]) == ([1.0], [0.0])


def test_relative_pose_and_place_recognition_by_what_is_mostly_seen(room):
    settings = {"overlap_bins": [0.1, 1.0], "pairs_per_bin": 9, "min_baseline": 0.5, "methods": ["essential"]}
    settings |= {"matches": 50, "iterations": 100, "inlier_pixels": 1.0, "auc": [5]}
    result = relative_pose.evaluate([room], settings | REPORT)
    rows = {row.condition: row.n for row in result.rows if row.metric == "AUC@5deg, essential"}
    assert rows == {"overlap 0.1-1": 4, "all": 4, "mostly seen": 2, "mostly unseen": 2}
    assert [row for row in result.rows if "mostly" not in row.condition] == relative_pose.evaluate(
        [room], settings
    ).rows

    settings = {"queries": 4, "min_overlap": 0.2, "max_overlap": 0.9, "max_distance": 5.0, "ks": [1]}
    settings |= {"descriptors": [{"name": "mean"}], "accuracy": True}
    result = place_recognition.evaluate([room], settings | REPORT)
    columns = {name: result.items[name] for name in ("query", "seen", "unseen")}
    assert columns == {
        "query": ["view0", "view1", "view2", "view3"],
        "seen": [0.5, 0.5, 1.0, 0.0],
        "unseen": [7 / 16, 7 / 16, 0.0, 15 / 16],
    }
