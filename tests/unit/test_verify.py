"""Verification of files that were made from weights outside the folder of results (the rest: test_cli_results.py)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from loco.records import Recipe, new_record
from loco.steps.scene_inputs import weights_ids
from loco.storage import write_json, write_manifest
from loco.verify import Finding, report, verify


def write_other(path: Path, text: str) -> None:
    """Weights of another project, which have no content id."""
    path.write_text(text)


def write_own(path: Path, text: str) -> None:
    """A file of this project, which has one."""
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
    weights.unlink()  # nothing can be said
    assert verify(results, None, 1) == (1, [])


def test_a_report_is_grouped_by_kind():
    findings = [
        Finding("damaged", Path("a"), "is cut"),
        Finding("outdated", Path("b"), "is old"),
        Finding("damaged", Path("c"), "is gone"),
    ]
    assert report(findings) == "damaged: 2\n  a: is cut\n  c: is gone\noutdated: 1\n  b: is old"
