"""The tables of labels, compared with counts by hand."""

from __future__ import annotations

import csv
from pathlib import Path

from loco.results.tables.labels import CATEGORY_COLUMNS, SCENE_COLUMNS, write_label_tables
from loco.storage import Labels


def write(path: Path, scene: str, objects: list[tuple], void: float) -> Path:
    """Write a file of 2 x 5 x 10 pixels; objects are (category, stuff, triangles, pixels)."""
    facts = [
        {"label": "x", "category": c, "stuff": s, "triangles": t, "pixels": p, "frames": 1} for c, s, t, p in objects
    ]
    there = [o for o in facts if o["triangles"]]
    stuff = sum(o["stuff"] for o in there)
    counts = {"objects": len(there), "things": len(there) - stuff, "stuff": stuff, "void": void}
    sizes = {"n": 2, "h": 5, "w": 10}
    with Labels.create(path, "rooms", scene, sizes, {"objects": facts, "counts": counts}) as file:
        file.frames_id = "x"
    return path


def test_tables(tmp_path: Path) -> None:
    first = [("wall", True, 4, 50), ("wall", True, 2, 0), ("chair", False, 3, 20), ("bed", False, 0, 0)]
    second = [("chair", False, 3, 9), ("chair", False, 1, 1), ("unlabeled", True, 2, 30), ("ceiling", True, 1, 10)]
    paths = [write(tmp_path / "a.h5", "ash", first, 0.3), write(tmp_path / "b.h5", "birch", second, 0.5)]
    write_label_tables(paths, tmp_path / "scenes", tmp_path / "categories")

    with (tmp_path / "scenes.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows == [
        list(SCENE_COLUMNS),
        ["rooms", "ash", "3", "1", "1", "30.0"],
        ["rooms", "birch", "4", "2", "1", "50.0"],
    ]
    with (tmp_path / "categories.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows == [
        list(CATEGORY_COLUMNS),
        ["wall", "stuff", "1", "2", "50", "25.0"],
        ["chair", "thing", "2", "3", "30", "15.0"],
        ["ceiling", "stuff", "1", "1", "10", "5.0"],
        ["unlabeled", "stuff", "1", "1", "30", "15.0"],
    ]
    lines = (tmp_path / "categories.md").read_text().splitlines()
    assert lines[2] == "| wall | stuff | 1 | 2 | 50 | 25.0 |"
    assert len(lines) == 6
    page = (tmp_path / "categories.html").read_text()
    assert "<tr><td>wall</td><td>stuff</td><td>1</td><td>2</td><td>50</td><td>25.0</td></tr>" in page
