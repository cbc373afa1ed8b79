from __future__ import annotations

import numpy as np
import pytest

from loco.datasets.labels import MPCAT40
from loco.evaluation import semantic_segmentation
from loco.evaluation.linear_probe import HELD_OUT, VOID

SETTINGS = {"epochs": 60, "batch": 2, "train_fraction": 0.5, "block": 2}


@pytest.fixture
def scene(make_scene):
    """Return walls, chairs, and patches without category; features distinguish the categories."""
    patches = np.random.default_rng(0).choice([0, 1, 3, MPCAT40.index("unlabeled")], (6, 5, 6))
    semantic = patches.repeat(4, axis=1).repeat(4, axis=2)
    labels = np.zeros(semantic.shape, int), semantic, []
    features = np.eye(len(MPCAT40))[patches]
    poses = np.tile(np.eye(4), (6, 1, 1))
    poses[:, 0, 3] = np.arange(6)  # a trajectory
    return make_scene(poses, features, size=(20, 24), labels=labels, separate=True)


def test_classes_are_categories(scene):
    classes = semantic_segmentation.categories(scene.labels)
    kinds = dict(zip(classes.names, classes.stuff, strict=True))
    assert (kinds["wall"], kinds["chair"], len(kinds)) == (True, False, len(MPCAT40))
    semantic, shown = scene.labels["semantic"][2], classes.read(2)
    assert {classes.names[c] for c in shown[semantic == 3]} == {"chair"}
    assert set(shown[np.isin(semantic, [0, 41])]) == {VOID}


def test_who_knows_the_categories_scores_one(scene):
    result = semantic_segmentation.evaluate([scene], SETTINGS)
    for row in result.rows:
        assert row.value == pytest.approx(1.0), row
    assert set(result.items["name"]) == {"wall", "chair"}
    counts = [row.n for row in result.rows if row.condition == f"{HELD_OUT}, things"]
    assert counts == [1, 1, 1, 1]
    rows = [s.row() for s in semantic_segmentation.samples(result.items, SETTINGS)]
    assert rows == result.rows
