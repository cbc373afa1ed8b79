"""Records are compared with recipes: each difference is named with both values."""

from __future__ import annotations

import json

import pytest

from loco.errors import DataError
from loco.records import Recipe, Record, differences, new_record, require_recipe

SUBJECT = {"dataset": "houses", "scene": "ash"}


def recipe(every=1, code="aaaa", step="frames", decode="all", height=48):
    check = Recipe("check_scene", "bbbb", {"decode": decode})
    return Recipe(step, code, {"every": every, "size": {"height": height, "width": 64}}, {"check_scene": check})


def test_a_recipe_survives_json():
    written = json.loads(json.dumps(recipe().to_json()))
    assert Recipe.from_json(written) == recipe()
    assert Recipe.from_json(written).id == recipe().id
    record = new_record(recipe(), SUBJECT, {"a": "b"})
    assert Record.from_json(json.loads(json.dumps(record.to_json()))) == record


def test_ids_depend_on_everything_but_the_order_of_keys():
    changed = [recipe(2), recipe(code="cccc"), recipe(step="fuse"), recipe(decode="sample"), recipe(height=50)]
    assert len({r.id for r in [recipe(), *changed]}) == 6
    turned = Recipe("frames", "aaaa", dict(reversed(recipe().settings.items())), recipe().inputs)
    assert turned.id == recipe().id


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (recipe(every=2), ["step `frames`: made with every = 2, expected 1"]),
        (recipe(height=50), ["step `frames`: made with size.height = 50, expected 48"]),
        (recipe(code="cccc"), ["step `frames`: made by code cccc, expected aaaa"]),
        (recipe(decode="sample"), ["step `check_scene`: made with decode = 'sample', expected 'all'"]),
        (recipe(step="fuse"), ["it was made by the step `fuse`, expected `frames`"]),
        (Recipe("frames", "aaaa", recipe().settings), ["step `frames`: made without the input `check_scene`"]),
        (recipe(), []),
    ],
)
def test_differences_are_named_with_both_values(found, words):
    assert list(differences(found, recipe())) == words
    record = new_record(found, SUBJECT, {})
    if not words:
        require_recipe(record, recipe(), SUBJECT, file="x.h5")
        return
    with pytest.raises(DataError) as caught:
        require_recipe(record, recipe(), SUBJECT, file="x.h5")
    for part in (*words, "x.h5", "--forcerun frames"):
        assert part in str(caught.value)


def test_a_setting_that_is_absent_is_no_setting_of_none():
    found, expected = Recipe("train", "", {"a": None}), Recipe("train", "", {})
    assert list(differences(found, expected)) == ["step `train`: made with a = None, expected 'nothing'"]


def test_many_differences_are_counted():
    found, expected = (Recipe("train", "", {f"k{i}": i + shift for i in range(20)}) for shift in (0, 1))
    with pytest.raises(DataError, match="and 12 more"):
        require_recipe(new_record(found, {}, {}), expected, file="m")


def test_files_without_record_or_of_another_scene_are_refused():
    with pytest.raises(DataError, match="no provenance record"):
        require_recipe(None, recipe(), SUBJECT, file="x.h5")
    with pytest.raises(DataError, match=r"renamed[\s\S]*scene oak[\s\S]*scene ash"):
        require_recipe(new_record(recipe(), SUBJECT, {}), recipe(), SUBJECT | {"scene": "oak"}, file="x.h5")
