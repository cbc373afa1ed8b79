"""Metric files: what is written is read, invalid files are refused, and tables contain no outdated numbers."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loco.errors import DataError
from loco.evaluation.result import Evaluation, Row
from loco.records import Recipe, Record, new_record
from loco.results.metrics import (
    FORMAT,
    VERSION,
    Metrics,
    as_rows,
    read_items,
    read_metrics,
    write_items,
    write_metrics,
)
from loco.storage import read_json, write_json
from loco.storage.content_id import BLANK, read_content_id, seal

ROWS = [
    Row("recall@5px", "0-15 deg", 0.5, 0.25, 0.75, 2, population="images", scenes=1),
    Row("recall@5px", "15-30 deg", None, None, None, 0),
]
RECIPE = Recipe(
    "evaluate", "c0de" * 16, {"settings": {"thresholds": [5]}, "seed": 3}, {"frames": Recipe("frames", "f", {})}
)
RECORD = new_record(RECIPE, {"split": "houses", "experiment": "exact"}, {"results/frames/houses/ash.h5": 64 * "a"})
RUN = {
    "benchmark": "pixel_correspondence",
    "split": "houses",
    "experiment": "exact",
    "seed": 3,
    "settings": {"thresholds": [5]},
    "record": RECORD,
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "seed3.json"
    write_metrics(path, **RUN, evaluation=Evaluation(ROWS, {"angle": [3.0, 9.5], "recall@5px": [0.25, None]}))
    return path


def content_of(file: Path) -> dict:
    return read_json(file, FORMAT, VERSION).content


def rewrite(file: Path, content: dict, version: int = VERSION, record: Record | None = RECORD) -> None:
    """Write a document with a valid content id and arbitrary content."""
    write_json(file, content, FORMAT, version, record)


def test_what_is_written_is_read(file: Path) -> None:
    assert read_metrics(file) == Metrics(
        path=file, **RUN, rows=ROWS, items={"angle": [3.0, 9.5], "recall@5px": [0.25, None]}
    )


def _without_rows(content: dict) -> None:
    del content["rows"]


def _new_key(content: dict) -> None:
    content["note"] = "x"


def _misspelt_row(content: dict) -> None:
    content["rows"][0]["vale"] = content["rows"][0].pop("value")


def _ragged_items(content: dict) -> None:
    content["items"]["angle"].append(1.0)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_without_rows, "rows"),
        (_new_key, "note"),
        (_misspelt_row, r"rows\[0\]"),
        (_ragged_items, "unequal length"),
    ],
)
def test_spoilt_file_is_refused(file: Path, spoil, says: str) -> None:
    content = content_of(file)
    spoil(content)
    rewrite(file, content)
    with pytest.raises(DataError, match=says) as caught:
        read_metrics(file)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("version", [1, 2, 4])
def test_other_versions_are_refused(file: Path, version: int) -> None:
    rewrite(file, content_of(file), version)
    with pytest.raises(DataError, match=rf"(?s)another format.*seed3\.json.*version 3.*version {version}"):
        read_metrics(file)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("benchmark",), 5),
        (("split",), None),
        (("experiment",), ["exact"]),
        (("seed",), "3"),
        (("seed",), True),
        (("seed",), -1),
        (("seed",), 3.0),
        (("settings",), []),
        (("rows",), {}),
        (("rows", 0), None),
        (("rows", 0), []),
        (("rows", 0, "value"), "0.5"),
        (("rows", 0, "low"), True),
        (("rows", 0, "n"), None),
        (("rows", 0, "n"), 2.5),
        (("rows", 0, "n"), -2),
        (("rows", 0, "metric"), 7),
        (("rows", 0, "unit"), None),
        (("rows", 0, "population"), "pairs"),
        (("rows", 0, "scenes"), -1),
        (("items",), []),
        (("items", "angle"), "3.0 9.5"),
        (("items", "angle"), {"0": 3.0}),
        (("items", "angle", 0), "3.0"),
        (("items", "angle", 0), [3.0]),
        (("items", "angle", 0), True),
    ],
)
def test_wrong_types_are_refused_with_their_place(file: Path, place: tuple, value: object) -> None:
    content = content_of(file)
    *parents, key = place
    holder = content
    for parent in parents:
        holder = holder[parent]
    holder[key] = value
    rewrite(file, content)
    with pytest.raises(DataError, match=r"has (unexpected content|mixed or nested entries)") as caught:
        read_metrics(file)
    assert str(file) in str(caught.value)
    assert str(place[0]) in str(caught.value)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damage_under_a_valid_content_id_is_read_or_refused_with_the_name_of_the_file(
    file: Path, data: st.DataObject
) -> None:
    """The files have valid content ids, as if another program had written them: only their structure is invalid."""
    whole = file.with_suffix(".whole")
    if not whole.exists():
        whole.write_bytes(file.read_bytes().replace(read_content_id(file).encode(), BLANK.encode()))
    content = bytearray(whole.read_bytes())
    first = content.index(BLANK.encode()) + len(BLANK) + 1
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(first, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=3))
    file.write_bytes(content)
    seal(file)
    try:
        read, message = read_metrics(file), ""
    except DataError as error:
        read, message = None, str(error)
    if read is None:
        assert str(file) in message
    else:
        assert all(row.value is None or math.isfinite(row.value) for row in read.rows)


def test_a_file_of_version_1_is_refused(file: Path) -> None:
    """Files of version 1 had a `passport`, and no content id."""
    file.write_text(json.dumps({"format": FORMAT, "version": 1, "passport": {}, **content_of(file)}))
    with pytest.raises(DataError, match=r"(?s)earlier version.*seed3\.json"):
        read_metrics(file)


def test_a_deterministic_run_has_no_seed(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    write_metrics(path, **RUN | {"seed": None}, evaluation=Evaluation(ROWS, {}))
    read = read_metrics(path, RECIPE)
    assert read.key == ("pixel_correspondence", "houses", "exact", None)
    assert read.order < dataclasses.replace(read, seed=0).order


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="absent"):
        read_metrics(tmp_path / "absent.json")


def test_a_file_that_was_made_as_expected_is_read(file: Path) -> None:
    assert read_metrics(file, RECIPE) == read_metrics(file)


@pytest.mark.parametrize(
    ("change", "named", "unnamed"),
    [
        ({"code": "07e5" * 16}, "made by code c0dec0dec0de, expected 07e507e507e5", "made with"),
        (
            {"settings": {"settings": {"thresholds": [9]}, "seed": 3}},
            "settings.thresholds = [5], expected [9]",
            "by code",
        ),
        ({"settings": {"settings": {"thresholds": [5]}, "seed": 4}}, "seed = 3, expected 4", "by code"),
        ({"inputs": {"frames": Recipe("frames", "g", {})}}, "step `frames`: made by code f, expected g", "`evaluate`:"),
    ],
)
def test_a_stale_file_is_named_with_what_differs(file: Path, change: dict, named: str, unnamed: str) -> None:
    with pytest.raises(DataError) as caught:
        read_metrics(file, dataclasses.replace(RECIPE, **change))
    message = str(caught.value)
    assert str(file) in message
    assert named in message
    assert unnamed not in message
    assert "--forcerun evaluate" in message


def test_a_file_without_a_record_is_refused_where_one_is_expected(file: Path) -> None:
    rewrite(file, content_of(file), record=None)
    assert read_metrics(file).record is None
    with pytest.raises(DataError, match=r"(?s)no provenance record.*seed3\.json"):
        read_metrics(file, RECIPE)


def test_a_file_is_shown_in_every_row_that_names_it(file: Path) -> None:
    found = read_metrics(file)
    other = dataclasses.replace(found, path=file.with_name("other.json"), experiment="sift", seed=None)
    rows = {str(file): [("held out", "5 m")], other.path: [("held out", "SIFT"), ("elsewhere", "SIFT")]}
    shown = as_rows([found, other], rows)
    assert [(m.path.name, m.split, m.experiment, m.seed) for m in shown] == [
        ("seed3.json", "held out", "5 m", 3),
        ("other.json", "held out", "SIFT", None),
        ("other.json", "elsewhere", "SIFT", None),
    ]
    assert shown[0] == dataclasses.replace(found, split="held out", experiment="5 m")


def test_items_of_a_scene_are_read_back_or_refused(tmp_path: Path) -> None:
    items = {"scene": ["ash", "ash"], "iou": [0.1 + 0.2, None], "trained": [True, False]}
    path = tmp_path / "ash.json"
    write_items(path, items)
    assert read_items(path).content == items
    with pytest.raises(DataError, match=r"(?s)another format.*ash\.json"):
        read_metrics(path)
    write_items(path, {"scene": ["ash"], "iou": []})
    with pytest.raises(DataError, match=r"(?s)unequal length.*ash\.json"):
        read_items(path)
