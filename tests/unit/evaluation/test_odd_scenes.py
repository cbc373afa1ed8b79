"""The same odd scenes before every benchmark: what cannot be measured has no number, and is no zero."""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib import import_module

import numpy as np
import pytest

from loco.datasets.labels import MPCAT40
from loco.errors import DataError
from loco.evaluation import NEEDS
from loco.storage import Frames, Labels

COUNT = 6  # images of a plain scene
SIZE, GRID, STRIDE, DIM = (24, 32), (6, 8), 4, 16
K = np.array([[16.0, 0, 16], [0, 16, 12], [0, 0, 1]])
DEPTH = 2.0  # of the wall that all cameras face, metres: a patch is 0.5 m wide
SENSOR, INPAINTED = Frames.SOURCES.index("sensor"), Frames.SOURCES.index("inpainted")
CATEGORIES = ["wall", "chair", "floor", "sofa"]
OBJECTS = [{"category": c, "label": c, "stuff": c in ("wall", "floor"), "triangles": 9} for c in CATEGORIES]

PROBE = {"epochs": 15, "batch": 2, "train_share": 0.5, "block": 2, "bootstrap": 20}
SETTINGS = {
    "location_consistency": {
        "radii": [1.0], "weights": ["uniform", "inverse_square"], "queries_per_scene": 40, "samples_per_query": 100,
        "bootstrap": 20,
    },
    "pixel_correspondence": {
        "pairs_per_bin": 99, "min_overlap": 0.2, "min_baseline": 0.1, "rotation_bins": [0, 15, 180],
        "thresholds": [2, 5], "thresholds_m": [0.5], "matches": 100, "pooled": True, "occlusions": [False, True],
        "bootstrap": 20,
    },
    "panoptic_segmentation": PROBE,
    "semantic_segmentation": PROBE,
    "place_recognition": {
        "queries": 0.5, "min_overlap": 0.2, "max_overlap": 0.4, "max_distance": 10.0,
        "descriptors": [
            {"name": "vlad", "clusters": 4, "assignment": "hard", "vocabulary": "dataset", "samples": 100},
            {"name": "gem", "exponent": 3},
            {"name": "class_token"},  # which the extractor of these scenes does not have
        ],
        "rerank": ["none", {"top": 5, "matching": "mutual", "score": "ransac"}],
        "ks": [1, 50],  # more than there are images
        "bootstrap": 20,
    },
    "landmark_retrieval": {
        "landmarks": 30, "rho": 0.2, "kappa": None, "min_baseline": 0.1, "chosen": 0.25, "bootstrap": 20,
    },
    "relative_pose": {
        "overlap_bins": [0.1, 0.5, 1.0], "rotation_bins": [0, 90], "pairs_per_bin": 99, "min_baseline": 0.1,
        "methods": ["rigid", "essential"], "matches": 50, "iterations": 50, "inlier_distance": 0.1,
        "inlier_pixels": 2.0, "auc": [5, 20], "bootstrap": 20,
    },
    "homography": {"thresholds": [1, 5], "corner_thresholds": [3], "ransac_threshold": 2, "bootstrap": 20},
}  # fmt: skip

# Every benchmark with every kind of scene that it can be asked of; pixels need "depth" besides.
ASKED = [(name, (way - {"depth"}).pop()) for name, ways in NEEDS.items() for way in ways]
ODD = ["one image", "far apart", "no depth", "inpainted", "one without depth", "no labels"]
FLAT = ["equal features", "zero features"]


def draw(make_scene, gives, odd="plain", scene="room", dataset="test"):
    """A scene of a wall, seen from cameras side by side, whose features tell its patches apart: but for what is odd.

    ``gives`` is what the benchmark reads: the places of patches, labels, or what the dataset's own files say.
    """
    n = 1 if odd == "one image" else COUNT
    step = 2 * GRID[1] if odd == "far apart" else 0 if odd == "one place" else 1  # from camera to camera, patches
    poses, shifts = np.tile(np.eye(4), (n, 1, 1)), step * np.arange(n)
    row, column = np.arange(GRID[0])[:, None], np.arange(GRID[1]) + shifts[:, None, None]  # of the wall's patches
    patch = np.stack(np.broadcast_arrays(column, row), axis=-1)  # (n, h, w, 2)
    points = np.concatenate([(patch + 0.5) * STRIDE * DEPTH / 16, np.full((n, *GRID, 1), DEPTH)], axis=-1)
    points[..., :2] -= K[:2, 2] * DEPTH / 16
    features = _features(odd, row, column)
    depth, source, valid = np.full((n, *SIZE), DEPTH), np.full((n, *SIZE), SENSOR), np.ones((n, *GRID), bool)
    overlap = np.where(np.eye(n, dtype=bool), 1, 0.0 if odd == "far apart" else 0.3)
    blind = {"no depth": slice(None), "one without depth": slice(1, 2)}.get(odd, slice(0))
    depth[blind], source[blind], valid[blind], overlap[blind], overlap[:, blind] = 0, 0, False, 0, 0
    if odd == "inpainted":
        source[:] = INPAINTED
    shared = {"scene": scene, "dataset": dataset, "size": SIZE, "depth": depth, "source": source, "intrinsics": K}
    if gives in ("places", "labels"):
        poses[:, 0, 3] = shifts * STRIDE * DEPTH / 16
        labels = _labels(odd, row, column) if gives == "labels" else None
        return make_scene(
            poses, features, **shared, points=points, valid=valid, overlap=overlap, labels=labels
        )
    if gives == "homographies":
        shared["intrinsics"] = np.eye(3)  # of frames that are the raw images
    truth = _ground_truth(gives, odd, shifts)
    return make_scene(poses, features, **shared, ground_truth=truth, separate=True)


def _features(odd, row, column):
    rng = np.random.default_rng(0)
    table = rng.normal(size=(GRID[0], column.max() + 1, DIM))
    features = table[row, column] / np.linalg.norm(table[row, column], axis=-1, keepdims=True)
    match odd:
        case "equal features" | "one place":
            features[:] = features[0, 0, 0]
        case "zero features":
            features[:] = 0
        case "NaN everywhere":
            features[:] = np.nan
        case "NaN in an image":
            features[1] = np.nan
        case "NaN in a patch":
            features[1, 2, 3] = np.nan
    return features


def _labels(odd, row, column):
    """A quarter of the wall each for two things and two pieces of stuff, and a column of patches without label."""
    instance = 2 * (column // 3 % 2) + row // 3
    instance = np.where(column % 5 == 4, Labels.VOID, instance)
    if odd == "no labels":
        instance[:] = Labels.VOID
    numbers = np.array([*map(MPCAT40.index, CATEGORIES), 0])
    instance = instance.repeat(STRIDE, axis=1).repeat(STRIDE, axis=2)
    return instance, numbers[instance], OBJECTS


def _ground_truth(gives, odd, shifts):
    names = [f"view{i}" for i in range(len(shifts))]
    if gives == "positives":
        # The last query has no positive; far apart, none has.
        positives = [[0, 1], [1, 2], []] if odd != "far apart" else [[], [], []]
        found = {"database": names[:3], "queries": names[3:], "positives": positives}
        return found if len(names) > 1 else {"database": [], "queries": names, "positives": [[]]}
    pairs = []
    for a, b in zip(range(len(names) - 1), range(1, len(names))):
        right = int(shifts[b] - shifts[a])
        a_to_b, homography = np.eye(4), np.eye(3)
        a_to_b[0, 3], homography[0, 2] = -right * STRIDE * DEPTH / 16, -right * STRIDE
        truth = {"homography": homography.tolist()} if gives == "homographies" else {"pose_a_to_b": a_to_b.tolist()}
        pairs.append({"a": names[a], "b": names[b], **truth})
    if odd == "missing pairs":
        pairs[1]["b"] = "elsewhere"
    return {"change": "viewpoint", "pairs": pairs} if gives == "homographies" else {"pairs": pairs}
