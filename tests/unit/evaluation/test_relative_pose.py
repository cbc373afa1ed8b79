from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch.nn.functional import normalize

from loco.errors import DataError
from loco.evaluation import neighbours, relative_pose
from loco.evaluation.intervals import Item
from loco.evaluation.relative_pose import (
    direction_angle,
    draw_pairs,
    mutual_matches,
    samples,
)
from loco.geometry.cameras import pixel_centres
from loco.geometry.patches import patch_centres
from loco.storage import Frames

SIZE = (48, 64)
INTRINSICS = np.array([[50.0, 0, 32], [0, 50, 24], [0, 0, 1]])
HALF = np.array([1.6, 1.1, 1.8])  # a room of 3.2 x 2.2 x 3.6 m, centred at the origin of the world
SETTINGS = {
    "overlap_bins": [0.1, 0.5, 1.0],
    "pairs_per_bin": 10,
    "min_baseline": 0.1,
    "methods": ["rigid", "essential"],
    "matches": 300,
    "iterations": 500,
    "inlier_distance": 0.1,
    "inlier_pixels": 1.0,
    "auc": [5, 10, 20],
}


def motion(degrees, axis=(0.3, 1, 0.2), translation=(0.4, -0.1, 0.3)):
    """(4, 4)."""
    found = np.eye(4)
    found[:3, :3] = Rotation.from_rotvec(np.radians(degrees) * np.array(axis) / np.linalg.norm(axis)).as_matrix()
    found[:3, 3] = translation
    return found


def seen(pose, uv):
    """Return z-depths (...) and points (..., 3) of the walls of the room, exactly at pixels (..., 2)."""
    rays = np.concatenate([uv, np.ones_like(uv[..., :1])], axis=-1) @ np.linalg.inv(INTRINSICS).T @ pose[:3, :3].T
    with np.errstate(divide="ignore"):
        z = ((np.sign(rays) * HALF - pose[:3, 3]) / rays).min(axis=-1)
    return z, pose[:3, 3] + z[..., None] * rays


def encoding(points, channels=64):
    """Return a smooth unit feature that depends on the location only."""
    phase = points @ np.random.default_rng(3).normal(0, 3, (3, channels))
    return np.concatenate([np.cos(phase), np.sin(phase)], axis=-1) / np.sqrt(channels)


def views(make_scene, poses, grid=SIZE, **changes):
    depth = [seen(pose, pixel_centres(*SIZE))[0] for pose in poses]
    features = [encoding(seen(pose, patch_centres(grid, SIZE))[1]) for pose in poses]
    content = {"features": np.stack(features), "depth": np.stack(depth)} | changes
    return make_scene(np.stack(poses), intrinsics=INTRINSICS, size=SIZE, **content)


CORNER = motion(45, axis=(0.5, 1, 0), translation=(0, 0, 0))  # all cameras look into one corner, at several walls
POSES = [CORNER @ motion(*m) for m in ((0,), (12, (0, 1, 0.2), (0.9, 0, 0)), (-15, (0.1, 1, 0), (0, 0.3, 0.6)))]


def table(result):
    return {(row.metric, row.condition): row for row in result.rows}


def test_matches_equal_brute_force(monkeypatch):
    monkeypatch.setattr(relative_pose, "BLOCK", 37)
    monkeypatch.setattr(neighbours, "BLOCK", 41)
    generator = torch.Generator().manual_seed(0)
    a, b = (normalize(torch.randn(m, 6, generator=generator), dim=1) for m in (200, 150))
    similarity = (a.double() @ b.double().T).numpy()
    nearest = similarity.argmax(axis=1)
    mutual = np.flatnonzero(similarity.argmax(axis=0)[nearest] == np.arange(200))
    first, second = 1 - np.sort(similarity, axis=1)[mutual, -2:][:, ::-1].T
    order = np.argsort(first / second)
    assert 60 < len(mutual) < 150
    for count in (20, 1000):
        found = mutual_matches(a, b, count, np.random.default_rng(0))
        np.testing.assert_array_equal(found.a, mutual[order][:count])
        np.testing.assert_array_equal(found.b, nearest[mutual][order][:count])
        np.testing.assert_allclose(found.similarity, 1 - first[order][:count], atol=1e-6)
        np.testing.assert_allclose(found.ratio, (1 - first / second)[order][:count], atol=1e-5)


def test_equally_good_matches_are_chosen_at_random():
    found = mutual_matches(torch.eye(50), torch.eye(50), 10, np.random.default_rng(0))
    np.testing.assert_array_equal(found.a, found.b)
    assert found.a.max() > 25
    constant = torch.ones(50, 1)
    assert [len(column) for column in mutual_matches(constant, constant, 10, np.random.default_rng(0))] == [1] * 4


def test_without_a_second_nearest_there_is_no_match():
    found = mutual_matches(torch.eye(3), torch.eye(3)[:1], 10, np.random.default_rng(0))
    assert [len(column) for column in found] == [0] * 4


@pytest.mark.parametrize("degrees", [0, 1e-6, 1, 90, 179, 180 - 1e-6, 180])
def test_direction_angle(degrees):
    found = 3 * np.array([np.cos(np.radians(degrees)), 0, np.sin(np.radians(degrees))])
    assert direction_angle(found, np.array([0.2, 0, 0])) == pytest.approx(degrees, abs=1e-12)


def test_direction_angle_of_nothing():
    assert direction_angle(np.ones(3), np.zeros(3)) == 0
    assert direction_angle(np.zeros(3), np.ones(3)) == 90


def test_the_sign_of_an_essential_matrix_s_translation_is_left_open():
    truth, opposite = motion(30), motion(30)
    opposite[:3, 3] *= -2
    turn, place, direction = relative_pose._errors("rigid", (opposite, 9), truth)
    assert (turn, direction) == (pytest.approx(0, abs=1e-6), pytest.approx(180))
    assert place == pytest.approx(3 * np.linalg.norm(truth[:3, 3]))
    assert relative_pose._errors("essential", (opposite, 9), truth)[1:] == (None, pytest.approx(0, abs=1e-6))


@pytest.mark.parametrize("cell", [1, 2, 4])
def test_features_of_the_place_find_the_pose(make_scene, cell):
    """Accurate up to the grid: a cell of 1 px is 1.1 degrees wide, and many matches reduce the error below this."""
    scene = views(make_scene, POSES, grid=(SIZE[0] // cell, SIZE[1] // cell))
    result = relative_pose.evaluate([scene], SETTINGS | {"inlier_distance": 0.1 * cell, "inlier_pixels": cell})
    rows = table(result)
    assert rows["rotation error, rigid", "all"].value < 1.1 * cell
    assert rows["translation error, rigid", "all"].value < 0.03 * cell
    assert rows["AUC@20deg, rigid", "all"].value > 0.8 - 0.05 * cell
    assert min(result.items["n_inliers"]) > 20
    if cell == 1:  # the fine structure that separates rotation from translation is lost on a coarser grid
        assert rows["rotation error, essential", "all"].value < 1
        assert rows["direction error, essential", "all"].value < 2
    units = {row.metric.split(" error")[0]: row.unit for row in result.rows}
    assert (units["rotation"], units["translation"], units["direction"]) == ("deg", "m", "deg")
    assert rows["AUC@5deg, essential", "all"].unit == "%"


def test_refined_positions_give_better_poses(make_scene):
    """With equal features and pairs on a grid of 4 px, similarities have their peak at the true position."""
    scene = views(make_scene, POSES, grid=(SIZE[0] // 4, SIZE[1] // 4))
    wanted = SETTINGS | {"inlier_distance": 0.3, "inlier_pixels": 3}
    plain = relative_pose.evaluate([scene], wanted)
    assert relative_pose.evaluate([scene], wanted | {"refine": "none", "weights": "none"}) == plain
    for method in ("parabola", "soft_argmax"):
        refined = relative_pose.evaluate([scene], wanted | {"refine": method})
        for column in ("scene", "a", "b", "method"):
            assert refined.items[column] == plain.items[column]
        before, after = ([rows.items["rotation_error"][n] for n in (0, 2, 4)] for rows in (plain, refined))
        assert np.mean(after) < 0.75 * np.mean(before)


@pytest.mark.parametrize("kind", ["similarity", "ratio"])
def test_weighted_poses_of_good_features_are_right(make_scene, kind):
    rows = table(relative_pose.evaluate([views(make_scene, POSES)], SETTINGS | {"weights": kind}))
    assert rows["rotation error, rigid", "all"].value < 0.5
    assert rows["rotation error, essential", "all"].value < 1


def test_equal_images_are_at_one_place(make_scene):
    scene = views(make_scene, [POSES[0], POSES[0]])
    result = relative_pose.evaluate([scene], SETTINGS | {"min_baseline": 0.0, "methods": ["rigid"]})
    assert result.items["rotation_error"] == [pytest.approx(0, abs=1e-4)]
    assert result.items["translation_error"] == [pytest.approx(0, abs=1e-5)]
    assert result.items["direction_error"] == [0]


def test_meaningless_features_do_not(make_scene):
    features = np.random.default_rng(0).normal(size=(3, 12, 16, 16))
    rows = table(relative_pose.evaluate([views(make_scene, POSES, features=features)], SETTINGS))
    assert rows["AUC@20deg, rigid", "all"].value < 0.3
    assert rows["AUC@20deg, essential", "all"].value < 0.3


def test_pairs_without_enough_matches_are_counted_as_failures(make_scene):
    scene = views(make_scene, POSES, features=np.ones((3, 12, 16, 4)) / 2)
    result = relative_pose.evaluate([scene], SETTINGS)
    assert set(result.items["rotation_error"]) == set(result.items["direction_error"]) == {None}
    assert set(result.items["n_matches"]) <= {0, 1}
    rows = table(result)
    failed = rows["translation error, rigid", "all"]
    assert (failed.value, failed.low, failed.high, failed.n) == (None, None, None, 3)
    assert rows["AUC@20deg, essential", "all"].value == 0
    assert rows["AUC@20deg, essential", "all"].n == 3


def test_only_observed_depth_is_lifted(make_scene):
    source = np.full((3, *SIZE), Frames.SOURCES.index("sensor"))
    source[1, 20:], source[2] = Frames.SOURCES.index("inpainted"), Frames.SOURCES.index("mesh")
    result = relative_pose.evaluate([views(make_scene, POSES, source=source)], SETTINGS)
    rigid = slice(0, None, 2)
    assert result.items["method"][rigid] == ["rigid"] * 3
    lifted = dict(zip(zip(result.items["a"][rigid], result.items["b"][rigid]), result.items["n_matches"][rigid]))
    assert lifted["view0", "view2"] > 250
    assert 10 < lifted["view0", "view1"] < 150
    assert 10 < lifted["view1", "view2"] < 150
    assert min(result.items["n_matches"][1::2]) == 300


def test_a_sparse_scene_is_asked_for_essential_matrices_alone(make_scene, monkeypatch):
    monkeypatch.setattr(Frames, "sparse", True)
    result = relative_pose.evaluate([views(make_scene, POSES)], SETTINGS)
    assert result.items["method"] == ["essential"] * 3
    rows = table(result)
    assert rows["rotation error, rigid", "all"].n == 0
    assert rows["rotation error, essential", "all"].value < 1


def test_methods_answer_as_alone(make_scene):
    scene = views(make_scene, POSES[:2], grid=(12, 16))
    both = relative_pose.evaluate([scene], SETTINGS)
    alone = [relative_pose.evaluate([scene], SETTINGS | {"methods": [method]}) for method in SETTINGS["methods"]]
    for name, column in both.items.items():
        assert column == [entry for result in alone for entry in result.items[name]]
    assert both.rows == [row for result in alone for row in result.rows]
    assert both == relative_pose.evaluate([scene], SETTINGS)


def named_pairs(make_scene, pairs, poses=POSES):
    truth = {
        "pairs": [
            {"a": f"view{a}", "b": f"view{b}", "pose_a_to_b": (np.linalg.inv(poses[b]) @ poses[a]).tolist()}
            for a, b in pairs
        ]
    }
    scene = views(make_scene, poses, grid=(24, 32), separate=True, ground_truth=truth)
    return scene


def test_pairs_that_a_dataset_names_are_all_taken(make_scene):
    scene = named_pairs(make_scene, [(2, 0), (0, 1)])
    wanted = SETTINGS | {"rotation_bins": [0, 14, 180], "pairs_per_bin": 1, "inlier_pixels": 2}
    result = relative_pose.evaluate([scene], wanted)
    assert list(zip(result.items["a"], result.items["b"]))[::2] == [("view2", "view0"), ("view0", "view1")]
    assert result.items["angle"][::2] == [pytest.approx(15), pytest.approx(12)]
    assert set(result.items["overlap"]) == {None}
    rows = table(result)
    assert [condition for metric, condition in rows if metric == "AUC@5deg, rigid"] == ["0-14 deg", "14-180 deg", "all"]
    assert [rows["AUC@5deg, rigid", condition].n for condition in ("0-14 deg", "14-180 deg", "all")] == [1, 1, 2]
    assert rows["rotation error, rigid", "all"].value < 1
    del wanted["rotation_bins"]
    unbinned = relative_pose.evaluate([scene], wanted)
    assert unbinned.items == result.items
    assert {row.condition for row in unbinned.rows} == {"all"}


def test_pairs_of_images_that_are_not_there_are_refused(make_scene):
    scene = named_pairs(make_scene, [(0, 1)])
    scene.frames.facts["ground_truth"]["pairs"][0]["b"] = "elsewhere"
    with pytest.raises(DataError, match="elsewhere"):
        relative_pose.evaluate([scene], SETTINGS)


def small_scene(make_scene, scene, n, seed=0):
    rng = np.random.default_rng(seed)
    poses = np.tile(np.eye(4), (n, 1, 1))
    poses[:, 0, 3] = np.arange(n) // 2  # two images per place
    overlap = np.random.default_rng(9).random((n, n))
    return make_scene(poses, rng.normal(size=(n, 2, 2, 3)), overlap=overlap, scene=scene)


def test_pairs_are_spread_over_bins_and_scenes(make_scene):
    scenes = [small_scene(make_scene, name, n) for name, n in (("few", 4), ("many", 30), ("more", 40))]
    wanted = SETTINGS | {"overlap_bins": [0, 0.4, 0.6, 1], "pairs_per_bin": 20}
    pairs = draw_pairs(scenes, wanted, seed=0)
    few = scenes[0].correspondences["overlap"][:]
    mutual = [(few[a, b] + few[b, a]) / 2 for a, b in ((0, 2), (0, 3), (1, 2), (1, 3))]  # the other two share a place
    counts = Counter((int(np.digitize(pair.overlap, [0.4, 0.6])), pair.scene) for pair in pairs)
    for number, count in Counter(np.digitize(mutual, [0.4, 0.6]).tolist()).items():
        assert counts[number, 0] == min(count, 7)
    assert all(sum(counts[number, s] for s in range(3)) == 20 for number in range(3))
    assert all(abs(counts[number, 1] - counts[number, 2]) <= 1 for number in range(3))
    assert len({(pair.scene, pair.a, pair.b) for pair in pairs}) == len(pairs)
    assert all(pair.a < pair.b and pair.a // 2 != pair.b // 2 for pair in pairs)
    for pair in pairs:
        np.testing.assert_allclose(pair.a_to_b[:3, 3], [pair.a // 2 - pair.b // 2, 0, 0])


def test_pairs_depend_on_seed_and_scene_alone(make_scene):
    def drawn(scene, seed=0):
        return [(pair.a, pair.b) for pair in draw_pairs([scene], SETTINGS, seed)]

    first, other = (small_scene(make_scene, name, 30) for name in ("first", "other"))
    alike = small_scene(make_scene, "first", 30, seed=1)  # the same scene, other features
    assert drawn(first) == drawn(alike)
    assert drawn(first) != drawn(other)
    assert drawn(first) != drawn(first, seed=1)


def by_hand():
    return {
        "scene": ["s"] * 8,
        "a": list("00001111"),
        "b": list("12341234"),
        "angle": [1.0] * 8,
        "baseline": [1.0] * 8,
        "overlap": [0.1, 0.2, 0.5, 1.0] * 2,
        "method": ["rigid"] * 4 + ["essential"] * 4,
        "n_matches": [9] * 8,
        "n_inliers": [9] * 8,
        "rotation_error": [0.0, 2.0, 10.0, None, 1.0, 2.0, 3.0, 4.0],
        "translation_error": [0.1, 0.2, 0.4, None, None, None, None, None],
        "direction_error": [0.0, 2.5, 1.0, None, 4.0, 3.0, 2.0, 1.0],
    }


def test_medians_and_areas_by_hand():
    found = {(s.metric, s.condition): s for s in samples(by_hand(), SETTINGS)}
    rows = {key: sample.row() for key, sample in found.items()}
    assert rows["AUC@5deg, rigid", "all"].value == pytest.approx((1 + 0.5 + 0 + 0) / 4)
    assert rows["AUC@20deg, rigid", "all"].value == pytest.approx((1 + 0.875 + 0.5 + 0) / 4)
    assert rows["AUC@5deg, essential", "all"].value == pytest.approx((0.2 + 0.4 + 0.4 + 0.2) / 4)
    assert rows["rotation error, rigid", "all"].value == pytest.approx(6)
    assert rows["translation error, rigid", "all"].value == pytest.approx(0.3)
    assert rows["direction error, essential", "all"].value == pytest.approx(2.5)
    assert found["translation error, rigid", "all"].values == [0.1, 0.2, 0.4, np.inf]
    assert rows["translation error, rigid", "overlap 0.1-0.5"].value == pytest.approx(0.15)
    assert rows["translation error, rigid", "overlap 0.5-1"].value is None  # one in two failed
    assert found["AUC@5deg, rigid", "overlap 0.5-1"].keys == [Item("s", ("0", "3")), Item("s", ("0", "4"))]


def test_area_is_that_below_the_recall_curve():
    """The published AUC, by linear interpolation, is larger by at most half a pair."""
    rng = np.random.default_rng(0)
    errors = rng.exponential(8, 40)
    items = {name: column[:1] * 40 for name, column in by_hand().items()}
    items |= {"rotation_error": errors.tolist(), "direction_error": (errors / 2).tolist()}
    (sample,) = [s for s in samples(items, SETTINGS) if (s.metric, s.condition) == ("AUC@10deg, rigid", "all")]
    fine = (np.arange(200_000) + 0.5) / 20_000
    recall = np.searchsorted(np.sort(errors), fine, side="right") / 40
    assert np.mean(sample.values) == pytest.approx(recall.mean(), abs=1e-5)
    inside = np.sort(errors[errors < 10])
    corners = np.r_[0, inside, 10], np.r_[0, np.arange(1, len(inside) + 1), len(inside)] / 40
    assert 0 < np.trapezoid(corners[1], corners[0]) / 10 - np.mean(sample.values) < 1 / 80
