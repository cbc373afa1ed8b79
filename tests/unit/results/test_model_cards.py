"""Model cards: every number on them is that of a file of the same run."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from loco.errors import DataError
from loco.evaluation.result import Evaluation, Row
from loco.records import Recipe, Record
from loco.results.metrics import Metrics, read_metrics, write_metrics
from loco.results.model_cards import model_card
from loco.results.tables.markup import DASH

MODEL = {"name": "compact_cnn", "dim": 16}
SIZES = {"dim": 16, "stride": 4, "parameters": 123}
FACTS = {
    "split": "houses",
    "experiment": "exact",
    "seed": 3,
    "steps": 50,
    "loss": {"name": "exact", "rho": [0.2, 0.5]},
    "data": {"train": {"houses": ["house00", "house01"]}},
}
ROWS = [
    Row("recall@5px", "0-15 deg", 0.5, 0.25, 0.753, 2),
    Row("recall@5px", "15-30 deg", None, None, None, 0),
    Row("recall@10px", "0-15 deg", 0.75, None, None, 2),
    Row("recall@10px", "15-30 deg", None, None, None, 0),
]


RUN = [r"pixel\_correspondence", "houses", "exact", "3"]
RECIPE = Recipe("evaluate", "c0de" * 16, {"benchmark": "pixel_correspondence"})
RECORD = Record(RECIPE, {}, {}, {"torch": "2.1", "loco": "0.2"}, "a machine")


def _metrics(folder: Path, record: Record | None = RECORD, **changes: object) -> Metrics:
    run = {"benchmark": "pixel_correspondence", "split": "houses", "experiment": "exact", "seed": 3} | changes
    path = folder / f"{len(list(folder.iterdir()))}.json"
    write_metrics(path, **run, settings={}, evaluation=Evaluation(ROWS, {}), record=record)
    return read_metrics(path)


def _cells(card: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in card.splitlines() if line[:1] == "|"]


def test_a_card_says_how_the_model_was_made_and_what_it_scored(tmp_path: Path) -> None:
    card = model_card("houses", MODEL, SIZES, FACTS, [_metrics(tmp_path)])
    cells = _cells(card)
    for line in (
        ["model.name", r"compact\_cnn"],
        ["sizes.parameters", "123"],
        ["loss.rho", "0.2, 0.5"],
        ["data.train.houses", "house00, house01"],
        ["", "0-15 deg", "15-30 deg"],
        ["recall@5px", r"50.0 \[25.0, 75.3\]", DASH],
        ["recall@10px", "75.0", DASH],
        ["number of image pairs", "2", "0"],
        [*RUN, "c0dec0dec0de", RECIPE.id[:12], "a machine", "loco 0.2, torch 2.1"],
    ):
        assert line in cells
    head = yaml.safe_load(card.split("---")[1])
    assert head["library_name"] == "loco"


def test_entries_of_lists_are_numbered() -> None:
    phases = [{"loss": {"name": "info_nce"}, "fraction_of_steps": 0.9}, {"loss": {"name": "exact"}}]
    cells = _cells(model_card("houses", MODEL, SIZES, {"phases": phases}))
    assert [r"phases.1.fraction\_of\_steps", "0.9"] in cells
    assert ["phases.2.loss.name", "exact"] in cells


def test_metrics_without_a_record_have_dashes_in_its_place(tmp_path: Path) -> None:
    card = model_card("houses", MODEL, SIZES, FACTS, [_metrics(tmp_path, record=None)])
    assert [*RUN, DASH, DASH, DASH, DASH] in _cells(card)


def test_errors_are_in_their_unit(tmp_path: Path) -> None:
    rows = [Row("rotation error", "all", 3.0, 2.5, None, 9, "deg"), Row("AUC@5deg", "all", 0.5, 0.4, 0.6, 9)]
    run = {"benchmark": "relative_pose", "split": "houses", "experiment": "exact", "seed": 3}
    write_metrics(tmp_path / "m.json", **run, settings={}, evaluation=Evaluation(rows, {}))
    cells = _cells(model_card("houses", MODEL, SIZES, FACTS, [read_metrics(tmp_path / "m.json")]))
    assert ["rotation error (deg)", "3.00 \\[2.50, \N{INFINITY}\\]"] in cells
    assert ["AUC@5deg", r"50.0 \[40.0, 60.0\]"] in cells


def test_a_card_without_a_training_says_so() -> None:
    card = model_card("frozen", MODEL, SIZES, {}, licence="Apache-2.0 of dino_vits8")
    assert "contains no record of a training" in card
    assert "No metric files" in card
    assert r"to the licence of the backbone: Apache-2.0 of dino\_vits8." in card


@pytest.mark.parametrize("change", [{"seed": 4}, {"experiment": "sampled"}, {"split": "other"}])
def test_metrics_of_another_run_are_refused(tmp_path: Path, change: dict) -> None:
    metrics = [_metrics(tmp_path), _metrics(tmp_path, **change)]
    with pytest.raises(DataError, match=r"to another run(.|\n)*1\.json"):
        model_card("houses", MODEL, SIZES, FACTS, metrics)


def test_what_a_file_says_makes_no_markup() -> None:
    facts = {"note": "a | b\n\n# heading\n<script>[x](http://y)`", "seed": True}
    card = model_card("houses", MODEL, SIZES, facts)
    assert "\n# heading" not in card
    assert ["note", r"a \| b # heading \<script\>\[x\](http://y)\`"] in [
        [cell.strip() for cell in line[2:-2].split(" | ", 1)] for line in card.splitlines() if "heading" in line
    ]


def test_a_deterministic_run_belongs_to_every_seed(tmp_path: Path) -> None:
    metrics = [_metrics(tmp_path), _metrics(tmp_path, seed=None)]
    cells = _cells(model_card("houses", MODEL, SIZES, FACTS, metrics))
    assert [line[3] for line in cells if line[0] == r"pixel\_correspondence"] == ["none (deterministic)", "3"]


def test_a_benchmark_that_is_not_in_the_catalogue_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"(?s)does not have.*0\.json.*found: depth_estimation"):
        model_card("houses", MODEL, SIZES, FACTS, [_metrics(tmp_path, benchmark="depth_estimation")])
