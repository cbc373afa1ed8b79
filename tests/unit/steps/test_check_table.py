"""The manifests of all scenes, as a table and one result; those of another check or configuration are refused."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from loco.errors import DataError
from loco.records import Recipe, new_record
from loco.steps import check_all, check_table
from loco.storage import prepared_bytes, write_manifest

RECIPES = {name: Recipe("check_scene", "c0", {"format": name, "decode": "all"}) for name in ("houses", "flats")}
SIZES = {
    "houses": {"height": 48, "width": 64, "every": 1, "stride": 4},
    "flats": {"height": 96, "width": 128, "every": 10, "stride": 8},
}


def write(folder: Path, dataset: str, scene: str, recipe: Recipe | None = None, **changes: object) -> Path:
    content = {"dataset": dataset, "scene": scene, "ok": True, "problems": [], "digest": "d", "images": 36}
    path = folder / dataset / f"{scene}.json"
    record = new_record(recipe or RECIPES[dataset], {"dataset": dataset, "scene": scene}, {})
    write_manifest(path, {**content, "files": [{"bytes": 142}], **changes}, record)
    return path


def test_the_table_estimates_what_the_prepared_files_take(tmp_path):
    paths = [write(tmp_path, "houses", "ash"), write(tmp_path, "flats", "birch", images=95)]
    check_table.run(paths, RECIPES, SIZES, tmp_path / "checks.csv")
    with (tmp_path / "checks.csv").open() as file:
        ash, birch = csv.DictReader(file)
    assert (ash["dataset"], ash["scene"], ash["images"], ash["raw_bytes"]) == ("houses", "ash", "36", "142")
    assert int(ash["prepared_bytes"]) == prepared_bytes(36, (48, 64), 4)
    assert int(birch["prepared_bytes"]) == prepared_bytes(10, (96, 128), 8)  # every tenth of 95
    assert len((tmp_path / "checks.md").read_text().splitlines()) == 4


def test_all_scenes_must_pass(tmp_path):
    whole = write(tmp_path, "houses", "ash")
    check_all.run([whole], RECIPES, tmp_path / "passed.txt")
    assert (tmp_path / "passed.txt").read_text() == "1 scenes passed their check\n"
    broken = write(tmp_path, "flats", "birch", ok=False, problems=["b.zip is truncated"])
    with pytest.raises(DataError, match=r"1 of 2 scenes[\s\S]*flats/birch[\s\S]*b.zip is truncated"):
        check_all.run([whole, broken], RECIPES, tmp_path / "all.txt")
    assert not (tmp_path / "all.txt").exists()
    check_table.run([whole, broken], RECIPES, SIZES, tmp_path / "checks.csv")  # lists the scene with problems, too
    assert "flats,birch,no,1" in (tmp_path / "checks.csv").read_text()


def test_a_manifest_of_another_check_is_refused(tmp_path):
    paths = [write(tmp_path, "houses", "ash"), write(tmp_path, "flats", "birch", recipe=RECIPES["houses"])]
    said = r"format = 'houses', expected 'flats'[\s\S]*birch\.json"
    with pytest.raises(DataError, match=said):
        check_table.run(paths, RECIPES, SIZES, tmp_path / "out.csv")
    with pytest.raises(DataError, match=said):
        check_all.run(paths, RECIPES, tmp_path / "out.txt")
    assert not list(tmp_path.glob("out*"))
