from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from loco.errors import DataError
from loco.evaluation import pixel_correspondence
from loco.evaluation.pixel_correspondence import (
    draw_pairs,
    match,
    observed_pixels,
    reprojection_errors,
    rotation_bin,
    two_nearest,
)
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
    "bootstrap": 100,
}


def random_map(h, w, c, seed=0):
    return normalize(torch.randn(h, w, c, generator=torch.Generator().manual_seed(seed)), dim=2)


BEYOND = SIZE[0] + 5, SIZE[1] + 2  # of maps whose last cells reach beyond the image


@pytest.mark.parametrize("extent", [SIZE, BEYOND])
@pytest.mark.parametrize("grid", [(9, 12), (36, 48), (5, 7), (50, 60), (1, 1)])
def test_search_equals_brute_force(grid, extent):
    feature_map, queries = random_map(*grid, 8), random_map(1, 150, 8, seed=1)[0]  # two blocks and a half
    uv = pixel_centres(*SIZE).reshape(-1, 2)
    pixels = sample_features(feature_map.double(), torch.from_numpy(uv), extent).double()
    table = queries.double() @ pixels.T
    similarity, nearest = two_nearest(queries, feature_map, SIZE, extent)
    torch.testing.assert_close(similarity.double(), table.topk(2, dim=1).values, atol=1e-5, rtol=0)
    at_nearest = table.gather(1, nearest[:, None])[:, 0]  # of pixels with equal features, any will do
    torch.testing.assert_close(at_nearest, table.amax(dim=1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("extent", [SIZE, BEYOND])
def test_best_matches_pass_the_ratio_test_best(extent):
    map_a, map_b, uv = random_map(9, 12, 8), random_map(9, 12, 8, seed=1), pixel_centres(*SIZE).reshape(-1, 2)
    kept, matched = match(map_a, map_b, uv, SIZE, 50, np.random.default_rng(0), extent)
    a, b = (sample_features(m, torch.from_numpy(uv), extent).double().numpy() for m in (map_a, map_b))
    distance = 1 - a @ b.T
    first, second = np.sort(distance, axis=1)[:, :2].T
    score = 1 - first / second
    np.testing.assert_allclose(score[kept], np.sort(score)[::-1][:50], atol=1e-4)
    index = np.floor(matched).astype(int) @ [1, SIZE[1]]
    np.testing.assert_allclose(distance[kept, index], first[kept], atol=2e-6)


def test_matches_of_equal_features_are_chosen_at_random_however_they_round():
    map_a, map_b = (0.25 + 1e-7 * random_map(*grid, 16) for grid in ((9, 12), (2, 2)))
    uv = np.random.default_rng(1).random((500, 2)) * 2
    kept, _ = match(map_a, map_b, uv, (2, 2), 100, np.random.default_rng(0))
    np.testing.assert_array_equal(kept, np.random.default_rng(0).permutation(500)[:100])


def wall_points(pose):
    """Where the rays of all pixels meet the wall: (h, w, 3), and their z-depth."""
    rays = np.concatenate([pixel_centres(*SIZE), np.ones((*SIZE, 1))], axis=2) @ np.linalg.inv(INTRINSICS).T
    rays = rays @ pose[:3, :3].T
    depth = (WALL - pose[2, 3]) / rays[..., 2]
    return pose[:3, 3] + rays * depth[..., None], depth


def encoding(points, channels=64):
    """A smooth feature of the place alone, unit length."""
    phase = points @ np.random.default_rng(3).normal(0, 4, (3, channels))
    features = np.concatenate([np.cos(phase), np.sin(phase)], axis=-1)
    return features / np.sqrt(channels)


def views(make_scene, poses, **changes):
    points, depth = zip(*(wall_points(pose) for pose in poses))
    content = {"features": encoding(np.stack(points)), "depth": np.stack(depth)} | changes
    return make_scene(np.stack(poses), intrinsics=INTRINSICS, size=SIZE, **content)


def test_projection_is_the_homography_of_the_plane(turned):
    """H = K (R - t n^T / d) K^-1 (Hartley & Zisserman, 13.2) with R, t from A = world to B."""
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
    """Back to back, the mirrored projection of every point lies within B, and on its match."""
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
    uv, z = observed_pixels(depth, source)
    assert len(uv) == len(z) == 18 * 48
    assert uv[:, 1].min() == 18.5
    scene = views(make_scene, [turned(0), turned(5)], depth=np.stack([depth, depth]), source=np.stack([source, source]))
    result = pixel_correspondence.evaluate([scene], SETTINGS | {"matches": 10_000})
    assert result.items["n_matches"] == [18 * 48]


def test_a_step_matches_as_on_smaller_frames(make_scene, turned):
    """Every third row and column, counted from the second: the middles of 3 x 3 pixels, so smaller frames exactly."""
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


@pytest.mark.parametrize("step", [2, 4])
def test_pixels_of_an_even_step_are_at_their_own_centres(step):
    depth = np.arange(10 * 12.0).reshape(10, 12) + 1
    uv, z = observed_pixels(depth, np.ones((10, 12)), step)
    assert len(uv) == (10 // step) * (12 // step)
    columns, rows = (np.round(uv * step - 0.5).astype(int)).T
    np.testing.assert_array_equal(depth[rows, columns], z)
    np.testing.assert_allclose(np.abs(uv - np.floor(uv) - 0.5), 0.5 / step)


@pytest.mark.parametrize("extent", [(36, 48), (36.4, 48.5), (40.9, 50.1), (100 / 3, 140 / 3)])
@pytest.mark.parametrize("grid", [(7, 9), (36, 48), (50, 61)])
def test_search_covers_pixels_of_any_extent(extent, grid):
    size = tuple(int(side) for side in extent)
    feature_map, queries = random_map(*grid, 8), random_map(1, 20, 8, seed=1)[0]
    pixels = sample_features(feature_map, torch.from_numpy(pixel_centres(*size).reshape(-1, 2)), extent)
    similarity, nearest = two_nearest(queries, feature_map, size, extent)
    torch.testing.assert_close(similarity, (queries @ pixels.T).topk(2, dim=1).values, atol=1e-5, rtol=0)
    assert nearest.max() < size[0] * size[1]


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
    np.testing.assert_array_equal(rotation_bin(angles, np.array([0, 15, 30, 60, 180]))[:-1], [0, 0, 1, 2, 3, 3, 3])
    assert rotation_bin(angles, np.array([0, 15, 30, 60, 180]))[-1] not in range(4)


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


def test_frames_of_different_sizes_are_refused(make_scene, turned):
    scenes = [make_scene(np.eye(4)[None], np.ones((1, 2, 2, 3)), scene=f"r{h}", size=(h, 8)) for h in (6, 7)]
    with pytest.raises(DataError, match="another size"):
        pixel_correspondence.evaluate(scenes, SETTINGS)
