from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from loco.errors import DataError
from loco.evaluation import neighbours
from loco.evaluation.homography import corner_error, estimate_homography, evaluate, samples, transfer
from loco.evaluation.result import EvaluatedScene
from loco.geometry.patches import patch_centres
from loco.steps.extract import extract_scene
from loco.steps.frames import prepare_frames
from loco.storage import Features, Frames

SIZE, GRID = (48, 64), (12, 16)  # frames, with cells of 4 pixels
SETTINGS = {"thresholds": [1, 3, 5], "corner_thresholds": [3, 5, 10], "ransac_threshold": 3.0}


def random_features(*shape: int, seed: int = 0) -> np.ndarray:
    features = np.random.default_rng(seed).normal(size=shape)
    return features / np.linalg.norm(features, axis=-1, keepdims=True)


def code(places: np.ndarray, reach: float) -> np.ndarray:
    """Return unit vectors (..., 4), whose cosine falls with the distance of positions (..., 2) up to ``reach``."""
    angles = places * (np.pi / reach)
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=-1) / np.sqrt(2)


def written(places: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Map positions (..., 2) by a homography."""
    moved = np.concatenate([places, np.ones_like(places[..., :1])], axis=-1) @ by.T
    return moved[..., :2] / moved[..., 2:]


def truth(*homographies: np.ndarray, change: str = "viewpoint") -> dict:
    pairs = [{"a": "1", "b": str(k), "homography": h.tolist()} for k, h in enumerate(homographies, start=2)]
    return {"change": change, "pairs": pairs}


def cells(scale: np.ndarray, grid=GRID) -> np.ndarray:
    """Return the cell centres of an image in raw pixels, (rows, columns, 2), for a frame scaled by ``scale``."""
    return patch_centres(grid, SIZE) / np.diag(scale)[:2]


@pytest.fixture
def make_planes(make_scene):
    """Return a scene of images of one plane with features that encode their position: those of a perfect extractor."""

    def make(*homographies, scales=None, scene="v_wall", grid=GRID, features=None, **more):
        n = len(homographies) + 1
        scales = [np.diag([0.5, 0.5, 1])] * n if scales is None else scales
        places = [cells(scale, grid) for scale in scales]
        perfect = np.stack([code(places[0], 500), *(code(written(p, np.linalg.inv(h)), 500)
                            for p, h in zip(places[1:], homographies))])  # fmt: skip
        return make_scene(
            np.tile(np.eye(4), (n, 1, 1)),
            perfect if features is None else features,
            scene=scene,
            intrinsics=np.stack(scales),
            size=SIZE,
            names=[str(k) for k in range(1, n + 1)],
            ground_truth=more.pop("ground_truth", truth(*homographies)),
            separate=True,
            **more,
        )

    return make


def shift(u: float, v: float) -> np.ndarray:
    return np.array([[1.0, 0, u], [0, 1, v], [0, 0, 1]])


def test_equal_images_are_matched_perfectly_whatever_the_features(make_planes):
    alike = np.repeat(random_features(1, *GRID, 8), 2, axis=0)
    evaluation = evaluate([make_planes(np.eye(3), features=alike)], SETTINGS | {"thresholds": [1e-6]})
    rows = {row.metric: row for row in evaluation.rows if row.condition == "all"}
    assert evaluation.items["n_matches"] == [GRID[0] * GRID[1]]
    assert rows["matched"].value == rows["MMA@1e-06px"].value == 1
    assert rows["corner error"].value < 1e-6
    assert all(rows[f"AUC@{t}px"].value > 1 - 1e-6 for t in (3, 5, 10))
    assert (rows["corner error"].unit, rows["AUC@3px"].unit) == ("px", "%")


def test_ceiling_of_perfect_features_at_a_shift_by_part_of_a_cell(make_planes):
    """Cells are 8 raw pixels. After a shift by (2.4, 3.2), each matches the same cell, 4 pixels off."""
    settings = SETTINGS | {"thresholds": [3.99, 4.01]}
    items = evaluate([make_planes(shift(2.4, 3.2))], settings).items
    assert items["n_matches"] == [GRID[0] * GRID[1]]
    assert (items["MMA@3.99px"], items["MMA@4.01px"]) == ([0.0], [1.0])
    assert_allclose(items["corner_error"], 4, atol=1e-3)
    rows = {row.metric: row.value for row in evaluate([make_planes(shift(2.4, 3.2), scene="v_b")], settings).rows}
    assert_allclose([rows[f"AUC@{t}px"] for t in (3, 5, 10)], [0, 0.2, 0.6], atol=1e-3)


@pytest.mark.parametrize("method", ["parabola", "soft_argmax"])
@pytest.mark.parametrize("scale", [(0.5, 0.5), (0.5, 0.4)])
def test_refinement_finds_a_shift_by_part_of_a_cell(make_planes, method, scale):
    """As above, in raw pixels of both axes. Matches on the border, with neighbours on one side, are not refined."""
    scale = np.diag([*scale, 1])
    places = np.stack([cells(scale), cells(scale) - [2.4, 3.2]])
    phase = places @ np.random.default_rng(0).normal(0, 0.06, (2, 64))  # cosine of 0.9 over a cell
    scene = make_planes(
        shift(2.4, 3.2), scales=[scale] * 2, features=np.concatenate([np.cos(phase), np.sin(phase)], 2 + 1) / 8
    )
    settings = SETTINGS | {"thresholds": [1.5]}
    items = {name: evaluate([scene], settings | {"refine": name}).items for name in ("none", method)}
    assert items["none"] == evaluate([scene], settings).items
    assert items["none"]["MMA@1.5px"] == [0.0]
    assert items[method]["MMA@1.5px"][0] >= (GRID[0] - 2) * (GRID[1] - 2) / (GRID[0] * GRID[1])
    assert items[method]["corner_error"][0] < 2.5 < 3.5 < items["none"]["corner_error"][0]


def test_errors_are_in_pixels_of_the_raw_images(make_planes):
    """Features state that nothing moved, while the plane of 96 x 128 raw pixels was scaled by 1.5."""
    alike = np.repeat(random_features(1, *GRID, 8), 2, axis=0)
    grown = np.diag([1.5, 1.5, 1])
    items = evaluate([make_planes(grown, features=alike)], SETTINGS | {"thresholds": [20]}).items
    assert_allclose(items["corner_error"], (0 + 64 + 80 + 48) / 4, atol=1e-4)
    assert_allclose(items["MMA@20px"], np.mean(np.linalg.norm(cells(np.diag([0.5, 0.5, 1])) / 2, axis=2) <= 20))


def test_finer_keypoints_lift_the_ceiling(make_planes):
    """Finer cells are 4 raw pixels apart: after a shift by (1, 1) an error remains, after (4, 4) none."""
    finer = SETTINGS | {"upsample": 2, "thresholds": [1, 1.42]}
    for offset, expected in (((1, 1), np.sqrt(2)), ((4, 4), 0)):
        scene = make_planes(shift(*offset), scene=f"v_{offset[0]}")
        items = evaluate([scene], finer).items
        # One in seven keypoints is beyond the outermost cell centres, where nothing can be interpolated.
        assert items["MMA@1.42px"][0] > 6 / 7
        assert (items["MMA@1px"][0] > 6 / 7) == (expected == 0)
        assert_allclose(items["corner_error"], expected, atol=0.1)
    coarse = evaluate([make_planes(shift(4, 4), scene="v_coarse")], SETTINGS).items
    assert coarse["MMA@3px"] == [0.0]


def test_perfect_matches_are_within_half_a_cell(make_planes):
    """B shows all of A, so each keypoint has a cell of B within half a cell diagonal."""
    into = np.array([[0.8, 0.03, 12], [-0.02, 0.75, 10], [2e-4, 1e-4, 1]])
    bound = np.hypot(4, 4)
    items = evaluate([make_planes(into)], SETTINGS | {"thresholds": [bound + 0.01, bound / 4]}).items
    assert items[f"MMA@{bound + 0.01:g}px"] == [1.0]
    assert items[f"MMA@{bound / 4:g}px"][0] < 0.6
    assert items["corner_error"][0] < 3


@pytest.mark.parametrize("perfect", [True, False])
def test_against_brute_force(make_planes, monkeypatch, perfect):
    """Raw images have different sizes and are scaled to one frame size; blocks do not divide the keypoints evenly."""
    monkeypatch.setattr(neighbours, "BLOCK", 50)
    planes = [
        np.array([[0.9, 0.1, 2], [-0.05, 1.1, 1], [1e-3, -5e-4, 1]]),
        np.array([[1.5, 0, -9], [0, 1.2, 4], [0, 0, 1]]),
    ]
    scales = [np.diag([0.5, 0.4, 1]), np.diag([0.8, 0.5, 1]), np.diag([0.4, 0.6, 1])]
    features = None if perfect else random_features(3, *GRID, 16)
    scene = make_planes(*planes, scales=scales, features=features)
    stored = scene.features["features"][:].astype(np.float64).reshape(3, -1, scene.features["features"].shape[3])
    stored /= np.linalg.norm(stored, axis=2, keepdims=True)
    items = evaluate([scene], SETTINGS).items
    for k, plane in enumerate(planes):
        table = stored[0] @ stored[k + 1].T
        a = np.arange(len(table))
        b = table.argmax(axis=1)
        mutual = table.argmax(axis=0)[b] == a
        places_a, places_b = (cells(scales[i]).reshape(-1, 2) for i in (0, k + 1))
        errors = np.linalg.norm(written(places_a[mutual], plane) - places_b[b[mutual]], axis=1)
        assert items["n_matches"][k] == mutual.sum()
        assert_allclose(items["matched"][k], mutual.mean())
        assert_allclose([items[f"MMA@{t}px"][k] for t in (1, 3, 5)], [np.mean(errors <= t) for t in (1, 3, 5)])


def test_random_features_score_chance(make_planes):
    """Random matches are within t pixels as often as cells of B are within t pixels of the true position."""
    t, planes = 40, [shift(10 * k, 5 * k) for k in range(8)]
    scene = make_planes(*planes, features=random_features(9, *GRID, 32, seed=1))
    places = cells(np.diag([0.5, 0.5, 1])).reshape(-1, 2)
    reachable = [np.linalg.norm(written(places, h)[:, None] - places, axis=2) <= t for h in planes]
    row = next(row for row in evaluate([scene], SETTINGS | {"thresholds": [t]}).rows if row.metric == f"MMA@{t}px")
    chance = np.mean(reachable)
    matches = 8 * 0.4 * len(places)
    assert abs(row.value - chance) < 4 * np.sqrt(chance * (1 - chance) / matches)
    assert 0.1 < chance < 0.3
    errors = evaluate([scene], SETTINGS).items["corner_error"]
    assert all(error is None or error > 10 for error in errors)


def test_area_under_the_curve_is_exact():
    """Compare with the integral of the fraction of pairs below x, on a fine grid."""
    errors = [0.4, 2.2, 2.9, 7.0, 80.0, None]
    items = {name: [] for name in ("MMA@1px", "matched")}
    items |= {
        "scene": list("uvwxyz"),
        "change": ["viewpoint"] * 6,
        "a": ["1"] * 6,
        "b": ["2"] * 6,
        "corner_error": errors,
    }
    items |= {"MMA@1px": [0.5] * 6, "matched": [0.5] * 6}
    found = {s.metric: s for s in samples(items, SETTINGS | {"thresholds": [1]}) if s.condition == "all"}
    known = np.array([error for error in errors if error is not None])
    for t in (3, 5, 10):
        x = np.linspace(0, t, 100_001)
        share = (known[:, None] <= x).sum(axis=0) / len(errors)
        assert_allclose(np.mean(found[f"AUC@{t}px"].values), np.trapezoid(share, x) / t, atol=1e-4)
    assert found["corner error"].row().value == (2.9 + 7.0) / 2  # a failure counts as infinite


def test_conditions(make_planes):
    scenes = [
        make_planes(shift(0, 0), shift(2.4, 3.2), scene="v_wall"),
        make_planes(np.eye(3), scene="i_day", ground_truth=truth(np.eye(3), change="illumination")),
    ]
    evaluation = evaluate(scenes, SETTINGS)
    values = {row.condition: (row.value, row.n) for row in evaluation.rows if row.metric == "MMA@3px"}
    assert values == {"all": (2 / 3, 3), "illumination": (1.0, 1), "viewpoint": (0.5, 2)}
    assert evaluation.items["change"] == ["viewpoint", "viewpoint", "illumination"]
    plain = make_planes(np.eye(3), scene="plain", ground_truth={"pairs": truth(np.eye(3))["pairs"]})
    assert {row.condition for row in evaluate([plain], SETTINGS).rows} == {"all"}


def test_features_without_content_find_nothing(make_planes):
    items = evaluate([make_planes(shift(9, 9), features=np.full((2, *GRID, 4), 0.5))], SETTINGS).items
    assert (items["n_matches"], items["MMA@5px"], items["corner_error"]) == ([1], [0.0], [None])


def test_every_extractor_is_asked_the_same_and_answers_the_same_again(make_planes):
    planes = shift(3, 1), shift(-8, 2)
    good, bad = make_planes(*planes), make_planes(*planes, features=random_features(3, *GRID, 4), scene="v_w")
    asked = [[sample.keys for sample in samples(evaluate([scene], SETTINGS).items, SETTINGS)] for scene in (good, bad)]
    assert [[key[1:] for key in keys] for keys in asked[0]] == [[key[1:] for key in keys] for keys in asked[1]]
    assert evaluate([bad], SETTINGS, seed=3) == evaluate([bad], SETTINGS, seed=3)


def test_missing_images_and_missing_homographies(make_planes, make_scene):
    scene = make_planes(np.eye(3), ground_truth=truth(np.eye(3), np.eye(3)))
    with pytest.raises(DataError, match=r"lacks images[\s\S]*v_wall[\s\S]*no frame 3 among 1, 2"):
        evaluate([scene], SETTINGS)
    for name, known in (("none", {}), ("empty", {"pairs": []}), ("poses", {"pairs": [{"a": "1", "b": "2"}]})):
        with pytest.raises(DataError, match="has no homographies"):
            evaluate([make_planes(np.eye(3), scene=name, ground_truth=known)], SETTINGS)
    with pytest.raises(DataError, match="has no homographies"):
        evaluate([make_scene(np.tile(np.eye(4), (2, 1, 1)), random_features(2, 3, 4, 5), scene="without")], SETTINGS)


def test_cells_beyond_the_image_are_no_keypoints(make_planes):
    """In a map whose last row and column begin at the border, 12 x 16 of the 13 x 17 cells are inside the image."""
    features = np.repeat(random_features(1, 13, 17, 8), 2, axis=0)
    beyond = make_planes(np.eye(3), features=features, extent=(52, 68))
    assert evaluate([beyond], SETTINGS).items["n_matches"] == [12 * 16]


def test_corner_error():
    size = (30, 40)
    assert_allclose(corner_error(shift(3, 4), np.eye(3), size), 5)
    assert_allclose(corner_error(2 * shift(3, 4), np.eye(3), size), 5)  # a homography is defined up to scale
    # Scaled by 1.5: corners move by 0, 20, 25 and 15 pixels.
    assert_allclose(corner_error(np.diag([1.5, 1.5, 1]), np.eye(3), size), (0 + 20 + 25 + 15) / 4)
    behind = np.array([[1, 0, 0], [0, 1, 0], [-0.05, 0, 1]])  # the right border is mapped beyond infinity
    assert corner_error(behind, np.eye(3), size) == np.inf
    assert_array_equal(transfer(behind, np.array([[20.0, 5], [10, 5]])), [[np.inf, np.inf], [20, 10]])


def test_homography_of_noisy_matches_with_outliers():
    rng = np.random.default_rng(0)
    true = np.array([[1.1, 0.1, 5], [-0.05, 0.95, 10], [1e-4, -5e-5, 1]])
    a = rng.uniform(0, 600, (500, 2))
    b = written(a, true) + rng.normal(0, 0.5, (500, 2))
    b[:300] = rng.uniform(0, 600, (300, 2))
    estimates = [estimate_homography(a, b, 3.0, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert all(corner_error(estimate, true, (600, 600)) < 2 for estimate in estimates)
    assert_array_equal(estimates[0], estimates[1])


@pytest.mark.parametrize("places", [np.empty((0, 2)), np.eye(2), np.ones((9, 2)), np.arange(18.0).reshape(9, 2)])
def test_too_few_matches_or_all_on_a_line_make_no_homography(places):
    assert estimate_homography(places, places, 3.0, np.random.default_rng(0)) is None


def test_a_sequence_from_its_files_to_its_numbers(tmp_path):
    """A textured plane from two viewpoints, with frames of half the size; dense SIFT finds the homography."""
    folder = tmp_path / "raw" / "v_wall"
    folder.mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, (192, 256), np.uint8)
    first = cv2.equalizeHist(cv2.GaussianBlur(noise, (0, 0), 3))
    planes = [np.eye(3), shift(16, -8), shift(8, 24), np.diag([1.1, 1.1, 1]), shift(0, 8)]
    cv2.imwrite(str(folder / "1.ppm"), np.dstack([first] * 3))
    for k, plane in enumerate(planes, start=2):
        cv2.imwrite(str(folder / f"{k}.ppm"), np.dstack([cv2.warpPerspective(first, plane, (256, 192))] * 3))
        np.savetxt(folder / f"H_1_{k}", plane)
    prepared = {"height": 96, "width": 128, "images": "all", "max_hole_fraction": 1.0}
    prepare_frames("hpatches", tmp_path / "raw", "v_wall", tmp_path / "frames.h5", "hpatches", prepared)
    model = {"name": "dense_sift", "stride": 4, "keypoint_size": 4}
    extract_scene(model, None, tmp_path / "frames.h5", tmp_path / "features.h5", seed=0)
    with Frames(tmp_path / "frames.h5") as frames, Features(tmp_path / "features.h5") as features:
        items = evaluate([EvaluatedScene(frames.path, None, features.path)], SETTINGS).items
    # Shifts are by whole cells of 8 raw pixels; matches in the scaled image lie between cells.
    assert items["MMA@1px"][0] == 1
    assert min(items["MMA@1px"][k] for k in (1, 2, 4)) > 0.9
    assert items["MMA@5px"][3] > 0.6
    assert all(error < 1 for error in np.delete(items["corner_error"], 3))
    assert items["corner_error"][3] < 5
