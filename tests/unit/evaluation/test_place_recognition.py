from __future__ import annotations

from math import comb

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from loco.errors import ConfigError, DataError
from loco.evaluation import place_recognition
from loco.evaluation.place_recognition import (
    _vocabularies,
    evaluate,
    gather,
    greedy_queries,
    overlapping_places,
    rank,
    samples,
)
from loco.evaluation.result import EvaluatedScene
from loco.storage import Features

VLAD = {"name": "vlad", "clusters": 4, "assignment": "hard", "vocabulary": "dataset", "samples": 200}
DESCRIPTORS = [
    VLAD,
    VLAD | {"assignment": "soft", "temperature": 10.0},
    {"name": "gem", "exponent": 3},
    {"name": "mean"},
]
RERANK = [{"top": 5, "matching": "mutual", "score": score} for score in ("count", "rapid_spatial", "ransac")]
SETTINGS = {
    "queries": 0.25,
    "min_overlap": 0.2,
    "max_overlap": 0.4,
    "max_distance": 10.0,
    "descriptors": DESCRIPTORS,
    "ks": [1, 5],
}
MEAN = SETTINGS | {"descriptors": [{"name": "mean"}]}


def unit(*shape, seed=0):
    return normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1).numpy()


def still(n):
    return np.tile(np.eye(4), (n, 1, 1))


def places(count, images, seed=0):
    """Return the place of each image, overlaps of 0.3 within places and 0 between them, and distinctive features."""
    place = np.arange(count * images) % count
    overlap = np.where(place[:, None] == place, 0.3, 0.0)
    np.fill_diagonal(overlap, 1)
    rng = np.random.default_rng(seed)
    features = unit(count, 4, 5, 16, seed=seed)[place] + 0.02 * rng.normal(size=(count * images, 4, 5, 16))
    return place, overlap, features / np.linalg.norm(features, axis=-1, keepdims=True)


def listed(make_scene, features, database, queries, positives, **arguments):
    """Return a scene of photographs whose dataset defines the places, by the numbers of the images."""
    names = [f"photo{i}" for i in range(len(features))]
    truth = {"database": [names[i] for i in database], "queries": [names[i] for i in queries], "positives": positives}
    return make_scene(still(len(features)), features, names=names, ground_truth=truth, separate=True, **arguments)


def values(result):
    return {(row.metric, row.condition): row.value for row in result.rows}


@pytest.fixture
def house(make_scene):
    _, overlap, features = places(6, 6)
    return make_scene(still(36), features, overlap=overlap, dataset="houses")


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("queries", [0.3, 4])
def test_ground_truth_of_overlaps_equals_its_definition(seed, queries):
    rng = np.random.default_rng(seed)
    n = 30
    overlap, poses = rng.random((n, n)) ** 4, still(n)
    poses[:, :3, 3] = rng.uniform(0, 9, (n, 3))
    settings = SETTINGS | {"queries": queries}
    database, asked, positives = overlapping_places(poses, overlap, settings, np.random.default_rng(seed))
    assert len(set(asked)) == (9 if queries == 0.3 else 4)

    def distance(i, j):
        return np.sqrt(sum((poses[i, a, 3] - poses[j, a, 3]) ** 2 for a in range(3)))

    def similar(q, r):
        return (overlap[q, r] + overlap[r, q]) / 2 >= 0.4 and distance(q, r) < 10

    expected = [r for r in range(n) if r not in asked and not any(similar(q, r) for q in asked)]
    assert 0 < len(expected) < n - len(asked)
    assert database.tolist() == expected
    for q, found in zip(asked, positives, strict=True):
        mean = {r: (overlap[q, r] + overlap[r, q]) / 2 for r in expected}
        right = [r for r in expected if overlap[q, r] >= 0.2 and mean[r] < 0.4 and distance(q, r) < 10]
        assert database[found].tolist() == right
    assert sum(map(len, positives)) > 0


def greedy_by_definition(positive, similar):
    """Select queries as LoCo does, with sets of image numbers."""
    database, queries, truths = set(range(len(positive))), [], []
    for i in range(len(positive)):
        found = {j for j in database if positive[i][j] and j != i}
        close = {j for j in range(len(positive)) if similar[i][j] and j != i}
        earlier = set().union(*truths)
        if not found or close & earlier or any(i in truth or similar[q][i] for q, truth in zip(queries, truths)):
            continue
        database -= close | {i}
        queries.append(i)
        truths.append(found)
    return queries, database, truths


@pytest.mark.parametrize("seed", range(5))
def test_greedy_queries_have_positives_and_take_none_from_each_other(seed):
    rng = np.random.default_rng(seed)
    n = 60
    overlap, poses = rng.random((n, n)) ** 14, still(n)
    np.fill_diagonal(overlap, 1)
    poses[:, :3, 3] = rng.uniform(0, 9, (n, 3))
    database, asked, positives = overlapping_places(poses, overlap, SETTINGS | {"queries": "greedy"}, rng)
    near = np.linalg.norm(poses[:, None, :3, 3] - poses[None, :, :3, 3], axis=-1) < 10
    mean = (overlap + overlap.T) / 2
    positive, similar = near & (overlap >= 0.2) & (mean < 0.4), near & (mean >= 0.4)
    queries, left, truths = greedy_by_definition(positive, similar)
    assert asked.tolist() == queries
    assert len(queries) > 4
    assert database.tolist() == sorted(left)
    assert [set(database[found]) for found in positives] == truths
    assert all(truths)
    assert greedy_queries(positive, similar).tolist() == queries


def test_far_images_are_neither_positive_nor_too_similar():
    poses = still(3)
    poses[1:, 0, 3] = 11, 12
    overlap = np.array([[1, 0.9, 0.3], [0.9, 1, 0.3], [0.3, 0.3, 1]])
    rng = np.random.default_rng(0)
    (asked,) = np.random.default_rng(0).permutation(3)[:1]
    database, queries, positives = overlapping_places(poses, overlap, SETTINGS | {"queries": 1}, rng)
    assert queries.tolist() == [asked]
    near = {0: [], 1: [2], 2: [1]}[asked]
    assert database.tolist() == [i for i in range(3) if i != asked]
    assert database[positives[0]].tolist() == near


def test_features_that_know_the_place_find_it(house):
    result = evaluate([house], SETTINGS | {"rerank": ["none", *RERANK]})
    assert len(result.rows) == 2 * 4 * 4
    for row in result.rows:
        assert row.value == 1
        assert row.n > 5
    assert {row.condition for row in result.rows} >= {
        "VLAD 4",
        "soft VLAD 4 (temperature 10)",
        "GeM 3",
        "mean, mutual + RANSAC",
    }


def chance(n, positives, k):
    return np.mean([1 - comb(n - p, k) / comb(n, k) for p in positives])


@pytest.mark.parametrize("worth", ["random", "constant"])
def test_worthless_features_find_places_by_chance(make_scene, worth):
    n, asked = 60, 400
    rng = np.random.default_rng(1)
    positives = [rng.choice(n, rng.integers(1, 6), replace=False).tolist() for _ in range(asked)]
    features = unit(n + asked, 2, 2, 32) if worth == "random" else np.full((n + asked, 2, 2, 32), 32**-0.5)
    scene = listed(make_scene, features, range(n), range(n, n + asked), positives)
    found = values(evaluate([scene], MEAN))
    for k in (1, 5):
        expected = chance(n, [len(p) for p in positives], k)
        deviation = np.sqrt(expected * (1 - expected) / asked)
        assert found[f"recall@{k}", "mean"] == pytest.approx(expected, abs=4 * deviation)


def test_listed_ground_truth(make_scene):
    features = unit(6, 2, 3, 16)
    features[3:] = features[[2, 0, 1]]  # queries 3, 4, 5 look like database images 2, 0, 1
    right = evaluate([listed(make_scene, features, [2, 1, 0], [3, 4, 5], [[0], [2], [1]], scene="right")], MEAN)
    assert values(right)["recall@1", "mean"] == 1
    wrong = evaluate([listed(make_scene, features, [2, 1, 0], [3, 4, 5], [[1], [0], [2]], scene="wrong")], MEAN)
    assert values(wrong)["recall@1", "mean"] == 0
    assert right.items["query"] == ["photo3", "photo4", "photo5"]
    assert right.items["rank"] == [1, 1, 1]
    assert set(right.items["database"]) == {"test/right"}


def test_a_query_without_positives_is_counted_but_no_miss(make_scene):
    features = unit(4, 2, 2, 16)
    features[2] = features[0]
    result = evaluate([listed(make_scene, features, [0, 1], [2, 3], [[0], []])], MEAN)
    assert [(row.value, row.n) for row in result.rows] == [(1, 1), (1, 1)]
    assert result.items["n_positives"] == [1, 0]
    assert result.items["rank"] == [1, None]


def test_more_asked_for_than_there_is(make_scene):
    features = unit(5, 2, 2, 16)
    scene = listed(make_scene, features, [0, 1, 2], [3, 4], [[2], [0, 1]])
    asked = SETTINGS | {"ks": [3, 20], "rerank": ["none", RERANK[0] | {"top": 100}]}
    for row in evaluate([scene], asked).rows:
        assert row.value == 1
        assert row.n == 2


def test_images_of_a_scene_without_queries_are_searched_through(make_scene, house):
    lonely = make_scene(still(1), unit(1, 4, 5, 16, seed=5), scene="closet", overlap=np.ones((1, 1)), dataset="houses")
    (database,) = gather([house, lonely], SETTINGS, 0)
    assert sum(image.scene is lonely for image in database.images) == 1
    assert all(query.scene is house for query in database.queries)
    result = evaluate([house, lonely], SETTINGS)
    assert {row.value for row in result.rows} == {1}
    alone = evaluate([lonely], SETTINGS)
    assert {(row.value, row.n) for row in alone.rows} == {(None, 0)}
    assert set(map(len, alone.items.values())) == {0}


def test_nobody_shows_the_place_of_a_query(make_scene):
    only = make_scene(still(1), unit(1, 2, 2, 8), overlap=np.ones((1, 1)))
    result = evaluate([only], SETTINGS | {"queries": 3, "rerank": RERANK})
    assert {(row.value, row.n) for row in result.rows} == {(None, 0)}
    assert result.items["n_positives"] == [0] * len(result.items["rank"])


def test_rooms_of_another_scene_are_in_the_way(make_scene):
    _, overlap, features = places(4, 6)
    one, two = (make_scene(still(24), features, scene=name, overlap=overlap, dataset="houses") for name in "ab")
    other = make_scene(still(24), features, scene="c", overlap=overlap, dataset="flats")
    assert values(evaluate([one], MEAN))["recall@1", "mean"] == 1
    assert values(evaluate([one, two], MEAN))["recall@1", "mean"] < 0.9  # both contain equal rooms
    found = values(evaluate([one, other], MEAN))  # a separate database per dataset
    assert found["recall@1", "mean, houses"] == found["recall@1", "mean, flats"] == 1


def test_ranking_equals_that_in_memory(monkeypatch):
    database, queries = (torch.from_numpy(unit(n, 32, seed=n)).half() for n in (23, 11))
    database[7] = database[3]  # equal descriptors keep their order
    expected = np.argsort(-(queries.double() @ database.double().T).numpy().round(6), axis=1, kind="stable")
    for part, block in ((5, 3), (128, 512)):
        monkeypatch.setattr(place_recognition, "PART", part)
        monkeypatch.setattr(place_recognition, "QUERIES", block)
        np.testing.assert_array_equal(list(rank(database, queries)), expected)


def test_patches_decide_where_the_descriptor_cannot(make_scene):
    # One database image in three has the patches of the query at their positions, the others have them at random
    # positions: their means are the same.
    rng = np.random.default_rng(0)
    features = []
    for place in range(8):
        own = unit(36, 32, seed=place)
        features += [own, own, own[rng.permutation(36)], own[rng.permutation(36)]]
    features = np.array(features).reshape(32, 6, 6, 32)
    database = [i for i in range(32) if i % 4]
    scene = listed(make_scene, features, database, range(0, 32, 4), [[3 * place] for place in range(8)])
    asked = MEAN | {"rerank": ["none", *(entry | {"top": 3} for entry in RERANK)], "ks": [1, 3]}
    found = values(evaluate([scene], asked))
    assert found["recall@3", "mean"] == 1
    assert found["recall@1", "mean"] < 0.8
    assert found["recall@1", "mean, mutual + rapid spatial"] == found["recall@1", "mean, mutual + RANSAC"] == 1
    # All patches match in all three, and equal scores keep the order.
    assert found["recall@1", "mean, mutual + count"] == found["recall@1", "mean"]


def test_what_is_not_reranked_keeps_its_rank(make_scene):
    _, _, features = places(5, 4)
    rng = np.random.default_rng(0)
    scene = listed(make_scene, features, range(15), range(15, 20), [rng.choice(15, 2).tolist() for _ in range(5)])
    result = evaluate([scene], MEAN | {"rerank": ["none", RERANK[0] | {"top": 3}]})
    plain, again = np.reshape(result.items["rank"], (2, 5))
    far = plain > 3
    assert far.any()
    np.testing.assert_array_equal(plain[far], again[far])
    assert (again[~far] <= 3).all()


def with_token(scene, tokens, path):
    """Return the scene with class tokens (n, t) in addition to its features."""
    maps = scene.features["features"]
    sizes = dict(zip("nhwc", maps.shape)) | {"t": tokens.shape[1]}
    frames = scene.frames
    with Features.create(path, frames.dataset, frames.scene, sizes, {"extent": frames.size}) as file:
        file.frames_id = frames.frames_id
        file["features"][:], file["token"][:] = maps[:], tokens
    return EvaluatedScene(scene.frames_path, scene.correspondences_path, path)


def test_class_tokens(house, tmp_path):
    place, _, _ = places(6, 6)
    wanted = SETTINGS | {"descriptors": [{"name": "class_token"}, {"name": "mean"}], "rerank": ["none", RERANK[0]]}
    scene = with_token(house, unit(6, 24)[place], tmp_path / "token.h5")
    assert set(values(evaluate([scene], wanted)).values()) == {1}
    without = evaluate([house], wanted)
    for row in without.rows:
        assert row.n > 5
        assert (row.value, row.low) == ((None, None) if "class token" in row.condition else (1, 1))


def test_without_class_token_the_questions_are_the_same_and_the_answers_missing(house, tmp_path):
    wanted = SETTINGS | {"descriptors": [{"name": "class_token"}], "ks": [1]}
    place, _, _ = places(6, 6)
    scene = with_token(house, unit(6, 24)[place], tmp_path / "token.h5")
    (own,), (missing,) = (samples(evaluate([s], wanted).items, wanted) for s in (scene, house))
    assert own.keys == missing.keys
    assert set(own.values) == {1}
    assert np.isnan(missing.values).all()


def test_the_vocabulary_is_of_the_database_alone(make_scene):
    def centres(query_features):
        features = np.concatenate([unit(4, 3, 3, 16), query_features])
        scene = listed(make_scene, features, range(4), range(4, 6), [[0], [1]])
        return _vocabularies(gather([scene], SETTINGS, 0), SETTINGS, 0)["VLAD 4", "test"]

    np.testing.assert_array_equal(centres(unit(2, 3, 3, 16, seed=1)), centres(unit(2, 3, 3, 16, seed=2)))


def test_datasets_of_a_domain_share_a_vocabulary(make_scene):
    scenes = [
        listed(make_scene, unit(5, 3, 3, 16, seed=i), range(4), [4], [[0]], scene=name, dataset=name)
        for i, name in enumerate(["mall", "office", "street", "square"])
    ]
    wanted = SETTINGS | {
        "descriptors": [VLAD, VLAD | {"vocabulary": "domain"}],
        "domains": {"mall": "indoor", "office": "indoor", "street": "urban", "square": "urban"},
    }
    centres = _vocabularies(gather(scenes, wanted, 0), wanted, 0)
    shared, own = "VLAD 4 (domain)", "VLAD 4"
    assert torch.equal(centres[shared, "mall"], centres[shared, "office"])
    assert torch.equal(centres[shared, "street"], centres[shared, "square"])
    assert not torch.equal(centres[shared, "street"], centres[shared, "mall"])
    assert not torch.equal(centres[own, "mall"], centres[own, "office"])
    assert not torch.equal(centres[own, "mall"], centres[shared, "mall"])
    conditions = {row.condition for row in evaluate(scenes, wanted).rows}
    assert "VLAD 4 (domain), mall/mall" in conditions


@pytest.mark.parametrize("domains", [{}, {"mall": "indoor"}, {"mall": "indoor", "office": "indoor", "street": "urban"}])
def test_a_domain_of_one_dataset_is_refused(make_scene, domains):
    """The vocabulary of a domain would then be that of its only dataset."""
    names = ["mall", "office", "street"] if len(domains) > 1 else ["mall"]
    scenes = [
        listed(make_scene, unit(5, 3, 3, 16, seed=i), range(4), [4], [[0]], scene=name, dataset=name)
        for i, name in enumerate(names)
    ]
    wanted = SETTINGS | {"descriptors": [VLAD | {"vocabulary": "domain"}], "domains": domains}
    with pytest.raises(ConfigError, match=rf"{names[-1]}[\s\S]*use `vocabulary: dataset`"):
        evaluate(scenes, wanted)
    assert evaluate(scenes, wanted | {"descriptors": [VLAD]}).rows


def test_every_extractor_is_asked_the_same_and_the_same_again(make_scene):
    _, overlap, features = places(6, 6)
    scenes = [
        make_scene(still(36), f, overlap=overlap, dataset="houses") for f in (features, unit(36, 2, 2, 8, seed=7))
    ]
    wanted = SETTINGS | {"rerank": ["none", RERANK[1]]}
    good, bad = (evaluate([scene], wanted) for scene in scenes)
    keys = [[sample.keys for sample in samples(result.items, wanted)] for result in (good, bad)]
    assert keys[0] == keys[1]
    assert good.items["rank"] != bad.items["rank"]
    assert bad == evaluate([scenes[1]], wanted)
    assert bad.items["query"] != evaluate([scenes[1]], wanted, seed=1).items["query"]


def test_rows_summarise_the_items(make_scene):
    scene = make_scene(still(36), unit(36, 2, 2, 8), overlap=places(6, 6)[1])
    result = evaluate([scene], MEAN)
    ranks = np.array([rank for rank in result.items["rank"] if rank is not None])
    assert values(result) == {("recall@1", "mean"): np.mean(ranks <= 1), ("recall@5", "mean"): np.mean(ranks <= 5)}
    for row in result.rows:
        assert row.low <= row.value <= row.high


@pytest.mark.parametrize(
    ("truth", "problem"),
    [
        ({"database": ["photo0", "elsewhere"], "queries": ["photo1"], "positives": [[0]]}, "not among the frames"),
        ({"database": ["photo0"], "queries": ["photo1"], "positives": [[1]]}, "do not match"),
        ({"database": ["photo0"], "queries": ["photo1"], "positives": [[-1]]}, "do not match"),
        ({"database": ["photo0"], "queries": ["photo1"], "positives": []}, "do not match"),
    ],
)
def test_ground_truth_of_other_images_is_refused(make_scene, truth, problem):
    scene = make_scene(still(2), unit(2, 2, 2, 8), names=["photo0", "photo1"], ground_truth=truth, separate=True)
    with pytest.raises(DataError, match=problem):
        evaluate([scene], MEAN)


@pytest.mark.parametrize(
    "changes",
    [
        {"descriptors": [VLAD, VLAD | {"samples": 300}]},
        {"rerank": [RERANK[0], RERANK[0] | {"top": 9}]},
    ],
)
def test_ways_to_rank_have_different_names(house, changes):
    with pytest.raises(ConfigError, match="the same"):
        evaluate([house], SETTINGS | changes)


def test_accuracy_is_the_fraction_of_the_first_images_that_show_the_place(make_scene):
    _, _, features = places(5, 6)
    rng = np.random.default_rng(0)
    features = features + 0.1 * rng.normal(size=features.shape)
    positives = [sorted(rng.choice(25, count, replace=False).tolist()) for count in (1, 2, 3, 8, 8)]
    scene = listed(make_scene, features, range(25), range(25, 30), positives)
    asked = MEAN | {"ks": [1, 2, 8, 40], "accuracy": True, "rerank": ["none", RERANK[0]]}
    result = evaluate([scene], asked)
    assert values(result).items() >= values(evaluate([scene], asked | {"accuracy": False})).items()
    (database,) = gather([scene], asked, 0)
    vectors = [
        torch.stack([normalize(image.patches().mean(dim=0), dim=0) for image in part])
        for part in (database.images, database.queries)
    ]
    order = (vectors[1] @ vectors[0].T).argsort(dim=1, descending=True).numpy()
    for k in (1, 2, 8):
        right = [np.isin(row[:k], truth).mean() for row, truth in zip(order, database.positives) if len(truth) >= k]
        row = next(row for row in result.rows if (row.metric, row.condition) == (f"accuracy@{k}", "mean"))
        assert (row.value, row.n) == (pytest.approx(np.mean(right)), len(right))
    # The first five images in another order, and all others in the same order.
    assert values(result)["accuracy@8", "mean, mutual + count"] == values(result)["accuracy@8", "mean"]
    assert values(result)["accuracy@40", "mean"] is None  # no query has that many positives
