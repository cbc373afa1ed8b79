"""Verification of a folder of results (files of all kinds: test_cli_results.py)."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from loco.records import Recipe, new_record
from loco.results.metrics import write_items
from loco.steps.scene_inputs import weights_ids
from loco.storage import read_manifest, write_json, write_manifest
from loco.storage.reading import reading
from loco.verify import Finding, _verify_file, report, verify


def write_other(path: Path, text: str) -> None:
    """Write weights of another project, which have no content id."""
    path.write_text(text)


def write_own(path: Path, text: str) -> None:
    """Write a file of this project, which has a content id."""
    write_json(path, {"weights": text}, "model", 1)


@pytest.mark.parametrize("write", [write_other, write_own])
def test_weights_that_were_replaced_make_a_file_outdated(tmp_path, monkeypatch, write):
    monkeypatch.chdir(tmp_path)
    weights, results = Path("backbone.safetensors"), tmp_path / "results"
    write(weights, "one")
    content = {"dataset": "d", "scene": "s", "ok": True, "problems": [], "files": [], "digest": "d"}
    record = new_record(Recipe("encode", "c0", {}), {}, weights_ids([weights]))
    write_manifest(results / "manifests/d/s.json", content, record)
    assert verify(results, None, 1) == (1, [])
    write(weights, "two")
    os.utime(weights, ns=(1, 1))
    count, (finding,) = verify(results, None, 1)
    assert (count, finding.kind, finding.file) == (1, "outdated", results / "manifests/d/s.json")
    assert "backbone.safetensors" in finding.problem
    weights.unlink()  # their state is unknown
    assert verify(results, None, 1) == (1, [])


def manifest(results: Path, scene: str, inputs: dict[str, str] | None = None) -> Path:
    path = results / f"manifests/d/{scene}.json"
    content = {"dataset": "d", "scene": scene, "ok": True, "problems": [], "files": [], "digest": "d"}
    write_manifest(
        path, content, new_record(Recipe("check_scene", "c0", {}), {"dataset": "d", "scene": scene}, inputs or {})
    )
    return path


def test_a_copy_under_another_name_is_misplaced(tmp_path):
    results = tmp_path / "results"
    ash = manifest(results, "ash")
    birch = ash.with_name("birch.json")
    shutil.copy(ash, birch)
    found = verify(results, None, 1)
    assert found == (2, [Finding("misplaced", birch, "belongs to the scene ash, expected birch")])


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b""), lambda path: os.truncate(path, 40)])
def test_what_was_made_from_a_damaged_file_is_not_outdated(tmp_path, damage):
    results = tmp_path / "results"
    first = manifest(results, "ash")
    manifest(results, "birch", inputs={"results/manifests/d/ash.json": read_manifest(first).content_id})
    assert verify(results, None, 1) == (2, [])
    damage(first)
    count, (finding,) = verify(results, None, 1)
    assert (count, finding.kind, finding.file) == (2, "damaged", first)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.EMFILE])
def test_a_file_that_the_system_refuses_is_unreadable_not_damaged(tmp_path, monkeypatch, number):
    file = manifest(tmp_path / "results", "ash")

    def refuse(path):
        with reading(path):
            raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr("loco.verify.verify_content_id", refuse)
    finding = _verify_file(file, tmp_path / "results")
    assert (finding.kind, finding.file) == ("unreadable", file)
    assert os.strerror(number) in finding.problem


def test_a_report_is_grouped_by_kind():
    findings = [
        Finding("damaged", Path("a"), "is cut"),
        Finding("outdated", Path("b"), "is old"),
        Finding("damaged", Path("c"), "is gone"),
    ]
    assert report(findings) == "damaged: 2\n  a: is cut\n  c: is gone\noutdated: 1\n  b: is old"


def test_items_of_scenes_are_verified(tmp_path):
    results = tmp_path / "results"
    names = {"benchmark": "panoptic_segmentation", "experiment": "e", "checkpoint": "c", "dataset": "d", "scene": "ash"}
    ash = results / "items/panoptic_segmentation/e/c/d/ash.json"
    write_items(ash, {"scene": ["ash"], "iou": [0.5]}, new_record(Recipe("evaluate_scene", "c0", {}), names, {}))
    birch = ash.with_name("birch.json")
    shutil.copy(ash, birch)
    assert verify(results, None, 1) == (2, [Finding("misplaced", birch, "belongs to the scene ash, expected birch")])
    birch.write_bytes(ash.read_bytes().replace(b"0.5", b"0.6"))
    count, (finding,) = verify(results, None, 1)
    assert (count, finding.kind, finding.file) == (2, "damaged", birch)
