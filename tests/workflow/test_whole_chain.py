"""One command makes everything, and a second run makes the same."""

from __future__ import annotations

import json
import shutil

from loco.storage.content_id import read_content_id

TABLES = ("location_consistency", "pixel_correspondence")
KINDS = ("csv", "md", "tex", "html")


def test_all_results_are_there(finished):
    results = finished.directory / "results"
    tables = {f"{name}.{kind}" for name in TABLES for kind in KINDS} | {"checks.csv", "checks.md", "checks.html"}
    assert {path.name for path in (results / "tables").iterdir()} == tables
    figures = {"training_curve", "similarity_maps", "pca_colours"}
    figures |= {f"location_consistency/{name}" for name in ("dots", "per_scene_spread")}
    figures |= {f"pixel_correspondence/{name}" for name in ("recall_against_angle", "error_curves", "per_scene_spread")}
    names = {f"{name}.{kind}" for name in figures for kind in ("svg", "png")} | {"explorer.html"}
    folder = results / "figures/tiny"
    assert {str(path.relative_to(folder)) for path in folder.rglob("*.*")} == names


def test_every_step_leaves_a_log_that_ends_well(finished):
    logs = sorted((finished.directory / "results/logs").rglob("*.log"))
    steps = {path.relative_to(finished.directory / "results/logs").parts[0] for path in logs}
    scene_steps = {"simulate", "check_scene", "frames", "correspondence"}
    assert scene_steps | {"check_table.log", "check_all.log", "train", "extract", "evaluate", "table"} <= steps
    assert {path.name: path.read_text().splitlines()[-1].split()[-1] for path in logs if path.stat().st_size} == {
        path.name: "finished" for path in logs
    }


def test_metric_files_state_how_they_were_made(finished):
    trained, untrained = (
        json.loads(finished.read(f"results/metrics/pixel_correspondence/tiny/{name}.json"))["record"]
        for name in ("quick/tiny-seed0", "untrained/seed0")
    )
    frames = "results/frames/tiny/cedar.h5"
    assert set(trained["inputs"]) == {
        frames,
        "results/correspondences/tiny/stride4/cedar.h5",
        "results/features/quick/tiny-seed0/tiny/cedar.h5",
    }
    assert trained["inputs"][frames] == untrained["inputs"][frames] == read_content_id(finished.directory / frames)
    extractions = [record["recipe"]["inputs"]["extract/tiny"]["inputs"] for record in (trained, untrained)]
    assert [set(inputs) for inputs in extractions] == [{"frames", "model"}, {"frames"}]
    assert extractions[0]["model"]["settings"]["train"]["steps"] == 3


def test_two_runs_give_identical_tables(world, finished):
    shutil.rmtree(world.directory / "results")
    shutil.rmtree(world.directory / ".snakemake")
    world.run("tables", cores=2)  # the same number of threads as in the other run, because rounding depends on it
    for name in TABLES:
        for kind in KINDS:
            table = f"results/tables/{name}.{kind}"
            assert world.read(table) == finished.read(table)


def test_a_form_of_a_table_that_was_deleted_is_made_again(world):
    path = "results/tables/location_consistency.md"
    content = world.read(path)
    (world.directory / path).unlink()
    said = world.run("all")
    assert "rule table_location_consistency:" in said
    assert "Tables: results/tables/" in said
    assert world.read(path) == content


def test_report_is_built(world):
    world.run("--report", "report.html")
    report = world.read("report.html")
    for words in (
        "location_consistency.html",
        "similarity_maps.png",
        "training_curve.svg",
        "checks.html",
        "explorer.html",
    ):
        assert words in report


def test_lint_is_clean(finished):
    done = finished.snakemake("--lint")
    assert done.returncode == 0, done.stdout + done.stderr
