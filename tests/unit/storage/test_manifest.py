"""Manifests are read with the counts that every format states; a scene with problems does not pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from loco.errors import DataError
from loco.records import Recipe, new_record
from loco.storage import read_json, read_manifest, write_json, write_manifest

WHOLE = {
    "dataset": "houses",
    "scene": "ash",
    "ok": True,
    "problems": [],
    "notes": ["one object is listed twice"],
    "files": [{"name": "a", "bytes": 20}, {"name": "b", "bytes": 122}],
    "digest": 64 * "d",
    "images": 36,
}
BROKEN = WHOLE | {
    "scene": "birch",
    "ok": False,
    "problems": ["a.zip is missing\n  what to do: download it", "b.zip is truncated"],
    "files": [],
    "images": 0,
}
RECIPE = Recipe("check_scene", "c0de", {"format": "colmap", "decode": "all"})


@pytest.mark.parametrize("content", [WHOLE, BROKEN], ids=["whole", "broken"])
def test_a_manifest_is_read_as_it_was_written(tmp_path: Path, content: dict) -> None:
    own = content | {"points": 7}  # counts specific to a format are kept
    record = new_record(RECIPE, {"dataset": "houses", "scene": content["scene"]}, {})
    write_manifest(tmp_path / "m.json", own, record)
    manifest = read_manifest(tmp_path / "m.json", RECIPE)
    assert (manifest.path, manifest.content, manifest.record) == (tmp_path / "m.json", own, record)
    assert manifest.key == ("houses", content["scene"])


def test_labels_have_a_manifest_without_images(tmp_path: Path) -> None:
    content = {key: value for key, value in WHOLE.items() if key not in ("images", "notes")}
    write_manifest(tmp_path / "m.json", content)
    assert read_manifest(tmp_path / "m.json").content == content


def test_a_scene_with_problems_does_not_pass(tmp_path: Path) -> None:
    write_manifest(tmp_path / "whole.json", WHOLE)
    read_manifest(tmp_path / "whole.json").require_passed()
    write_manifest(tmp_path / "broken.json", BROKEN)
    with pytest.raises(DataError) as caught:
        read_manifest(tmp_path / "broken.json").require_passed()
    message = str(caught.value)
    for part in (*BROKEN["problems"], "birch", str(tmp_path / "broken.json")):
        assert part in message


def test_the_content_id_depends_on_the_digest_of_the_raw_files(tmp_path: Path) -> None:
    ids = []
    for number, content in enumerate([WHOLE, WHOLE, WHOLE | {"digest": 64 * "e"}]):
        write_manifest(tmp_path / f"{number}.json", content)
        ids.append(read_manifest(tmp_path / f"{number}.json").content_id)
    assert ids[0] == ids[1] != ids[2]


def test_a_manifest_of_another_check_is_refused(tmp_path: Path) -> None:
    write_manifest(tmp_path / "m.json", WHOLE, new_record(RECIPE, {}, {}))
    with pytest.raises(DataError, match="decode = 'all', expected 'sample'"):
        read_manifest(tmp_path / "m.json", Recipe("check_scene", "c0de", {"format": "colmap", "decode": "sample"}))


@pytest.mark.parametrize("key", ["dataset", "scene", "ok", "problems", "files", "digest", "images"])
@pytest.mark.parametrize("value", [..., None, 5.5, [7], {"bytes": 1}, -1])
def test_a_manifest_with_wrong_content_is_refused_by_name(tmp_path: Path, key: str, value: object) -> None:
    write_manifest(tmp_path / "m.json", WHOLE)
    document = read_json(tmp_path / "m.json", "loco-manifest", 1)
    content = {name: entry for name, entry in document.content.items() if name != key}
    content |= {} if value is ... else {key: value}
    write_json(tmp_path / "m.json", content, "loco-manifest", 1)
    if value is ... and key == "images":  # labels have none
        assert read_manifest(tmp_path / "m.json").content == content
        return
    with pytest.raises(DataError, match="has unexpected content") as caught:
        read_manifest(tmp_path / "m.json")
    assert str(tmp_path / "m.json") in str(caught.value)
    assert key in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"[]", b'{"ok": true', b"\xff", b'{"ok": true}'])
def test_a_file_that_is_no_manifest_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.json").write_bytes(content)
    with pytest.raises(DataError, match=r"m\.json"):
        read_manifest(tmp_path / "m.json")
    with pytest.raises(DataError, match=r"absent\.json"):
        read_manifest(tmp_path / "absent.json")
