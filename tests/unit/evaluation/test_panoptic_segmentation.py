from __future__ import annotations

import numpy as np
import pytest

from loco.datasets.labels import MPCAT40, STUFF
from loco.evaluation import panoptic_segmentation, semantic_segmentation
from loco.evaluation.linear_probe import HELD_OUT, IN_SAMPLE, VOID

SETTINGS = {"epochs": 60, "batch": 2, "train_fraction": 0.5, "block": 2}
# Two chairs, a table and a floor; a wall in two pieces; an object without category, and one without triangles.
OBJECTS = [
    {"category": category, "label": category, "stuff": category in STUFF, "triangles": triangles}
    for category, triangles in (
        ("chair", 9), ("wall", 9), ("lighting", 0), ("chair", 9), ("wall", 9), ("unlabeled", 9), ("table", 9),
        ("floor", 9),
    )
]  # fmt: skip
SEEN = [0, 1, 3, 4, 6, 7]  # objects that have triangles and a category


@pytest.fixture
def scene(make_scene):
    """Return images of the objects in patches of 4 x 4 pixels; ``see`` maps (n, 5, 6) object numbers to features."""

    def make(see, **given):
        patches = np.random.default_rng(0).choice([*SEEN, 5, -1], (8, 5, 6))
        instance = patches.repeat(4, axis=1).repeat(4, axis=2)
        category = np.array([*(MPCAT40.index(o["category"]) for o in OBJECTS), 0])
        labels = instance, category[instance], OBJECTS
        poses = np.tile(np.eye(4), (8, 1, 1))
        poses[:, 0, 3] = np.arange(8)  # a trajectory
        return make_scene(poses, see(patches), size=(20, 24), labels=labels, separate=True, **given)

    return make


def value(result, metric, condition=HELD_OUT):
    (row,) = [row for row in result.rows if (row.metric, row.condition) == (metric, condition)]
    return row.value


def see_objects(patches):
    return np.eye(9)[patches]


def see_categories(patches):
    return np.eye(len(MPCAT40))[np.array([*(MPCAT40.index(o["category"]) for o in OBJECTS), 0])[patches]]


def test_classes_are_things_by_instance_and_stuff_by_category(scene):
    labels = scene(see_objects).labels
    classes = panoptic_segmentation.scene_objects(labels)
    assert classes.names == [*STUFF, "chair 0", "chair 3", "table 6"]
    assert classes.stuff == [True] * len(STUFF) + [False] * 3
    instance, shown = labels["instance"][0], classes.read(0)
    names = {0: "chair 0", 1: "wall", 3: "chair 3", 4: "wall", 6: "table 6", 7: "floor"}
    for number, name in names.items():
        assert {classes.names[c] for c in shown[instance == number]} == {name}
    assert set(shown[np.isin(instance, [5, -1])]) == {VOID}  # no category, no object


def test_who_knows_the_objects_scores_one(scene):
    result = panoptic_segmentation.evaluate([scene(see_objects)], SETTINGS)
    for row in result.rows:
        assert row.value == pytest.approx(1.0), row
    kinds = {row.condition: row.n for row in result.rows if row.metric == "mAP"}
    assert [kinds[HELD_OUT + end] for end in ("", ", things", ", stuff")] == [5, 3, 2]


def test_who_knows_categories_cannot_tell_chairs_apart(scene):
    seen = scene(see_categories)
    panoptic = panoptic_segmentation.evaluate([seen], SETTINGS)
    semantic = semantic_segmentation.evaluate([seen], SETTINGS)
    for part in (HELD_OUT, IN_SAMPLE):
        assert value(panoptic, "mAP", f"{part}, stuff") == pytest.approx(1.0)
        of_things = dict(zip(zip(panoptic.items["part"], panoptic.items["name"]), panoptic.items["ap"]))
        assert of_things[part, "table 6"] == pytest.approx(1.0)
        assert of_things[part, "chair 0"] + of_things[part, "chair 3"] == pytest.approx(1.0)  # fractions of the patches
        assert value(panoptic, "accuracy", f"{part}, things") < 0.9
        for metric in ("mAP", "mIoU", "Jaccard", "accuracy"):
            assert value(semantic, metric, part) == pytest.approx(1.0)


def test_samples_are_those_of_the_probe(scene):
    result = panoptic_segmentation.evaluate([scene(see_objects)], SETTINGS, seed=3)
    rows = [s.row() for s in panoptic_segmentation.samples(result.items, SETTINGS)]
    assert rows == result.rows
