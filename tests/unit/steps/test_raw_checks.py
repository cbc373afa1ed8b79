"""The check of a raw scene as a step: its findings are in the manifest, with the description of the scene."""

from __future__ import annotations

from pathlib import Path

import pytest

from loco.errors import DataError
from loco.records import Recipe, new_record
from loco.steps import check_labels, check_scene
from loco.steps.raw_checks import write_check
from loco.storage import read_manifest, write_folder_record
from loco.storage.content_id import read_content_id

DOWNLOAD = Recipe("check_scene", "c0", {"format": "matterport3d", "decode": "all"})
SIMULATE = Recipe("simulate", "s0", {"seed": 3})
MADE = Recipe("check_scene", "c0", {"format": "matterport3d", "decode": "all"}, {"simulate": SIMULATE})


def checked(format: str, raw: Path, scene: str, decode: str) -> dict:
    """Return the findings of a check: here, the arguments with which it was called."""
    problems = [f"{format} {raw} {decode}"]
    return {"scene": scene, "ok": False, "problems": problems, "files": [], "digest": "d"}


def test_the_manifest_holds_what_the_check_found(tmp_path):
    write_check(checked, DOWNLOAD, tmp_path / "raw", tmp_path / "ash.json", "houses", "ash")
    manifest = read_manifest(tmp_path / "ash.json", DOWNLOAD)
    assert manifest.key == ("houses", "ash")
    assert manifest.content["problems"] == [f"matterport3d {tmp_path / 'raw'} all"]
    assert manifest.record.subject == {"dataset": "houses", "scene": "ash"}
    assert manifest.record.inputs == {}


def test_a_scene_that_the_workflow_made_is_an_input(tmp_path):
    (tmp_path / "raw/ash").mkdir(parents=True)
    write_folder_record(tmp_path / "raw/ash", new_record(SIMULATE, {"dataset": "houses", "scene": "ash"}, {}))
    write_check(checked, MADE, tmp_path / "raw", tmp_path / "ash.json", "houses", "ash")
    manifest = read_manifest(tmp_path / "ash.json", MADE)
    assert manifest.record.inputs == {str(tmp_path / "raw/ash"): read_content_id(tmp_path / "raw/ash/.record.json")}


def test_a_scene_that_was_made_otherwise_is_refused(tmp_path):
    (tmp_path / "raw/ash").mkdir(parents=True)
    with pytest.raises(DataError, match=r"raw/ash"):
        write_check(checked, MADE, tmp_path / "raw", tmp_path / "ash.json", "houses", "ash")
    write_folder_record(tmp_path / "raw/ash", new_record(Recipe("simulate", "s0", {"seed": 4}), {}, {}))
    with pytest.raises(DataError, match=r"seed = 4, expected 3"):
        write_check(checked, MADE, tmp_path / "raw", tmp_path / "ash.json", "houses", "ash")
    assert not (tmp_path / "ash.json").exists()


def test_a_broken_scene_has_a_manifest(raw, tmp_path):
    check_scene.run(DOWNLOAD, raw, tmp_path / "whole.json", "houses", "house")
    whole = read_manifest(tmp_path / "whole.json", DOWNLOAD)
    assert whole.content["ok"]
    assert whole.content["images"] == 18
    whole.require_passed()
    (raw / "house" / "undistorted_color_images.zip").unlink()
    check_scene.run(DOWNLOAD, raw, tmp_path / "broken.json", "houses", "house")
    broken = read_manifest(tmp_path / "broken.json", DOWNLOAD)
    assert not broken.content["ok"]
    assert broken.content_id != whole.content_id
    with pytest.raises(DataError, match=r"failed[\s\S]*color_images.zip is missing"):
        broken.require_passed()


def test_labels_have_a_check_of_their_own(raw, tmp_path):
    recipe = Recipe("check_labels", "c0", DOWNLOAD.settings)
    check_labels.run(recipe, raw, tmp_path / "labels.json", "houses", "house")
    manifest = read_manifest(tmp_path / "labels.json", recipe)
    assert manifest.content["ok"]
    assert manifest.content["files"]
    assert "images" not in manifest.content
