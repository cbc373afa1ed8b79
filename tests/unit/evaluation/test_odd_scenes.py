"""Every benchmark on the same unusual scenes: scores that cannot be measured are missing, not zero."""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib import import_module
from itertools import pairwise, product
from math import comb, isfinite

import numpy as np
import pytest

from loco.datasets.labels import MPCAT40
from loco.errors import DataError
from loco.evaluation.catalogue import BENCHMARKS
from loco.storage import Frames, Labels

COUNT = 6  # images of an ordinary scene
SIZE, GRID, STRIDE, DIM = (24, 32), (6, 8), 4, 16
K = np.array([[16.0, 0, 16], [0, 16, 12], [0, 0, 1]])
DEPTH = 2.0  # of the wall that all cameras face, metres
WIDTH = STRIDE * DEPTH / K[0, 0]  # of a patch of the wall, metres
SENSOR, INPAINTED = Frames.SOURCES.index("sensor"), Frames.SOURCES.index("inpainted")
CATEGORIES = ["wall", "chair", "floor", "sofa"]
OBJECTS = [{"category": c, "label": c, "stuff": c in ("wall", "floor"), "triangles": 9} for c in CATEGORIES]

PROBE = {"epochs": 8, "batch": 2, "train_fraction": 0.5, "block": 2}
SETTINGS = {
    "location_consistency": {
        "radii": [1.0], "weights": ["uniform", "inverse_square"], "queries_per_scene": 40, "samples_per_query": 100,
    },
    "pixel_correspondence": {
        "pairs_per_bin": 99, "min_overlap": 0.2, "min_baseline": 0.1, "rotation_bins": [0, 15, 180],
        "thresholds": [2, 5], "thresholds_m": [0.5], "matches": 100, "pooled": True, "occlusions": [False, True],
    },
    "panoptic_segmentation": PROBE,
    "semantic_segmentation": PROBE,
    "place_recognition": {
        "queries": 0.5, "min_overlap": 0.2, "max_overlap": 0.4, "max_distance": 10.0,
        "descriptors": [
            {"name": "vlad", "clusters": 4, "assignment": "hard", "vocabulary": "dataset", "samples": 100},
            {"name": "gem", "exponent": 3},
            {"name": "class_token"},  # the extractor of these scenes has no class token
        ],
        "rerank": ["none", {"top": 5, "matching": "mutual", "score": "ransac"}],
        "ks": [1, 50],  # more than the number of images
    },
    "landmark_retrieval": {
        "landmarks": 30, "rho": 0.2, "kappa": None, "min_baseline": 0.1, "selected_fraction": 0.25,
    },
    "relative_pose": {
        "overlap_bins": [0.1, 0.5, 1.0], "rotation_bins": [0, 90], "pairs_per_bin": 99, "min_baseline": 0.1,
        "methods": ["rigid", "essential"], "matches": 50, "iterations": 50, "inlier_distance": 0.1,
        "inlier_pixels": 2.0, "auc": [5, 20],
    },
    "homography": {"thresholds": [1, 5], "corner_thresholds": [3], "ransac_threshold": 2},
}  # fmt: skip

# Every benchmark with every kind of scene to which it applies. All scenes here have depth, except for some unusual
# ones.
ASKED = [(name, *(needs - {"depth"})) for name, benchmark in BENCHMARKS.items() for needs in benchmark.requires]
ODD = ["one image", "far apart", "no depth", "inpainted", "one without depth", "no labels"]
ODD_FOR = {"inpainted": ["places", "pairs"], "one without depth": ["places", "pairs"], "no labels": ["labels"]}
FLAT = ["equal features", "zero features"]
BROKEN = ["NaN in an image", "NaN in a patch"]
REFUSED = [("homography", "homographies", "one image")]  # the scene then has no pair, and its dataset is damaged
BLIND = 1  # the image without depth of "one without depth"


def draw(make_scene, gives, odd="plain", scene="room", dataset="test"):
    """Return a scene of a wall, seen from cameras side by side, with distinctive features; ``odd`` is what is unusual.

    ``gives`` is what the benchmark reads: the locations of patches, labels, or the data of the dataset's own files.
    """
    n = 1 if odd == "one image" else COUNT
    # Distance between cameras, in patches. Planes are seen from one position, as in the light sequences of HPatches.
    step = 2 * GRID[1] if odd == "far apart" else 0 if gives == "homographies" else 1
    shifts = step * np.arange(n)
    row, column = np.arange(GRID[0])[:, None], np.arange(GRID[1]) + shifts[:, None, None]  # of the wall's patches
    corner = np.stack(np.broadcast_arrays(column, row), axis=-1) * WIDTH - K[:2, 2] * DEPTH / K[0, 0]
    points = np.concatenate([corner + WIDTH / 2, np.full((n, *GRID, 1), DEPTH)], axis=-1)
    depth, source, valid = np.full((n, *SIZE), DEPTH), np.full((n, *SIZE), SENSOR), np.ones((n, *GRID), bool)
    overlap = np.where(np.eye(n, dtype=bool), 1, 0.0 if odd == "far apart" else 0.3)
    blind = {"no depth": slice(None), "one without depth": slice(BLIND, BLIND + 1)}.get(odd, slice(0))
    depth[blind], source[blind], valid[blind], overlap[blind], overlap[:, blind] = 0, 0, False, 0, 0
    if odd == "inpainted":
        source[:] = INPAINTED
    poses, features = np.tile(np.eye(4), (n, 1, 1)), _features(odd, row, column)
    shared = {"scene": scene, "dataset": dataset, "size": SIZE, "depth": depth, "source": source, "intrinsics": K}
    if gives in ("places", "labels"):
        poses[:, 0, 3] = shifts * WIDTH
        labels = _labels(odd, row, column) if gives == "labels" else None
        return make_scene(poses, features, **shared, points=points, valid=valid, overlap=overlap, labels=labels)
    if gives == "homographies":
        shared["intrinsics"] = np.eye(3)  # for frames that are the raw images
    return make_scene(poses, features, **shared, ground_truth=_ground_truth(gives, odd, shifts), separate=True)


def _features(odd, row, column):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(GRID[0], column.max() + 1, DIM))[row, column]
    features /= np.linalg.norm(features, axis=-1, keepdims=True)
    match odd:
        case "equal features":
            features[:] = features[0, 0, 0]
        case "zero features":
            features[:] = 0
        case "NaN in an image":
            features[1] = np.nan
        case "NaN in a patch":
            features[1, 2, 3] = np.nan
    return features


def _labels(odd, row, column):
    """Return labels of two things and two stuff segments on the wall, with unlabelled columns of patches."""
    instance = 2 * (column // 3 % 2) + row // 3
    instance = np.where((column % 5 == 4) | (odd == "no labels"), Labels.VOID, instance)
    instance = instance.repeat(STRIDE, axis=1).repeat(STRIDE, axis=2)
    return instance, np.array([*map(MPCAT40.index, CATEGORIES), 0])[instance], OBJECTS


def _ground_truth(gives, odd, shifts):
    names = [f"view{i}" for i in range(len(shifts))]
    if gives == "positives":
        database, queries = names[: COUNT // 2], names[COUNT // 2 :]
        positives = [[], [], []] if odd == "far apart" else [[2], [1, 2], []]  # the last query has no positive
        if odd == "one image":
            database, queries, positives = [], names, [[]]
        if odd == "missing":
            queries[1] = "elsewhere"
        return {"database": database, "queries": queries, "positives": positives}
    pairs = [{"a": a, "b": b} for a, b in pairwise(names)]
    for pair, step in zip(pairs, np.diff(shifts).tolist()):
        matrix, key = (np.eye(3), "homography") if gives == "homographies" else (np.eye(4), "pose_a_to_b")
        matrix[0, -1] = -step * (STRIDE if gives == "homographies" else WIDTH)
        pair[key] = matrix.tolist()
    if odd == "missing":
        pairs[1]["b"] = "elsewhere"
    return {"pairs": pairs} | ({"change": "illumination"} if gives == "homographies" else {})


def run(name, scenes, seed=0):
    return import_module(f"loco.evaluation.{name}").evaluate(scenes, SETTINGS[name], seed)


def samples(name, items):
    return import_module(f"loco.evaluation.{name}").samples(items, SETTINGS[name])


def cases(*odds, without=()):
    """Return every benchmark with each of ``odds`` that is unusual for it."""
    found = []
    for (name, gives), odd in product([asked for asked in ASKED if asked not in without], odds):
        if (name, gives, odd) not in REFUSED and gives in ODD_FOR.get(odd, [gives]):
            found.append(pytest.param(name, gives, odd, id=f"{name} by {gives}, {odd}"))
    return pytest.mark.parametrize(("name", "gives", "odd"), found)


def assert_named(error, scene):
    """The message states the scene and the remedy."""
    assert f"scene: {scene}\n" in str(error.value)
    assert "what to do: " in str(error.value)


def test_every_benchmark_is_asked():
    assert {name for name, _ in ASKED} == SETTINGS.keys() == BENCHMARKS.keys()


@cases("plain", *ODD, *FLAT)
def test_what_is_not_measured_is_no_number(make_scene, name, gives, odd):
    scenes = [draw(make_scene, gives, odd)]
    result = run(name, scenes)
    for row in result.rows:
        ends = row.low, row.high
        if row.n < 2:
            assert ends == (None, None)
        if row.n == 0:
            assert row.value is None
        elif row.value is None:  # a median that is infinite; no class token to retrieve by
            assert " error" in row.metric or row.condition.startswith("class token")
        else:
            assert isfinite(row.value)
            assert 0 <= row.value <= (1 if row.unit == "%" else np.inf)
            assert None in ends or ends[0] <= ends[1]
    assert len({len(column) for column in result.items.values()}) == 1
    stored = json.loads(json.dumps(result.items, allow_nan=False))
    assert stored == result.items
    json.dumps([asdict(row) for row in result.rows], allow_nan=False)
    assert [sample.row() for sample in samples(name, stored)] == result.rows
    assert run(name, scenes) == result


@cases("plain", *ODD)
def test_numbers_rest_on_what_can_be_asked(make_scene, name, gives, odd):
    result = run(name, [draw(make_scene, gives, odd)])
    assert {(row.metric, row.condition): row.n for row in result.rows} == {
        (row.metric, row.condition): wanted(name, gives, odd, row, result.items) for row in result.rows
    }


def wanted(name, gives, odd, row, items):
    """Return the number of items that a row must have."""
    match name:
        case "location_consistency":  # images with patches: patches of the same image count too
            return {"one image": 1, "no depth": 0, "one without depth": COUNT - 1}.get(odd, COUNT)
        case "pixel_correspondence":  # pairs whose A has observed depth; for errors in metres, whose B has some as well
            if row.condition == "15-180 deg" or odd in ("one image", "no depth", "inpainted"):
                return 0
            if gives == "pairs":
                needs_both = "cm" in row.metric or "visible only" in row.metric
                lost = (odd == "one without depth") * (2 if needs_both else 1)
                lost = COUNT - 1 if odd == "far apart" and "visible only" in row.metric else lost
                return COUNT - 1 - lost
            return {"far apart": 0, "one without depth": comb(COUNT - 1, 2)}.get(odd, comb(COUNT, 2))
        case "panoptic_segmentation" | "semantic_segmentation":  # classes, or scenes
            if odd == "no labels" or (odd == "one image" and row.condition.startswith("held-out")):
                return 0
            return (2 if "," in row.condition else 4) if row.metric in ("mAP", "mIoU") else 1
        case "place_recognition":  # queries with a positive
            if odd in ("one image", "far apart") or (odd, gives) == ("no depth", "places"):
                return 0
            if gives == "positives":
                return COUNT // 2 - 1
            return COUNT // 2 - (odd == "one without depth" and f"view{BLIND}" in items["query"])
        # Landmarks whose patch of the wall is visible in another image; the number of selected ones is not checked.
        case "landmark_retrieval":
            seen = [odd != "far apart" and is_seen(odd, *place) for place in zip(items["image"], items["column"])]
            return sum(seen) if row.condition == "all landmarks" or not any(seen) else row.n
        case "relative_pose":  # pairs; for `rigid`, those with observed depth in both images
            if row.condition == "overlap 0.5-1" or odd == "one image":
                return 0
            if "rigid" in row.metric and odd in ("no depth", "inpainted"):
                return 0
            if gives == "pairs":
                return COUNT - 1 - 2 * ("rigid" in row.metric and odd == "one without depth")
            return {"far apart": 0, "no depth": 0, "one without depth": comb(COUNT - 1, 2)}.get(odd, comb(COUNT, 2))
        case "homography":
            return COUNT - 1


def is_seen(odd, image, column):
    """Whether another image, whose location is known, shows the patch of the wall in this column of an image."""
    own = int(image.removeprefix("view"))
    others = set(range(1 if odd == "one image" else COUNT)) - {own} - ({BLIND} if odd == "one without depth" else set())
    return any(0 <= own + column - other < GRID[1] for other in others)


@cases(*ODD)
def test_an_odd_scene_changes_nothing_for_others(make_scene, name, gives, odd):
    room, attic = draw(make_scene, gives), draw(make_scene, gives, odd, scene="attic", dataset="attics")
    alone, together = run(name, [room]).items, run(name, [attic, room]).items
    of_room = [n for n, scene in enumerate(together["scene"]) if scene == "room"]
    assert len(of_room) > 0
    assert {column: [entries[n] for n in of_room] for column, entries in together.items()} == alone


@cases("equal features")
def test_features_do_not_choose_what_is_asked(make_scene, name, gives, odd):
    plain, flat = (samples(name, run(name, [draw(make_scene, gives, features)]).items) for features in ("plain", odd))
    for one, other in zip(plain, flat, strict=True):
        assert (one.metric, one.condition, one.keys) == (other.metric, other.condition, other.keys)
        assert one.weights == other.weights


# Where uninformative features have a low score: a metric, and one of its conditions.
TELLING = {
    "location_consistency": ("mAP", "1 m, uniform"),
    "pixel_correspondence": ("recall@2px", "all"),
    "panoptic_segmentation": ("mAP", "held-out images"),
    "semantic_segmentation": ("mAP", "held-out images"),
    "place_recognition": ("recall@1", "VLAD 4"),
    "landmark_retrieval": ("AP of views", "all landmarks"),
    "relative_pose": ("AUC@5deg, rigid", "all"),
    "homography": ("MMA@1px", "all"),
}


@cases("equal features", without=[("place_recognition", "places")])  # there all images are positives
def test_features_that_say_nothing_score_low(make_scene, name, gives, odd):
    seeds = range(8 if name == "place_recognition" else 1)  # with few queries, among few images

    def score(features):
        scenes = [draw(make_scene, gives, features)]
        found = [{(row.metric, row.condition): row.value for row in run(name, scenes, seed).rows} for seed in seeds]
        return np.mean([values[TELLING[name]] for values in found])

    assert score(odd) < 0.6 * score("plain")


@cases(*BROKEN)
def test_features_that_are_not_numbers_are_refused(make_scene, name, gives, odd):
    scene = draw(make_scene, gives, odd)
    with pytest.raises(DataError) as error:
        run(name, [scene])
    assert_named(error, "room")


@pytest.mark.parametrize(("name", "gives"), [asked for asked in ASKED if asked[1] not in ("places", "labels")])
def test_images_that_the_ground_truth_names_and_the_scene_lacks_are_named(make_scene, name, gives):
    scenes = [draw(make_scene, gives), draw(make_scene, gives, "missing", scene="attic")]
    with pytest.raises(DataError, match="elsewhere") as error:
        run(name, scenes)
    assert_named(error, "attic")


@pytest.mark.parametrize(("name", "gives", "odd"), REFUSED)
def test_a_scene_that_its_dataset_says_nothing_about_is_named(make_scene, name, gives, odd):
    scenes = [draw(make_scene, gives), draw(make_scene, gives, odd, scene="attic")]
    with pytest.raises(DataError) as error:
        run(name, scenes)
    assert_named(error, "attic")


def test_a_query_without_positives_is_counted_and_in_no_row(make_scene):
    result = run("place_recognition", [draw(make_scene, "positives")])
    assert dict(zip(result.items["query"], result.items["n_positives"])) == {"view3": 1, "view4": 2, "view5": 0}
    assert {row.n for row in result.rows} == {2}
    # More images are requested than exist: all of them are retrieved.
    assert {row.value for row in result.rows if row.metric == "recall@50"} == {1.0, None}
