from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loco.evaluation import landmark_retrieval
from loco.evaluation.intervals import Item
from loco.evaluation.landmark_retrieval import average_precision, draw_landmarks, samples

SETTINGS = {"landmarks": 40, "rho": 0.2, "kappa": None, "min_baseline": 0.0, "selected_fraction": 0.5}


def defined(scores, positive):
    """Return the mean over the positives of the precision at their rank, for distinct scores."""
    ranked = np.asarray(positive)[np.argsort(-np.asarray(scores))]
    hits = np.cumsum(ranked) / np.arange(1, len(ranked) + 1)
    return hits[ranked].mean() if ranked.any() else None


@pytest.mark.parametrize(
    ("ranked", "expected"), [("0001", 0.25), ("01", 0.5), ("1", 1), ("11100", 1), ("0101", 0.5), ("1001", 0.75)]
)
def test_average_precision_by_hand(ranked, expected):
    """A positive does not count as half a rank above itself: a single one at rank 4 has 1/4, not 1/3."""
    positive = np.array(list(ranked)) == "1"
    assert average_precision(-np.arange(len(ranked)), positive) == pytest.approx(expected, rel=1e-12)


def test_without_a_positive_there_is_no_average_precision():
    assert average_precision([0.1, 0.2], [False, False]) is None
    assert average_precision([], []) is None


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 200), st.floats(0.01, 1), st.integers(0, 2**32 - 1))
def test_average_precision_equals_its_definition(n, share, seed):
    rng = np.random.default_rng(seed)
    scores, positive = rng.permutation(n) / n, rng.random(n) < share
    assert average_precision(scores, positive) == (
        pytest.approx(defined(scores, positive), rel=1e-9) if positive.any() else None
    )


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=6))
def test_ties_are_worth_their_average_over_all_orders(ranked):
    scores, positive = (np.array(column) for column in zip(*ranked))
    orders = [scores + np.array(order) / 100 for order in permutations(range(len(ranked)))]
    expected = np.mean([defined(order, positive) for order in orders]) if positive.any() else None
    assert average_precision(scores, positive) == (expected if expected is None else pytest.approx(expected, rel=1e-9))


def test_large_rankings_of_ties_are_exact():
    n, p = 1_000_000, 300
    k = np.arange(1, n + 1)
    expected = np.mean((1 + (k - 1) * (p - 1) / (n - 1)) / k)
    assert average_precision(np.zeros(n), np.arange(n) < p) == pytest.approx(expected, rel=1e-9)


def test_landmarks_come_from_all_images_and_all_their_patches():
    valid = np.ones((5, 4, 6), dtype=bool)
    valid[1], valid[3, 1:] = False, False
    drawn = draw_landmarks(valid, 4000, np.random.default_rng(0))
    assert valid[tuple(drawn.T)].all()
    counts = np.bincount(drawn[:, 0], minlength=5) / 4000
    np.testing.assert_allclose(counts, [0.25, 0, 0.25, 0.25, 0.25], atol=0.03)
    patches, counts = np.unique(drawn[drawn[:, 0] == 4], axis=0, return_counts=True)
    assert len(patches) == 24
    assert counts.min() > 15
    assert draw_landmarks(np.zeros((2, 3, 3), dtype=bool), 5, np.random.default_rng(0)).shape == (0, 3)


def room(make_scene, points, features, valid=None, **more):
    poses = np.tile(np.eye(4), (len(points), 1, 1))
    return make_scene(
        poses, features, points=points, valid=valid, size=(2 * points.shape[1], 2 * points.shape[2]), **more
    )


def unit(array):
    return array / np.linalg.norm(array, axis=-1, keepdims=True)


def random_room(make_scene, n=8, seed=0, repeats=1, **more):
    """Patches in a cube of 0.8 m, some invalid, and weak features on a grid ``repeats`` times as fine."""
    rng = np.random.default_rng(seed)
    points, valid = rng.random((n, 4, 5, 3)) * 0.8, rng.random((n, 4, 5)) < 0.8
    valid[-1] = False
    features = unit(rng.normal(size=(n, 4, 5, 6)) + 2 * np.concatenate([points, points], axis=-1))
    features = features.repeat(repeats, axis=1).repeat(repeats, axis=2)
    return room(make_scene, points, features, valid, **more)


@pytest.mark.parametrize("repeats", [1, 2])
@pytest.mark.parametrize("kappa", [None, 0.5])
def test_equals_brute_force(make_scene, kappa, repeats):
    scene = random_room(make_scene, repeats=repeats)
    result = landmark_retrieval.evaluate([scene], SETTINGS | {"kappa": kappa})
    points, valid = (scene.correspondences[name][:] for name in ("points", "valid"))
    features = unit(scene.features["features"][:, ::repeats, ::repeats].astype(np.float64))
    rng = scene.rng(0)
    drawn = draw_landmarks(valid, 40, rng)
    half = rng.permutation(8) % 2
    assert sorted(half) == [0] * 4 + [1] * 4
    for n, (i, r, c) in enumerate(drawn):
        others = {part: [j for j in range(7) if j != i and part in (None, half[j])] for part in (None, 0, 1)}
        distance = np.linalg.norm(points.astype(np.float64) - points[i, r, c], axis=-1)
        similarity = features @ features[i, r, c]
        ranked = valid & (distance < (kappa or np.inf))
        view = valid & (distance < 0.2)
        assert result.items["n_views"][n] == view[others[None]].sum()
        assert result.items["n_images"][n] == view[others[None]].any(axis=(1, 2)).sum()
        for part, images in others.items():
            suffix = "" if part is None else f"_{part}"
            expected = defined(similarity[images][ranked[images]], view[images][ranked[images]])
            assert result.items[f"ap_views{suffix}"][n] == pytest.approx(expected, abs=2e-3)
            best = [similarity[j][valid[j]].max() for j in images]
            expected = defined(best, view[images].any(axis=(1, 2)))
            assert result.items[f"ap_images{suffix}"][n] == pytest.approx(expected, abs=2e-3)


def places(images, rng, spacing=1.0, count=20):
    """Return images that show all of 20 distant places, each in its own order: numbers of the places, and points."""
    number = np.stack([rng.permutation(count) for _ in range(images)]).reshape(images, 4, -1)
    return number, number[..., None] * np.array([spacing, 0, 0]) + 0.02 * rng.random((*number.shape, 3))


def test_features_of_the_place_are_perfect(make_scene):
    rng = np.random.default_rng(0)
    number, points = places(6, rng)
    valid = rng.random(number.shape) < 0.6  # so that some images do not show all places
    scene = room(make_scene, points, np.eye(20)[number], valid)
    result = landmark_retrieval.evaluate([scene], SETTINGS)
    assert [row.value for row in result.rows] == [pytest.approx(1)] * 6
    assert min(result.items["n_images"]) < 5


def test_the_other_landmarks_stay_among_the_views(make_scene):
    """Every place is in all six images and many are landmarks, so each has five views."""
    number, points = places(6, np.random.default_rng(0))
    scene = room(make_scene, points, np.eye(20)[number])
    result = landmark_retrieval.evaluate([scene], SETTINGS | {"landmarks": 200})
    assert set(result.items["n_views"]) == set(result.items["n_images"]) == {5}


def test_patches_of_the_landmark_s_own_image_are_not_ranked(make_scene):
    """All patches of the landmark's image look like it, near and far ones; they are not counted."""
    number, points = places(6, np.random.default_rng(0))
    features = np.eye(26)[number] + 0.2 * np.eye(26)[20 + np.arange(6)][:, None, None]
    features[0] = features[0, 0, 0]
    scene = room(make_scene, points, unit(features))
    result = landmark_retrieval.evaluate([scene], SETTINGS | {"landmarks": 600})
    drawn = zip(*(result.items[name] for name in ("image", "row", "column", "ap_views")))
    scores = [score for image, row, column, score in drawn if (image, row, column) == ("view0", 0, 0)]
    assert len(scores) > 0
    np.testing.assert_allclose(scores, 1)


def test_images_from_the_same_position_can_be_left_out(make_scene):
    """Two images per position; the features of these two match each other and no others."""
    number, points = places(6, np.random.default_rng(0))
    features = np.zeros((6, 4, 5, 60))
    for i in range(6):
        features[i] = np.eye(60)[20 * (i // 2) + number[i]]
    poses = np.tile(np.eye(4), (6, 1, 1))
    poses[:, 0, 3] = [0, 0.04, 1, 1.04, 2, 2.04]
    scene = make_scene(poses, features, points=points, size=(8, 10))
    anywhere, elsewhere = (
        landmark_retrieval.evaluate([scene], SETTINGS | {"min_baseline": least}) for least in (0.0, 0.1)
    )
    assert set(anywhere.items["n_views"]) == {5}
    assert set(elsewhere.items["n_views"]) == set(elsewhere.items["n_images"]) == {4}
    assert anywhere.rows[0].value > elsewhere.rows[0].value + 0.1
    k, n, p = np.arange(1, 81), 80, 4  # all other patches look the same
    chance = np.mean((1 + (k - 1) * (p - 1) / (n - 1)) / k)
    assert elsewhere.rows[0].value == pytest.approx(chance)


def test_meaningless_features_score_chance(make_scene):
    """Constant features tie all patches, whose AP is the mean over all orders; random ones have nearly this AP."""
    rng = np.random.default_rng(0)
    _, points = places(20, rng)
    wanted = SETTINGS | {"landmarks": 300}
    constant = landmark_retrieval.evaluate([room(make_scene, points, np.ones((20, 4, 5, 3)) / 3**0.5)], wanted).rows
    k, n, p = np.arange(1, 381), 380, 19  # one of 20 places
    chance = np.mean((1 + (k - 1) * (p - 1) / (n - 1)) / k)
    assert chance == pytest.approx(p / n, abs=0.02)
    assert constant[0].value == pytest.approx(chance, rel=1e-9)
    assert constant[0].low == pytest.approx(constant[0].high)
    features = unit(rng.normal(size=(20, 4, 5, 16)))
    scored = landmark_retrieval.evaluate([room(make_scene, points, features, scene="random")], wanted).rows
    assert scored[0].value == pytest.approx(chance, abs=0.01)


def test_images_back_to_back_show_none_of_each_other_s_places(make_scene, turned):
    """Places mirrored through the camera have the same projections as the places."""
    ahead = np.random.default_rng(0).normal(size=(4, 5, 3)) + np.array([0, 0, 9])
    points = np.stack([ahead, -ahead])
    scene = make_scene(np.stack([turned(0), turned(180)]), np.ones((2, 4, 5, 2)) / 2**0.5, points=points, size=(8, 10))
    result = landmark_retrieval.evaluate([scene], SETTINGS)
    assert set(result.items["n_views"]) == {0}
    assert {(row.value, row.low, row.n) for row in result.rows} == {(None, None, 0)}


@pytest.mark.parametrize("valid", [True, False])
def test_a_scene_of_one_image_has_no_landmarks(make_scene, valid):
    alone = random_room(make_scene, n=2, scene="alone")  # the last image has no valid patch
    if not valid:
        alone = room(make_scene, np.zeros((1, 4, 5, 3)), np.ones((1, 4, 5, 2)), np.zeros((1, 4, 5), bool), scene="void")
    result = landmark_retrieval.evaluate([alone], SETTINGS)
    assert set(result.items["ap_views"]) == set(result.items["ap_images"]) == ({None} if valid else set())
    assert {(row.value, row.n) for row in result.rows} == {(None, 0)}
    other = random_room(make_scene, scene="other")
    both = landmark_retrieval.evaluate([alone, other], SETTINGS)
    assert both.rows == landmark_retrieval.evaluate([other], SETTINGS).rows


def test_the_good_landmarks_are_chosen(make_scene):
    """Ten of 20 places are recognised, ten have features of no meaning."""
    rng = np.random.default_rng(0)
    number, points = places(10, rng)
    features = np.where(number[..., None] < 10, np.eye(40)[number], unit(rng.normal(size=(10, 4, 5, 40)) * 0.7))
    result = landmark_retrieval.evaluate([room(make_scene, points, features)], SETTINGS | {"selected_fraction": 0.4})
    rows = {(row.metric, row.condition): row for row in result.rows}
    assert list(rows) == [
        (metric, condition)
        for metric in ("AP of views", "AP of images")
        for condition in ("all landmarks", "by halves", "best 40 % by halves")
    ]
    assert rows["AP of views", "best 40 % by halves"].value == pytest.approx(1)
    assert rows["AP of views", "best 40 % by halves"].n == 16
    assert rows["AP of views", "by halves"].value < 0.8
    assert rows["AP of views", "all landmarks"].n == rows["AP of views", "by halves"].n == 40


def test_what_is_chosen_is_not_scored_by_what_it_was_chosen_by(make_scene):
    rng = np.random.default_rng(0)
    _, points = places(20, rng)
    features = unit(rng.normal(size=(20, 4, 5, 16)))
    wanted = SETTINGS | {"landmarks": 400, "selected_fraction": 0.1}
    result = landmark_retrieval.evaluate([room(make_scene, points, features)], wanted)
    half = np.array(result.items["ap_views_0"])
    self_chosen = np.sort(half)[-40:].mean()
    by_halves, best = (row for row in result.rows[1:3])
    assert self_chosen > by_halves.value + 0.06
    assert best.value == pytest.approx(by_halves.value, abs=0.02)


def test_chosen_by_hand():
    items = {
        "scene": ["a", "a", "a", "b", "a", "a"],
        "image": ["0", "0", "1", "0", "1", "1"],
        "row": [0, 1, 2, 3, 4, 5],
        "column": [0, 1, 2, 3, 4, 5],
        "n_views": [2, 3, 4, 5, 1, 0],
        "n_images": [2, 2, 2, 2, 1, 0],
        "ap_views": [0.1, 0.2, 0.3, 0.4, 0.5, None],
        "ap_images": [0.6, 0.7, 0.8, 0.9, 1.0, None],
        "ap_views_0": [0.9, 0.8, 0.2, 0.5, 0.1, None],
        "ap_views_1": [0.3, 0.4, 0.6, 0.7, None, None],
        "ap_images_0": [0.11, 0.12, 0.13, 0.14, 0.15, None],
        "ap_images_1": [0.21, 0.22, 0.23, 0.24, None, None],
    }
    views_all, views_halves, views_best, images_all, images_halves, images_best = samples(
        items, {"selected_fraction": 0.5}
    )
    assert views_all.values == [0.1, 0.2, 0.3, 0.4, 0.5]
    assert images_all.values == [0.6, 0.7, 0.8, 0.9, 1.0]
    np.testing.assert_allclose(views_halves.values, [0.6, 0.6, 0.4, 0.6])
    np.testing.assert_allclose(images_halves.values, [0.16, 0.17, 0.18, 0.19])
    # Scene a has three with views in both halves, of which two are chosen: on half 0 the first and second, on half 1
    # the third and second. Scene b has one.
    chosen = [Item("a", part=(0,)), Item("a", part=(1,)), Item("b", part=(0,))]
    assert views_best.keys == images_best.keys == chosen
    np.testing.assert_allclose(views_best.values, [(0.3 + 0.2) / 2, (0.4 + 0.8) / 2, (0.7 + 0.5) / 2])
    np.testing.assert_allclose(images_best.values, [(0.21 + 0.13) / 2, (0.22 + 0.12) / 2, (0.24 + 0.14) / 2])


def test_every_extractor_is_asked_the_same(make_scene):
    found = []
    for channels in (3, 5):
        rng = np.random.default_rng(0)
        _, points = places(6, rng)
        valid = rng.random(points.shape[:3]) < 0.5
        features = unit(rng.normal(size=(6, 4, 5, channels)))
        result = landmark_retrieval.evaluate([room(make_scene, points, features, valid)], SETTINGS)
        found.append([(s.metric, s.condition, s.keys) for s in samples(result.items, SETTINGS)])
    assert found[0] == found[1]


def test_blocks_change_nothing(make_scene, monkeypatch):
    scene = random_room(make_scene)
    whole = landmark_retrieval.evaluate([scene], SETTINGS)
    monkeypatch.setattr(landmark_retrieval, "BLOCK", 500)
    assert landmark_retrieval.evaluate([scene], SETTINGS) == whole
    assert landmark_retrieval.evaluate([scene], SETTINGS, seed=1) != whole
