"""JSON documents: what is written is read; invalid JSON and violations of the schema are refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loco.errors import DataError
from loco.records import Recipe, new_record
from loco.storage import read_json, write_json
from loco.storage.content_id import BLANK, read_content_id, seal

FORMAT, VERSION = "test", 2
RECORD = new_record(Recipe("evaluate", "c0de", {"seed": 0}), {"split": "houses"}, {"a.h5": 64 * "a"})
SCHEMA = {
    "type": "object",
    "properties": {"count": {"type": "integer"}, "rows": {"type": "array", "items": {"type": "number"}}},
    "required": ["count"],
}


def sealed(path: Path, body: str) -> Path:
    """Write a file with a valid content id before arbitrary text."""
    path.write_text(f'{{"content_id": "{BLANK}", {body}')
    seal(path)
    return path


def test_what_is_written_is_read(tmp_path: Path) -> None:
    content = {"rows": [0.1, None, -3, "\N{HOUSE BUILDING}"], "empty": {}, "large": 2**63 - 1}
    write_json(tmp_path / "a.json", content, FORMAT, VERSION, RECORD)
    read = read_json(tmp_path / "a.json", FORMAT, VERSION, RECORD.recipe)
    assert (read.path, read.content, read.record) == (tmp_path / "a.json", content, RECORD)
    assert read.content_id == read_content_id(tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text())["content"] == content  # any JSON parser can read it
    write_json(tmp_path / "b.json", content, FORMAT, VERSION)
    assert read_json(tmp_path / "b.json", FORMAT, VERSION).record is None


@pytest.mark.parametrize(
    "token", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "9" * 30, "9" * 5000, r'"\ud800"', r'"\uDC00x"']
)
@pytest.mark.parametrize("place", ["content", "record"])
def test_values_that_json_or_an_array_cannot_hold_are_refused(tmp_path: Path, token: str, place: str) -> None:
    write_json(tmp_path / "a.json", {"x": ["HERE"]} if place == "content" else {}, FORMAT, VERSION, RECORD)
    text = (tmp_path / "a.json").read_text().replace(read_content_id(tmp_path / "a.json"), BLANK)
    old = '"HERE"' if place == "content" else '"seed": 0'
    assert old in text
    (tmp_path / "a.json").write_text(text.replace(old, token if place == "content" else f'"seed": {token}'))
    seal(tmp_path / "a.json")
    with pytest.raises(DataError, match=r"(?s)^the file (cannot be read|is not valid JSON).*a\.json"):
        read_json(tmp_path / "a.json", FORMAT, VERSION)


def test_pairs_of_surrogates_are_one_character(tmp_path: Path) -> None:
    head = f'"format": "{FORMAT}", "version": {VERSION}, "record": null'
    path = sealed(tmp_path / "a.json", head + r', "content": {"a": "\ud83c\udfe0"}}')
    assert read_json(path, FORMAT, VERSION).content == {"a": "\N{HOUSE BUILDING}"}


@pytest.mark.parametrize(
    "body",
    [
        "",
        "}",
        '"format": "te',
        '"format": "test", "version": 2}',
        '"format": "test", "version": 2, "record": null}',
        '"format": "test", "version": 2, "record": null, "content": []}',
        '"format": "test", "version": 2, "record": null, "content": [["a", 1]]}',
        '"format": "test", "version": 2, "record": null, "content": null}',
        '"format": "test", "version": 2, "record": null, "content": 5}',
        '"format": "test", "version": 2, "record": {}, "content": {}}',
        '"format": "test", "version": 2, "record": [], "content": {}}',
        '"format": "test", "version": 2, "record": {"recipe": 5}, "content": {}}',
        '"format": "test", "version": true, "record": null, "content": {}}',
        '"format": "test", "version": null, "record": null, "content": {}}',
        '"format": ["test"], "version": 2, "record": null, "content": {}}',
        '"content": ' + "[" * 200_000 + "]" * 200_000 + "}",
    ],
    ids=range(16),
)
def test_a_sealed_file_that_is_no_document_is_refused_by_name(tmp_path: Path, body: str) -> None:
    path = sealed(tmp_path / "a.json", body)
    with pytest.raises(DataError, match=r"a\.json"):
        read_json(path, FORMAT, VERSION)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"count": 5, "rows": [1, 2.5]}, None),
        ({"count": 0, "more": "x"}, None),
        ({}, "at the top level: 'count' is a required property"),
        ({"count": 5.0}, "at count: 5.0 is not of type 'integer'"),
        ({"count": True}, "at count: True is not of type 'integer'"),
        ({"count": 5, "rows": [1, "2"]}, "at rows[1]: '2' is not of type 'number'"),
        ({"count": 5, "rows": {}}, "at rows: {} is not of type 'array'"),
    ],
)
def test_content_must_be_of_the_schema(tmp_path: Path, content: dict, says: str | None) -> None:
    write_json(tmp_path / "a.json", content, FORMAT, VERSION)
    if says is None:
        assert read_json(tmp_path / "a.json", FORMAT, VERSION, schema=SCHEMA).content == content
        return
    with pytest.raises(DataError) as caught:
        read_json(tmp_path / "a.json", FORMAT, VERSION, schema=SCHEMA)
    assert f"has unexpected content {says}" in str(caught.value)
    assert str(tmp_path / "a.json") in str(caught.value)


def test_long_values_are_shortened_in_messages(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"count": "word " * 1000}, FORMAT, VERSION)
    with pytest.raises(DataError, match="at count") as caught:
        read_json(tmp_path / "a.json", FORMAT, VERSION, schema=SCHEMA)
    assert len(str(caught.value)) < 600


def test_a_document_that_was_made_otherwise_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {}, FORMAT, VERSION, RECORD)
    with pytest.raises(DataError, match=r"seed = 0, expected 1"):
        read_json(tmp_path / "a.json", FORMAT, VERSION, Recipe("evaluate", "c0de", {"seed": 1}))


def test_nothing_is_left_of_a_document_that_cannot_be_written(tmp_path: Path) -> None:
    for content in ({"a": float("inf")}, {"a": float("nan")}, {"a": object()}):
        with pytest.raises((ValueError, TypeError)):
            write_json(tmp_path / "a.json", content, FORMAT, VERSION)
    assert list(tmp_path.iterdir()) == []
