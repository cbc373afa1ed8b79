"""The table of all checks, and the message if scenes have problems."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from loco.errors import DataError
from loco.results.plots.checks import plot_geometry
from loco.results.tables.checks import require_passed, write_checks

WHOLE = {
    "ok": True,
    "problems": [],
    "notes": ["one object is listed twice"],
    "files": [{"bytes": 20}, {"bytes": 122}],
    "images": 36,
}
BROKEN = {
    "ok": False,
    "problems": ["a.zip is missing\n  what to do: download it", "b.zip is truncated"],
    "files": [],
    "images": 0,
}
MANIFESTS = {("houses", "ash"): WHOLE, ("flats", "birch"): BROKEN}
PREPARED = {("flats", "birch"): 0, ("houses", "ash"): 99}


def test_table_has_a_line_a_scene(tmp_path: Path) -> None:
    write_checks(MANIFESTS, PREPARED, tmp_path / "checks")
    with (tmp_path / "checks.csv").open() as file:
        ash, birch = csv.DictReader(file)
    counts = {"problems": "0", "notes": "1", "images": "36", "raw_bytes": "142", "prepared_bytes": "99"}
    assert ash == {"dataset": "houses", "scene": "ash", "ok": "yes", **counts}
    assert (birch["ok"], birch["problems"], birch["notes"]) == ("no", "2", "0")
    table, notes = (tmp_path / "checks.md").read_text().split("\n\n")
    assert notes == "- houses/ash: one object is listed twice\n"
    lines = table.splitlines()
    assert {line.count("|") for line in lines} == {9}
    assert lines[2] == "| houses | ash | yes | 0 | 1 | 36 | 142 | 99 |"
    page = (tmp_path / "checks.html").read_text()
    assert (
        "<tr><td>houses</td><td>ash</td><td>yes</td><td>0</td><td>1</td><td>36</td><td>142</td><td>99</td></tr>" in page
    )
    assert '<th scope="col">prepared bytes</th>' in page


def test_whole_scenes_pass() -> None:
    require_passed({("houses", "ash"): WHOLE})


def test_all_problems_of_broken_scenes_are_listed() -> None:
    with pytest.raises(DataError) as caught:
        require_passed(MANIFESTS)
    message = str(caught.value)
    assert message.startswith("1 of 2 scenes failed their check:")
    assert "flats/birch\n  - a.zip is missing\n    what to do: download it\n  - b.zip is truncated\n" in message
    assert "houses/ash" not in message


def test_the_geometric_check_has_columns_and_a_figure(tmp_path: Path) -> None:
    numbers = {"frames": 9, "pairs": 14, "overlap": 0.41, "error_cm": 0.6, "consistency": 0.997}
    manifests = {("houses", "ash"): WHOLE | {"geometry": numbers}, ("flats", "birch"): BROKEN}
    write_checks(manifests, PREPARED, tmp_path / "checks")
    with (tmp_path / "checks.csv").open() as file:
        ash, birch = csv.DictReader(file)
    assert (ash["frame_pairs"], ash["overlap"], ash["disagreement_cm"]) == ("14", "0.41", "0.6")
    assert ash["consistency"] == "0.997"
    assert birch["consistency"] == ""
    plot_geometry(manifests, tmp_path / "figure")
    assert (tmp_path / "figure.svg").stat().st_size > 1000
    assert (tmp_path / "figure.png").stat().st_size > 1000
