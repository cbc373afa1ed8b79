from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from loco.errors import DataError
from loco.evaluation import pixel_correspondence, pixel_search
from loco.evaluation.image_pairs import bin_number
from loco.evaluation.observed_points import is_visible, observed_depth, pixels_with_depth, reprojection_errors
from loco.evaluation.pixel_correspondence import draw_pairs
from loco.geometry.cameras import pixel_centres, project
from loco.geometry.sampling import sample_features
from loco.storage import Frames

SIZE = (36, 48)
INTRINSICS = np.array([[40.0, 0, 24], [0, 40, 18], [0, 0, 1]])
WALL = 3.0  # the plane z = 3 m
SETTINGS = {
    "pairs_per_bin": 10,
    "min_overlap": 0.2,
    "min_baseline": 0.0,
    "rotation_bins": [0, 15, 30, 60, 180],
    "thresholds": [1, 5],
    "matches": 300,
}


def random_map(h, w, c, seed=0):
    return normalize(torch.randn(h, w, c, generator=torch.Generator().manual_seed(seed)), dim=2)


def wall_points(pose):
    """Return the intersections of the rays of all pixels with the wall, (h, w, 3), and their z-depth."""
    rays = np.concatenate([pixel_centres(*SIZE), np.ones((*SIZE, 1))], axis=2) @ np.linalg.inv(INTRINSICS).T
    rays = rays @ pose[:3, :3].T
    depth = (WALL - pose[2, 3]) / rays[..., 2]
    return pose[:3, 3] + rays * depth[..., None], depth


def encoding(points, channels=64):
    """Return a smooth unit feature that depends on the location only."""
    phase = points @ np.random.default_rng(3).normal(0, 4, (3, channels))
    features = np.concatenate([np.cos(phase), np.sin(phase)], axis=-1)
    return features / np.sqrt(channels)


def views(make_scene, poses, **changes):
    points, depth = zip(*(wall_points(pose) for pose in poses))
    content = {"features": encoding(np.stack(points)), "depth": np.stack(depth), "intrinsics": INTRINSICS, "size": SIZE}
    return make_scene(np.stack(poses), **(content | changes))


def test_projection_is_the_homography_of_the_plane(turned):
    """Return H = K (R - t n^T / d) K^-1 (Hartley & Zisserman, 13.2) with R, t from A = world to B."""
    pose_b = turned(20, centre=(0.4, -0.1, 0.2))
    world_to_b = np.linalg.inv(pose_b)
    homography = world_to_b[:3, :3] + world_to_b[:3, 3:] @ [[0, 0, 1 / WALL]]
    homography = INTRINSICS @ homography @ np.linalg.inv(INTRINSICS)
    mapped = np.concatenate([pixel_centres(*SIZE), np.ones((*SIZE, 1))], axis=2) @ homography.T
    expected = (mapped[..., :2] / mapped[..., 2:]).reshape(-1, 2)
    points = wall_points(np.eye(4))[0].reshape(-1, 3)
    np.testing.assert_allclose(reprojection_errors(points, expected, INTRINSICS, pose_b), 0, atol=1e-9)
    np.testing.assert_allclose(reprojection_errors(points, expected + np.array([3, 4]), INTRINSICS, pose_b), 5)


def test_features_of_the_place_find_the_place(make_scene, turned):
    scene = views(make_scene, [turned(0), turned(-20, centre=(0.9, 0.1, 0.3))])
    result = pixel_correspondence.evaluate([scene], SETTINGS)
    assert result.items["recall@1px"] == [1.0]
    assert result.items["median_error"][0] < 0.5
    assert result.items["n_matches"] == [300]
    assert result.items["angle"] == [pytest.approx(20)]
    rows = {(row.metric, row.condition): row for row in result.rows}
    assert rows["recall@1px", "15-30 deg"].value == rows["recall@1px", "all"].value == 1
    empty = rows["recall@5px", "30-60 deg"]
    assert (empty.value, empty.low, empty.high, empty.n) == (None, None, None, 0)


@pytest.mark.parametrize("step", [1, 3])
def test_refined_positions_are_those_between_the_pixels(make_scene, turned, step):
    """The mean error is a quarter of a pixel along each axis, in the image and on the wall; peaks are not refined."""
    poses = [turned(0), turned(-20, centre=(0.9, 0.1, 0.3))]
    depth = np.stack([np.kron(wall_points(pose)[1], np.ones((step, step))) for pose in poses])
    big = {"depth": depth, "size": depth.shape[1:], "intrinsics": np.diag([step, step, 1]) @ INTRINSICS}
    scene = views(make_scene, poses, **big)
    wanted = SETTINGS | {"step": step, "thresholds": [0.15], "thresholds_m": [0.01], "occlusions": [True]}
    found = {
        method: pixel_correspondence.evaluate([scene], wanted | {"refine": method, "refine_temperature": 0.2}).items
        for method in ("none", "parabola", "soft_argmax")
    }
    assert found["none"] == pixel_correspondence.evaluate([scene], wanted).items
    for method in ("parabola", "soft_argmax"):
        assert found[method]["n_matches"] == found["none"]["n_matches"]
        assert found[method]["median_error"][0] < 0.4 * found["none"]["median_error"][0]
        assert found[method]["recall@0.15px"][0] > 0.9 > 0.5 > found["none"]["recall@0.15px"][0]
        assert found[method]["recall@1cm"][0] > 0.9 > 0.5 > found["none"]["recall@1cm"][0]


def test_features_of_elsewhere_do_not(make_scene, turned):
    poses = [turned(0), turned(-20, centre=(0.9, 0.1, 0.3))]
    elsewhere = np.stack([encoding(wall_points(poses[0])[0]), encoding(wall_points(poses[1])[0][:, ::-1])])
    result = pixel_correspondence.evaluate([views(make_scene, poses, features=elsewhere)], SETTINGS)
    assert result.items["recall@1px"][0] < 0.1


@pytest.mark.parametrize("grid", [SIZE, (9, 12)])
def test_identical_images_match_themselves(make_scene, turned, grid):
    features = random_map(*grid, 16)[None].repeat(2, 1, 1, 1)
    scene = views(make_scene, [turned(0), turned(0)], features=features)
    result = pixel_correspondence.evaluate([scene], SETTINGS)
    assert result.items["recall@1px"] == [1.0]
    assert result.items["median_error"] == [pytest.approx(0, abs=1e-5)]  # depth is stored in single precision


def test_points_behind_the_other_image_are_misses(make_scene, turned):
    """For cameras back to back, the mirrored projection of every point is inside B, at its match."""
    poses = [turned(0), turned(180)]
    here = encoding(wall_points(poses[0])[0])
    scene = views(make_scene, poses, features=np.stack([here, here[::-1, :]]), depth=np.full((2, *SIZE), WALL))
    mirrored, z = project(wall_points(poses[0])[0], INTRINSICS, poses[1])
    np.testing.assert_allclose(mirrored, pixel_centres(*SIZE)[::-1])
    np.testing.assert_allclose(z, -WALL)
    result = pixel_correspondence.evaluate([scene], SETTINGS | {"thresholds": [1, 1000]})
    assert result.items["angle"] == [180]
    assert result.items["recall@1000px"] == [0.0]
    assert result.items["median_error"] == [None]
    assert [row.n for row in result.rows if row.condition == "60-180 deg"] == [1, 1]


def test_only_observed_depth_is_used(make_scene, turned):
    depth, source = np.full(SIZE, 2.0), np.full(SIZE, Frames.SOURCES.index("sensor"))
    depth[:9], source[9:18], source[18:20] = 0, Frames.SOURCES.index("inpainted"), Frames.SOURCES.index("mesh")
    _, z = pixels_with_depth(observed_depth(depth, source))
    np.testing.assert_array_equal(z, np.where(np.arange(36)[:, None] < 18, 0, np.full(SIZE, 2.0)))
    both = {"depth": np.stack([depth, depth]), "source": np.stack([source, source])}
    scene = views(make_scene, [turned(0), turned(5)], **both)
    for occlusion in (False, True):  # invalid zeros are never used, with or without the filter
        settings = SETTINGS | {"matches": 10_000, "occlusions": [occlusion]}
        found = pixel_correspondence.evaluate([scene], settings).items["n_matches"][0]
        assert found == 18 * 48 if not occlusion else 0 < found < 18 * 48


def test_a_step_matches_as_on_smaller_frames(make_scene, turned):
    """Sample every third row and column, from the second on: centres of 3 x 3 pixels, so smaller frames are exact."""
    rng = np.random.default_rng(2)
    poses = np.stack([turned(0), turned(-20, centre=(0.9, 0.1, 0.3))])
    depth, source = rng.uniform(2, 3, (2, 110, 144)), rng.integers(0, 4, (2, 110, 144))
    features = random_map(12, 16, 8)[None].repeat(2, 1, 1, 1) + 0.3 * torch.randn(2, 12, 16, 8)
    small = INTRINSICS, (36, 48), depth[:, 1:108:3, 1::3], source[:, 1:108:3, 1::3]
    big = np.diag([3, 3, 1]) @ INTRINSICS, (110, 144), depth, source
    found = [
        pixel_correspondence.evaluate(
            [make_scene(poses, features, intrinsics=k, size=size, depth=z, source=s, extent=extent)], settings
        )
        for (k, size, z, s), extent, settings in ((small, SIZE, SETTINGS), (big, (108, 144), SETTINGS | {"step": 3}))
    ]
    assert found[0].items.pop("median_error") == pytest.approx(found[1].items.pop("median_error"), rel=1e-5)
    assert found[0].items == found[1].items
    assert 0 < found[0].items["recall@5px"][0] < 1


def test_a_pair_without_observed_depth_is_listed_but_not_averaged(make_scene, turned):
    source = np.full((3, *SIZE), Frames.SOURCES.index("sensor"))
    source[0] = Frames.SOURCES.index("inpainted")
    scene = views(make_scene, [turned(0)] * 3, source=source)
    result = pixel_correspondence.evaluate([scene], SETTINGS)
    assert list(zip(result.items["a"], result.items["b"])) == [
        ("view0", "view1"),
        ("view0", "view2"),
        ("view1", "view2"),
    ]
    assert [n > 0 for n in result.items["n_matches"]] == [False, False, True]
    assert result.items["recall@5px"] == [None, None, 1.0]
    assert [row.n for row in result.rows if row.condition == "all"] == [1, 1]


def test_bins():
    angles = np.array([0, 14.999, 15, 59, 60, 179.999, 180, 180.1])
    np.testing.assert_array_equal(bin_number(angles, np.array([0, 15, 30, 60, 180]))[:-1], [0, 0, 1, 2, 3, 3, 3])
    assert bin_number(angles, np.array([0, 15, 30, 60, 180]))[-1] not in range(4)


def small_scene(make_scene, turned, scene, n, seed=0):
    poses = np.stack([turned(angle) for angle in np.linspace(0, 350, n)])
    return make_scene(poses, np.random.default_rng(seed).normal(size=(n, 2, 2, 3)), scene=scene)


def test_pairs_are_spread_over_scenes_and_bins(make_scene, turned):
    scenes = [small_scene(make_scene, turned, name, n) for name, n in (("few", 4), ("many", 30), ("more", 40))]
    wanted = SETTINGS | {"pairs_per_bin": 20, "rotation_bins": [0, 90, 180]}
    pairs = draw_pairs(scenes, wanted, seed=0)
    counts = Counter((pair.bin, pair.scene) for pair in pairs)
    # Four cameras at 0, 117, 233 and 350 degrees: one pair is 10 degrees apart, the other five 117 or 127.
    assert counts == {(0, 0): 1, (0, 1): 10, (0, 2): 9, (1, 0): 5, (1, 1): 8, (1, 2): 7}
    assert len(set(pairs)) == len(pairs)
    assert all(pair.a < pair.b and (pair.angle >= 90) == pair.bin for pair in pairs)


def test_pairs_depend_on_seed_and_scene_alone(make_scene, turned):
    first, other = (small_scene(make_scene, turned, name, 30) for name in ("first", "other"))
    alike = small_scene(make_scene, turned, "first", 30, seed=1)  # the same scene, other features
    assert draw_pairs([first], SETTINGS, 0) == draw_pairs([alike], SETTINGS, 0)
    assert draw_pairs([first], SETTINGS, 0) != draw_pairs([other], SETTINGS, 0)
    assert draw_pairs([first], SETTINGS, 0) != draw_pairs([first], SETTINGS, 1)
    fewer = draw_pairs([first], SETTINGS | {"pairs_per_bin": 4}, 0)
    assert set(fewer) < set(draw_pairs([first], SETTINGS, 0))


def test_rows_summarise_the_pairs(make_scene, turned):
    poses = [turned(angle, centre=(x, 0, 0)) for angle, x in ((0, 0), (3, 0.1), (8, 0.5), (-20, 0.6))]
    scene = views(make_scene, poses, features=np.random.default_rng(0).normal(size=(4, 9, 12, 3)))
    result = pixel_correspondence.evaluate([scene], SETTINGS)
    recall, angle = np.array(result.items["recall@5px"]), np.array(result.items["angle"])
    small = next(row for row in result.rows if (row.metric, row.condition) == ("recall@5px", "0-15 deg"))
    assert small.n == 3
    assert small.value == pytest.approx(recall[angle < 15].mean())
    everything = next(row for row in result.rows if (row.metric, row.condition) == ("recall@5px", "all"))
    assert everything.value == pytest.approx(recall.mean())
    assert everything.low <= everything.value <= everything.high
    assert result == pixel_correspondence.evaluate([scene], SETTINGS)


# --- what a point of A must be for B to see it --------------------------------------------------------------------


def test_identical_views_see_all_of_each_other_whatever_the_depth(make_scene, turned):
    """Holds even if depth jumps from pixel to pixel: points are read at their own pixel only."""
    for step, size in ((1, SIZE), (4, (144, 192))):
        rows, columns = np.indices(size) // step
        depth = np.where((rows + columns) % 2, 2.0, 4.0)[None].repeat(2, 0)
        intrinsics = np.diag([step, step, 1]) @ INTRINSICS
        for angle in (0, 33):
            features = random_map(*SIZE, 16)[None].repeat(2, 1, 1, 1)
            scene = make_scene(
                np.stack([turned(angle)] * 2), features, f"s{step}a{angle}", depth, None, intrinsics, size=size
            )
            settings = SETTINGS | {"step": step, "occlusions": [True], "matches": 10_000, "occlusion_tolerance": 0.01}
            result = pixel_correspondence.evaluate([scene], settings)
            assert result.items["n_matches"] == [36 * 48]
            assert result.items["recall@1px"] == [1.0]


def test_a_camera_that_is_turned_round_sees_nothing(make_scene, turned):
    """The mirrored projections of all points are inside the image, at the same distance behind it."""
    scene = views(make_scene, [turned(0), turned(180)], depth=np.full((2, *SIZE), WALL))
    points = wall_points(np.eye(4))[0].reshape(-1, 3)
    assert not is_visible(points, np.full(SIZE, WALL), INTRINSICS, turned(180), 100.0).any()
    result = pixel_correspondence.evaluate([scene], SETTINGS | {"occlusions": [False, True]})
    assert result.items["n_matches"] == [300]
    assert result.items["n_matches, visible only"] == [0]
    assert result.items["recall@5px, visible only"] == [None]
    row = next(row for row in result.rows if row.metric == "recall@5px, visible only" and row.condition == "all")
    assert (row.value, row.low, row.high, row.n) == (None, None, None, 0)


# --- variants: one search, several answers ------------------------------------------------------------------------

VARIED = SETTINGS | {"filters": ["ratio", "similarity", "pixel_distance"], "occlusions": [False, True], "pooled": True}
NAMES = [
    f"{filter}{seen}"
    for filter in ("", ", similarity filter", ", pixel distance filter")
    for seen in ("", ", visible only")
]


def test_variants_stand_beside_the_main_protocol_and_do_not_change_it(make_scene, turned):
    poses = [turned(angle, centre=(x, 0, 0)) for angle, x in ((0, 0), (3, 0.1), (8, 0.5), (-20, 0.6))]
    noisy = np.random.default_rng(0).normal(size=(4, 9, 12, 3))
    scene = views(make_scene, poses, features=noisy)
    main, varied = (pixel_correspondence.evaluate([scene], settings) for settings in (SETTINGS, VARIED))
    assert varied.rows[: len(main.rows)] == main.rows
    assert {name: varied.items[name] for name in main.items} == main.items
    assert list(main.items) == list(varied.items)[: len(main.items)]
    metrics = [f"recall@{k}px{name}{pooled}" for name in NAMES for pooled in ("", ", pooled") for k in (1, 5)]
    assert list(dict.fromkeys(row.metric for row in varied.rows)) == metrics
    assert len({row.value for row in varied.rows if row.condition == "all"}) > 6
    # The first filter and the first kind of occlusion determine the main metrics.
    other = pixel_correspondence.evaluate(
        [scene], SETTINGS | {"filters": ["similarity", "ratio"], "occlusions": [True, False]}
    )
    assert other.items["recall@5px"] == varied.items["recall@5px, similarity filter, visible only"]
    assert other.items["recall@5px, ratio filter, all points"] == varied.items["recall@5px"]


def test_one_search_serves_all_variants(make_scene, turned, monkeypatch):
    calls = []
    search = pixel_search.two_nearest
    monkeypatch.setattr(pixel_search, "two_nearest", lambda *a, **k: calls.append(len(a[0])) or search(*a, **k))
    pixel_correspondence.evaluate([views(make_scene, [turned(0), turned(9)])], VARIED)
    assert calls == [36 * 48]


def test_features_of_the_place_find_the_place_by_every_choice(make_scene, turned):
    scene = views(make_scene, [turned(0), turned(-20, centre=(0.9, 0.1, 0.3))])
    items = pixel_correspondence.evaluate([scene], VARIED | {"matches": 10_000}).items
    assert [items[f"recall@1px{name}"] for name in NAMES[1::2]] == [[1.0]] * 3
    visible = items["n_matches, visible only"][0]
    assert 500 < visible < 36 * 48
    # Without a limit all points are selected, for any criterion, and those that B does not show are errors.
    assert [items[f"n_matches{name}"] for name in NAMES] == [[36 * 48], [visible]] * 3
    assert [items[f"recall@1px{name}"] for name in NAMES[::2]] == [[pytest.approx(visible / (36 * 48), abs=0.03)]] * 3


def test_random_features_score_chance(make_scene, turned):
    features = torch.randn(2, *SIZE, 32, generator=torch.Generator().manual_seed(0))
    scene = views(make_scene, [turned(0), turned(0)], features=features)
    settings = VARIED | {"matches": 10_000, "thresholds": [5, 10]}
    items = pixel_correspondence.evaluate([scene], settings).items
    uv = pixel_centres(*SIZE).reshape(-1, 2)
    apart = np.linalg.norm(uv[:, None] - uv, axis=2)
    for threshold in (5, 10):
        chance = np.mean(apart < threshold)
        for name in NAMES:
            assert items[f"recall@{threshold}px{name}"][0] == pytest.approx(chance, abs=4 * np.sqrt(chance / 1728))


def test_recall_is_that_of_pairs_and_pooled_that_of_matches():
    items = {"scene": ["s"] * 3, "a": list("xyz"), "b": list("uvw"), "angle": [3.0, 180.0, 20.0]}
    items |= {"n_matches": [1000, 50, 0], "recall@5px": [1.0, 0.0, None], "recall@1px": [0.5, 0.5, None]}
    found = {
        (sample.metric, sample.condition): sample.row()
        for sample in pixel_correspondence.samples(items, SETTINGS | {"pooled": True})
    }
    assert found["recall@5px", "all"].value == 0.5
    assert found["recall@5px, pooled", "all"].value == pytest.approx(1000 / 1050)
    assert found["recall@1px, pooled", "all"].value == 0.5
    assert found["recall@5px, pooled", "all"].n == 2
    assert found["recall@5px", "60-180 deg"].value == 0.0  # half a turn is in the last bin
    for metric in ("recall@5px", "recall@5px, pooled"):  # nothing was measured here
        assert found[metric, "15-30 deg"].value is None


def test_pairs_with_few_matches_weigh_as_much_as_others_unless_pooled(make_scene, turned):
    """Three views of a wall. The third shows other positions than the others, and has depth in one row only."""
    poses = [turned(0), turned(1), turned(2)]
    content = np.stack([encoding(wall_points(pose)[0]) for pose in poses])
    content[2] = content[2, ::-1]
    source = np.zeros((3, *SIZE), int)
    source[:2], source[2, 0] = 1, 1
    reversed_pairs = [
        {"a": f"view{a}", "b": f"view{b}", "pose_a_to_b": np.linalg.inv(poses[b]) @ poses[a]}
        for a, b in ((0, 1), (2, 0))
    ]
    for pair in reversed_pairs:
        pair["pose_a_to_b"] = pair["pose_a_to_b"].tolist()
    scene = views(make_scene, poses, features=content, source=source, ground_truth={"pairs": reversed_pairs})
    result = pixel_correspondence.evaluate([scene], SETTINGS | {"pooled": True})
    values = {row.metric: row.value for row in result.rows if row.condition == "0-15 deg"}
    assert result.items["n_matches"] == [300, 48]
    assert result.items["recall@5px"] == [1.0, 0.0]
    assert values["recall@5px"] == 0.5
    assert values["recall@5px, pooled"] == pytest.approx(300 / 348)


# --- errors in space ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 4])
def test_errors_in_space_are_those_of_similar_triangles(make_scene, step):
    """Features are shifted by 3 columns at one pose: 3 px, which at a depth of WALL metres are 3 WALL / 40 metres."""
    features = random_map(*SIZE, 16)
    shifted = torch.stack([features, features.roll(3, dims=1)])
    source = np.ones((2, 36 * step, 48 * step), int)
    source[0, :, 45 * step :] = 0  # points that leave the image on the right
    scene = make_scene(
        np.stack([np.eye(4)] * 2),
        shifted,
        depth=np.full(source.shape, WALL),
        source=source,
        intrinsics=np.diag([step, step, 1]) @ INTRINSICS,
        size=source.shape[1:],
    )
    apart = 3 * WALL / 40
    settings = SETTINGS | {
        "step": step,
        "thresholds": [2.5, 3.5],
        "thresholds_m": [0.99 * apart, 1.01 * apart],
        "matches": 10_000,
    }
    result = pixel_correspondence.evaluate([scene], settings)
    assert [result.items[f"recall@{k}px"] for k in (2.5, 3.5)] == [[0.0], [1.0]]
    in_space = ["recall@22.275cm", "recall@22.725cm"]
    assert [result.items[name] for name in in_space] == [[0.0], [1.0]]
    assert [row.metric for row in result.rows if row.condition == "all"] == ["recall@2.5px", "recall@3.5px", *in_space]
    assert {row.unit for row in result.rows} == {"%"}


def test_errors_in_space_are_of_the_depth_that_each_image_measured(make_scene, turned):
    """B, rotated and moved, sees a wall 5 cm nearer than in the depth of A; a third of B has no depth."""
    poses = [turned(0), turned(-20, centre=(0.9, 0.1, 0.3))]
    (points, depth_a), (_, depth_b) = (wall_points(pose) for pose in poses)
    uv, _ = project(points, INTRINSICS, poses[1])
    inside = (uv > 1).all(axis=2) & (uv < np.array(SIZE[::-1]) - 1).all(axis=2)
    near_b = depth_b * (WALL - 0.05 - poses[1][2, 3]) / (WALL - poses[1][2, 3])
    source = np.ones((2, *SIZE), int)
    source[0, ~inside] = 0
    source[1, :, 16:32] = 3  # inpainted
    scene = views(make_scene, poses, depth=np.stack([depth_a, near_b]), source=source)
    settings = SETTINGS | {"thresholds_m": [0.04, 0.25, 100.0], "matches": 10_000}
    items = pixel_correspondence.evaluate([scene], settings).items
    lost = np.mean((uv[inside][:, 0] >= 16) & (uv[inside][:, 0] < 32))
    assert items["recall@1px"] == [1.0]
    assert items["recall@4cm"] == [0.0]  # the match on the wall is 5 cm away
    assert items["recall@25cm"] == [pytest.approx(1 - lost, abs=0.02)]
    assert items["recall@10000cm"] == items["recall@25cm"]  # a pixel without depth shows no point
    assert 0.2 < lost < 0.8
    # If matches are restricted to pixels with depth, no match lacks depth.
    asked = pixel_correspondence.evaluate([scene], settings | {"candidates": "observed", "thresholds_m": [100.0]}).items
    assert asked["recall@10000cm"] == [1.0]


# --- pairs that the dataset lists ---------------------------------------------------------------------------------


def listed(poses, pairs):
    matrices = [np.linalg.inv(poses[b]) @ poses[a] for a, b in pairs]
    return {
        "pairs": [{"a": f"view{a}", "b": f"view{b}", "pose_a_to_b": m.tolist()} for (a, b), m in zip(pairs, matrices)]
    }


def test_listed_pairs_are_evaluated_by_the_pose_between_them(make_scene, turned):
    """Given pairs have the same scores as drawn ones: the world frame, which these images do not share, is not used."""
    poses = np.stack([turned(0), turned(-20, centre=(0.9, 0.1, 0.3)), turned(8, centre=(0.2, 0, 0))])
    settings = VARIED | {"thresholds_m": [0.02, 0.05]}
    content = {
        "features": np.random.default_rng(0).normal(size=(3, 9, 12, 3)),
        "depth": np.stack([wall_points(pose)[1] for pose in poses]),
        "intrinsics": INTRINSICS,
        "size": SIZE,
    }
    drawn = pixel_correspondence.evaluate([make_scene(poses, **content)], settings)
    order = [(int(a[4:]), int(b[4:])) for a, b in zip(drawn.items["a"], drawn.items["b"])]
    apart = make_scene(np.stack([np.eye(4)] * 3), **content, separate=True, ground_truth=listed(poses, order))
    assert apart.correspondences is None
    result = pixel_correspondence.evaluate([apart], settings)
    assert result.items.pop("overlap") == [None] * 3
    assert len(drawn.items.pop("overlap")) == 3
    for column, entries in drawn.items.items():
        assert result.items[column] == (pytest.approx(entries) if column not in "scene a b" else entries), column
    assert [row.value for row in result.rows] == pytest.approx([row.value for row in drawn.rows])


def test_all_listed_pairs_are_evaluated_in_their_order_beside_what_is_drawn_elsewhere(make_scene, turned):
    poses = np.stack([turned(0), turned(170), turned(90), turned(89)])
    own = listed(poses, [(3, 2), (0, 1), (0, 2), (2, 3)])
    scenes = [
        small_scene(make_scene, turned, "many", 30),
        make_scene(poses, np.ones((4, 2, 2, 3)), "list", ground_truth=own, separate=True),
    ]
    settings = SETTINGS | {"pairs_per_bin": 3, "rotation_bins": [0, 60, 120]}
    result = pixel_correspondence.evaluate(scenes, settings)
    named = list(zip(result.items["scene"], result.items["a"], result.items["b"]))
    assert named[:4] == [("list", f"view{a}", f"view{b}") for a, b in ((3, 2), (0, 1), (0, 2), (2, 3))]
    assert result.items["angle"][:4] == pytest.approx([1, 170, 90, 1])
    assert [scene for scene, *_ in named[4:]] == ["many"] * 6
    counts = {row.condition: row.n for row in result.rows}
    # One pair is rotated by more than the last bin.
    assert counts == {"0-60 deg": 2 + 3, "60-120 deg": 1 + 3, "all": 10}


def test_a_listed_pair_without_its_image_is_an_error_that_names_it(make_scene, turned):
    poses = np.stack([turned(0)] * 3)
    truth = listed(poses, [(0, 1), (0, 2)])
    truth["pairs"][1]["b"] = "scene0707_00/15"
    scene = views(make_scene, poses, ground_truth=truth, separate=True)
    with pytest.raises(DataError, match=r"1 missing, such as scene0707_00/15[\s\S]*max_hole_fraction"):
        pixel_correspondence.evaluate([scene], SETTINGS)


def test_images_without_a_common_frame_need_a_list(make_scene, turned):
    scene = views(make_scene, [turned(0)] * 2, separate=True)
    with pytest.raises(DataError, match=r"neither a list of image pairs nor overlaps"):
        pixel_correspondence.evaluate([scene], SETTINGS)


def test_images_without_depth_give_no_number_and_no_zero(make_scene, turned):
    poses = np.stack([turned(0)] * 3)
    source = np.zeros((3, *SIZE), int)
    source[1, 5, 5] = 1  # a single pixel
    scene = views(make_scene, poses, source=source, ground_truth=listed(poses, [(0, 1), (1, 0), (1, 2)]))
    for candidates, counts in (("all", [0, 1, 1]), ("observed", [0, 0, 0])):
        result = pixel_correspondence.evaluate([scene], VARIED | {"thresholds_m": [1.0], "candidates": candidates})
        assert result.items["n_matches"] == counts
        assert result.items["recall@5px"] == [None if n == 0 else 1.0 for n in counts]
        assert result.items["recall@100cm"] == [None] * 3  # B shows no point of A
        row = next(row for row in result.rows if (row.metric, row.condition) == ("recall@5px", "all"))
        assert row.value == (1.0 if any(counts) else None)


def test_frames_of_different_sizes_are_refused(make_scene, turned):
    scenes = [make_scene(np.eye(4)[None], np.ones((1, 2, 2, 3)), scene=f"r{h}", size=(h, 8)) for h in (6, 7)]
    with pytest.raises(DataError, match="differ in size"):
        pixel_correspondence.evaluate(scenes, SETTINGS)


def test_raw_features_are_interpolated_as_long_as_they_were(make_scene, turned):
    """Halfway between two cells, a feature of ten times the norm dominates the interpolated direction."""
    unit = np.zeros((2, 2, 2, 2))
    unit[:, 0, 0], unit[:, 0, 1], unit[:, 1] = (1, 0), (0, 1), (1, 0)
    norm = np.ones((2, 2, 2), np.float32)
    norm[:, 0, 1] = 10
    scene = make_scene([turned(0)] * 2, unit, norm=norm)
    for how, expected in (("normalised", [1.0, 1.0]), ("raw", [1.0, 10.0])):
        cells = pixel_correspondence._feature_map(scene, 0, {"interpolate": how})
        between = sample_features(cells, torch.tensor([[4.0, 1.5]]), (6, 8))[0]
        torch.testing.assert_close(between, torch.tensor(expected) / np.hypot(*expected))


def test_the_setting_reaches_the_matches(make_scene, turned):
    """For features of equal norms both forms give the same matches; for other norms they do not."""
    features = np.stack([random_map(3, 4, 8).numpy()] * 2)
    norm = np.ones((2, 3, 4), np.float32)
    uneven = np.random.default_rng(0).uniform(0.1, 10, (2, 3, 4)).astype(np.float32)
    settings = SETTINGS | {"min_overlap": 0, "min_baseline": 0}
    found = {}
    for name, lengths in (("even", norm), ("uneven", uneven)):
        scene = make_scene([turned(0)] * 2, features, scene=name, norm=lengths)
        for how in ("normalised", "raw"):
            found[name, how] = pixel_correspondence.evaluate([scene], settings | {"interpolate": how}).items
    found = {key: {k: v for k, v in items.items() if k != "scene"} for key, items in found.items()}
    assert found["even", "normalised"] == found["even", "raw"]
    assert found["uneven", "normalised"] != found["uneven", "raw"]
