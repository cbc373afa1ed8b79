from __future__ import annotations

from itertools import pairwise, permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from loco.errors import DataError
from loco.evaluation import location_consistency
from loco.evaluation.location_consistency import (
    Condition,
    StoredRows,
    _draw_samples,
    _points,
    _similarities,
    mean_average_precision,
    query_precisions,
)
from loco.evaluation.result import EvaluatedScene
from loco.storage import Features

NO_IMAGE = np.empty(0)  # for tests in which the images of the patches do not matter
SETTINGS = {
    "radii": [2.0],
    "weights": ["uniform"],
    "queries_per_scene": 60,
    "samples_per_query": 150,
}


def average_precision(ranked_positive):
    """The definition: the mean over the positives of the precision at their rank."""
    hits = [sum(ranked_positive[: i + 1]) / (i + 1) for i, positive in enumerate(ranked_positive) if positive]
    return sum(hits) / len(hits)


def integrated(distances, ranking, radius):
    """The mean of the average precision over thresholds, as a sum over intervals between the samples' distances."""
    edges = sorted({d for d in distances if d < radius} | {radius})
    total = sum(
        average_precision([distances[i] <= low for i in ranking]) * (high - low) for low, high in pairwise(edges)
    )
    return total / (edges[-1] - edges[0])


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 40), st.booleans(), st.integers(0, 2**32 - 1))
def test_equals_its_definition(n, coarse, seed):
    rng = np.random.default_rng(seed)
    distances = rng.integers(0, 6, (3, n)) / 2 if coarse else 3 * rng.random((3, n))
    distances[:, 0] = 0.5  # at least one within the radius
    similarities = np.stack([rng.permutation(n) for _ in range(3)]) / n
    expected = [integrated(d, np.argsort(-s), radius=2.0) for d, s in zip(distances, similarities)]
    np.testing.assert_allclose(mean_average_precision(distances, similarities, 2.0), expected, rtol=1e-12)


def test_by_hand():
    # The farther of two samples ranks first: AP is 1/2 for thresholds in [0, 1), and 1 in [1, 4].
    assert mean_average_precision(np.array([[0.0, 1.0]]), np.array([[0.1, 0.2]]), 4.0) == pytest.approx([0.875])


def test_ranking_by_nearness_is_perfect():
    distances = np.random.default_rng(0).random((4, 100))
    np.testing.assert_allclose(mean_average_precision(distances, -distances, 1.0), 1)


@pytest.mark.parametrize("similarities", [[0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 2]])
def test_ties_are_worth_their_average_over_all_orders(similarities):
    distances = np.array([0.1, 0.2, 0.5, 0.9, 1.4, 2.5])
    orders = [p for p in permutations(range(6)) if np.all(np.diff(np.array(similarities)[list(p)]) <= 0)]
    expected = np.mean([integrated(distances, order, 2.0) for order in orders])
    rows = 20_000
    found = mean_average_precision(np.tile(distances, (rows, 1)), np.tile(similarities, (rows, 1)), 2.0)
    assert found.mean() == pytest.approx(expected, abs=5 * found.std() / np.sqrt(rows))
    assert found.std() > 0


def test_padding_changes_nothing():
    rng = np.random.default_rng(0)
    distances, similarities = rng.random((5, 37)), rng.random((5, 37))
    padded = [np.pad(a, ((0, 0), (0, 9)), constant_values=v) for a, v in ((distances, np.inf), (similarities, -np.inf))]
    np.testing.assert_allclose(
        mean_average_precision(*padded, 1.0), mean_average_precision(distances, similarities, 1.0)
    )


def test_without_a_sample_in_reach_there_is_no_score():
    found = mean_average_precision(np.array([[3.0, np.inf], [1.0, 3.0]]), np.zeros((2, 2)), 2.0)
    assert np.isnan(found[0])
    assert np.isfinite(found[1])
    assert np.isnan(mean_average_precision(np.empty((2, 0)), np.empty((2, 0)), 2.0)).all()


def room(seed=0, n=600, images=6):
    rng = np.random.default_rng(seed)
    return rng.random((n, 3)) * [4, 4, 2.5], np.repeat(np.arange(images), n // images)


def fourier(points, channels=2048):
    """Return random Fourier features of positions: their cosine falls with distance (Rahimi & Recht 2007)."""
    rng = np.random.default_rng(9)
    phase = points @ rng.normal(0, 1, (3, channels))
    return normalize(torch.from_numpy(np.concatenate([np.cos(phase), np.sin(phase)], axis=-1)).float(), dim=-1)


def score(features, points, image, seed=0, **changes):
    _, precisions = query_precisions(features, points, image, SETTINGS | changes, np.random.default_rng(seed))
    (scores,) = precisions.values()
    return np.nanmean(scores)


def chance(points, radius=2.0):
    """Return the score of random rankings of all patches within the radius, by the definition."""
    rng = np.random.default_rng(5)
    scores = []
    for query in range(0, len(points), 15):
        distances = np.linalg.norm(np.delete(points, query, axis=0) - points[query], axis=1)
        near = list(distances[distances <= radius])
        scores.append(integrated(near, rng.permutation(len(near)), radius))
    return np.mean(scores)


def test_scale_of_the_score():
    points, image = room(n=300)
    assert score(fourier(points), points, image) > 0.95
    random = normalize(torch.randn(300, 64, generator=torch.Generator().manual_seed(0)), dim=1)
    constant = normalize(torch.ones(300, 65), dim=1)
    for worthless in (random, constant):
        found = [score(worthless, points, image, seed, samples_per_query=None) for seed in range(5)]
        assert np.mean(found) == pytest.approx(chance(points), abs=0.02)


def test_similarities_that_differ_by_rounding_tie():
    features = torch.full((50, 64), 0.125)
    features[::2] = torch.nextafter(features[::2], torch.tensor(1.0))
    (similarities,) = _similarities(features, np.array([0, 1]), [np.tile(np.arange(2, 50), (2, 1))])
    np.testing.assert_array_equal(similarities, 1)


def test_misaligned_points_are_noticed():
    points, image = room()
    assert score(fourier(points), np.roll(points, 100, axis=0), image) < score(fourier(points), points, image) - 0.3


def test_the_query_is_not_its_own_sample():
    points = np.arange(5.0)[:, None] * [10, 0, 0]  # no other patch within 2 m
    _, precisions = query_precisions(fourier(points), points, np.zeros(5, int), SETTINGS, np.random.default_rng(0))
    assert np.isnan(precisions[Condition(2.0, "uniform")]).all()


def test_patches_of_the_query_s_own_image_are_samples():
    points, _ = room(n=60)
    assert np.isfinite(score(fourier(points), points, np.zeros(60, int)))


def test_all_samples_can_be_asked_for():
    points, image = room(n=120)
    assert score(fourier(points), points, image, samples_per_query=None) == score(
        fourier(points), points, image, samples_per_query=120
    )


def test_queries_are_drawn_by_image_then_by_patch():
    image = np.array([0] * 990 + [1] * 10)
    points = np.random.default_rng(0).random((1000, 3))
    queries, _ = query_precisions(
        fourier(points, 2), points, image, SETTINGS | {"queries_per_scene": 1000}, np.random.default_rng(0)
    )
    assert np.mean(image[queries]) == pytest.approx(0.5, abs=0.06)
    patches, counts = np.unique(queries[image[queries] == 1], return_counts=True)
    assert len(patches) == 10
    assert counts.min() > 25


@pytest.mark.parametrize(("weights", "weight"), [("uniform", lambda d: d**0), ("inverse_square", lambda d: d**-2)])
def test_samples_follow_their_weights(weights, weight):
    distance = np.array([0.02, 0.1, 0.5, 1.0, 1.9, 2.1])
    points = np.concatenate([[0], distance])[:, None] * [[0.0, 0.6, 0.8]]
    rng = np.random.default_rng(0)
    drawn = [_draw_samples(points, NO_IMAGE, 0, [Condition(2.0, weights)], 1, [rng])[0][0][0] for _ in range(4000)]
    expected = weight(np.maximum(distance[:5], 0.1))
    found = np.bincount(drawn, minlength=7)[1:] / 4000
    np.testing.assert_allclose(found, [*(expected / expected.sum()), 0], atol=0.03)


@pytest.mark.parametrize(
    ("count", "radius", "warned"), [(300, 9.0, False), (600, 9.0, True), (20, 0.5, True), (20, 2.0, False)]
)
def test_weights_without_an_effect_are_stated(count, radius, warned, caplog):
    points, image = room()
    changes = {"radii": [radius], "weights": ["uniform", "inverse_square"], "samples_per_query": count}
    settings = SETTINGS | changes
    _, precisions = query_precisions(fourier(points, 8), points, image, settings, np.random.default_rng(0))
    uniform, inverse_square = precisions.values()
    assert ("weights of the samples have no effect" in caplog.text) == warned
    assert warned == (np.isclose(uniform, inverse_square, equal_nan=True).mean() > 0.5)


def test_samples_are_distinct():
    points, _ = room()
    near = Condition(2.0, "inverse_square")
    ((samples, distances),) = _draw_samples(points, NO_IMAGE, 7, [near], 100, [np.random.default_rng(0)])
    assert len(set(samples)) == 100
    assert 7 not in samples
    np.testing.assert_allclose(distances, np.linalg.norm(points[samples] - points[7], axis=1))


@pytest.fixture
def scene(make_scene):
    """Return four images of 4 x 5 patches, some of them invalid, and features on a grid twice as fine."""
    rng = np.random.default_rng(0)
    points = rng.random((4, 4, 5, 3)).astype(np.float32) * 3
    points[0, 0, 0] = np.nan
    valid = rng.random((4, 4, 5)) < 0.8
    valid[0, 0, 0], valid[3] = False, False
    features = np.nan_to_num(fourier(points, 16).numpy().repeat(2, axis=1).repeat(2, axis=2))
    features[:, ::2, :, :8] += 0.1  # the four cells of a patch differ, and their mean is its feature
    features[:, 1::2, :, :8] -= 0.1
    features[:, :, ::2, 8:] += 0.1
    features[:, :, 1::2, 8:] -= 0.1
    return make_scene(np.tile(np.eye(4), (4, 1, 1)), features, points=points, valid=valid, size=(32, 40))


def test_features_are_read_at_the_patch_centres(scene):
    points, image = _points(scene)
    features = StoredRows(scene, image)[np.arange(len(image))]
    valid = scene.correspondences["valid"][:]
    np.testing.assert_array_equal(points, scene.correspondences["points"][:][valid])
    np.testing.assert_array_equal(image, np.repeat(np.arange(4), valid.sum(axis=(1, 2))))
    # The centre of a patch is the corner that four cells of the finer grid share.
    np.testing.assert_allclose(features.float(), fourier(points, 16), atol=2e-3)


def test_features_are_read_in_the_order_of_the_request(scene):
    _, image = _points(scene)
    rows = StoredRows(scene, image)
    every = rows[np.arange(len(rows))]
    indices = np.random.default_rng(0).permutation(len(rows))[:20]
    assert torch.equal(rows[np.append(indices, indices[0])], every[np.append(indices, indices[0])])
    assert len(rows[indices[:0]]) == 0


def test_scores_do_not_depend_on_how_much_is_held(scene, monkeypatch):
    wanted = SETTINGS | {"radii": [0.5, 2.0], "weights": ["uniform", "inverse_square"], "samples_per_query": 10}
    points, image = _points(scene)
    rows, read = StoredRows(scene, image), []
    get = StoredRows.__getitem__
    monkeypatch.setattr(StoredRows, "__getitem__", lambda self, i: (read.append(len(i)), get(self, i))[1])
    whole = query_precisions(rows, points, image, wanted, np.random.default_rng(0))
    in_memory = query_precisions(rows[np.arange(len(rows))], points, image, wanted, np.random.default_rng(0))
    read.clear()
    most = 41  # patches: a query and its samples in the four conditions, fewer than those of the scene
    monkeypatch.setattr(location_consistency, "HELD", most * 2 * rows[np.arange(1)].shape[1])
    in_blocks = query_precisions(rows, points, image, wanted, np.random.default_rng(0))
    assert len(read) > 50
    assert max(read) <= most
    for other in (in_memory, in_blocks):
        np.testing.assert_array_equal(whole[0], other[0])
        for condition, scores in whole[1].items():
            np.testing.assert_array_equal(scores, other[1][condition])


def test_rows_summarise_the_items(scene):
    wanted = SETTINGS | {"radii": [0.5, 2.0], "weights": ["uniform", "inverse_square"], "samples_per_query": 10}
    result = location_consistency.evaluate([scene], wanted)
    conditions = ["0.5 m, uniform", "0.5 m, inverse square", "2 m, uniform", "2 m, inverse square"]
    assert [row.condition for row in result.rows] == conditions
    table = {name: np.array(column) for name, column in result.items.items()}
    assert set(table["image"]) == {"view0", "view1", "view2"}  # view3 has no valid patch
    mine = (table["radius"] == 2.0) & (table["weights"] == "uniform")
    assert table["n_queries"][mine].sum() == 60
    row = result.rows[2]
    assert row.value == pytest.approx(np.average(table["ap"][mine], weights=table["n_queries"][mine]))
    assert row.low <= row.value <= row.high
    assert row.n == 3
    assert result == location_consistency.evaluate([scene], wanted)
    assert result != location_consistency.evaluate([scene], wanted, seed=1)


def test_every_extractor_is_asked_the_same():
    points, image = room()
    queries = [
        query_precisions(features, points, image, SETTINGS, np.random.default_rng(3))[0]
        for features in (fourier(points), torch.ones(600, 2))
    ]
    np.testing.assert_array_equal(*queries)


def test_files_of_other_frames_are_refused(scene, tmp_path):
    with Features.create(tmp_path / "other.h5", "test", "room", {"n": 1, "h": 2, "w": 2, "c": 3}) as file:
        file.frames_id = 64 * "0"
    with pytest.raises(DataError, match="other frames"):
        EvaluatedScene(scene.frames_path, scene.correspondences_path, tmp_path / "other.h5")


def test_samples_of_the_own_image_can_be_left_out():
    points, image = room(n=60)
    near = [Condition(2.0, "uniform", query_image) for query_image in (True, False)]
    rngs = np.random.default_rng(0).spawn(2)
    (every, _), (others, _) = _draw_samples(points, image, 7, near, 60, rngs)
    assert set(others) == {n for n in every if image[n] != image[7]}
    assert set(every) - set(others)


def test_scores_without_the_own_image_stand_beside_the_others_and_do_not_change_them(scene):
    wanted = SETTINGS | {"weights": ["uniform", "inverse_square"], "samples_per_query": 10}
    results = {
        query_image: location_consistency.evaluate([scene], wanted | {"samples_of_query_image": query_image})
        for query_image in ("include", "exclude", "both")
    }
    plain = location_consistency.evaluate([scene], wanted)
    assert results["include"] == plain
    assert [row.condition for row in results["exclude"].rows] == [
        "2 m, uniform, other images",
        "2 m, inverse square, other images",
    ]
    assert results["both"].rows[:2] == plain.rows
    assert [row.condition for row in results["both"].rows[2:]] == [row.condition for row in results["exclude"].rows]
    assert {row.n for row in results["both"].rows} == {3}
