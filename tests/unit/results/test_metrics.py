"""Metric files: what is written is read, what is unusable is refused, tables take no stale numbers."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from loco.errors import DataError
from loco.evaluation.result import Evaluation, Row
from loco.results.metrics import Metrics, as_rows, read_metrics, require_current, write_metrics

ROWS = [Row("recall@5px", "0-15 deg", 0.5, 0.25, 0.75, 2), Row("recall@5px", "15-30 deg", None, None, None, 0)]
RUN = {
    "benchmark": "pixel_correspondence",
    "split": "houses",
    "experiment": "exact",
    "seed": 3,
    "settings": {"thresholds": [5]},
    "passport": {"code": "c0de", "settings": "5e77", "inputs": {}, "seed": 3, "versions": {}, "device": "cpu"},
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "seed3.json"
    write_metrics(path, **RUN, evaluation=Evaluation(ROWS, {"angle": [3.0, 9.5], "recall@5px": [0.25, None]}))
    return path


def test_what_is_written_is_read(file: Path) -> None:
    assert read_metrics(file) == Metrics(
        path=file, **RUN, rows=ROWS, items={"angle": [3.0, 9.5], "recall@5px": [0.25, None]}
    )


def _without_rows(content: dict) -> None:
    del content["rows"]


def _other_version(content: dict) -> None:
    content["version"] = 2


def _misspelt_row(content: dict) -> None:
    content["rows"][0]["vale"] = content["rows"][0].pop("value")


def _ragged_items(content: dict) -> None:
    content["items"]["angle"].append(1.0)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_without_rows, "keys"),
        (_other_version, "version"),
        (_misspelt_row, "vale"),
        (_ragged_items, "unequal length"),
    ],
)
def test_spoilt_file_is_refused(file: Path, spoil, says: str) -> None:
    content = json.loads(file.read_text())
    spoil(content)
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match=says) as caught:
        read_metrics(file)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("text", ["", "[1, 2]", '{"format": "loco-met', "\0"])
def test_what_is_no_metric_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "broken.json").write_text(text)
    with pytest.raises(DataError, match=r"broken\.json"):
        read_metrics(tmp_path / "broken.json")


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="absent"):
        read_metrics(tmp_path / "absent.json")


def test_current_files_pass(file: Path) -> None:
    metrics = read_metrics(file)
    require_current([metrics], {metrics.key: {"code": "c0de", "settings": "5e77"}})


@pytest.mark.parametrize(
    ("recipe", "named", "unnamed"),
    [
        ({"code": "0ther", "settings": "5e77"}, "code", "other settings"),
        ({"code": "c0de", "settings": "0ther"}, "settings", "other code"),
    ],
)
def test_stale_file_is_named_with_what_differs(file: Path, recipe: dict, named: str, unnamed: str) -> None:
    metrics = read_metrics(file)
    with pytest.raises(DataError) as caught:
        require_current([metrics], {metrics.key: recipe})
    message = str(caught.value)
    assert str(file) in message
    assert f"other {named}" in message
    assert unnamed not in message
    assert "--forcerun evaluate" in message


def test_only_stale_files_are_named(file: Path, tmp_path: Path) -> None:
    fresh = read_metrics(file)
    stale = Metrics(**{**vars(fresh), "path": tmp_path / "stale.json", "seed": 4})
    with pytest.raises(DataError) as caught:
        require_current([fresh, stale], {fresh.key: fresh.passport, stale.key: {"code": "0ther"}})
    assert "stale.json" in str(caught.value)
    assert str(file) not in str(caught.value)


def test_file_of_no_configured_run_is_refused(file: Path) -> None:
    with pytest.raises(DataError, match="no run pixel_correspondence / houses / exact / 3"):
        require_current([read_metrics(file)], {})


def test_a_file_is_shown_under_another_name(file: Path) -> None:
    found = read_metrics(file)
    (shown,) = as_rows([found], {("houses", "exact"): ("held out", "5 m"), ("houses", "other"): ("held out", "2 m")})
    assert shown == dataclasses.replace(found, split="held out", experiment="5 m")
    assert shown.rows == ROWS
