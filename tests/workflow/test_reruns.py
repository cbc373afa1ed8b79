"""What runs again after a change, and what does not."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.xdist_group("workflow")

TABLES = {"table_location_consistency": 1, "table_pixel_correspondence": 1}
CONSISTENCY = {"location_consistency_dots": 1, "location_consistency_per_scene_spread": 1}
CORRESPONDENCE = {
    f"pixel_correspondence_{name}": 1 for name in ("recall_against_angle", "error_curves", "per_scene_spread")
}
SCORE_FIGURES = CONSISTENCY | CORRESPONDENCE
ONE_EXPERIMENT = {"extract": 1, "evaluate": 2, **TABLES, **SCORE_FIGURES, "pictures": 1}
SCENE_STEPS = ("simulate", "check", "depth", "correspondence")


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_second_run_does_nothing(finished):
    assert "Nothing to be done" in finished.run("all")


def test_touching_files_reruns_nothing(world):
    for path in world.workflow.rglob("*"):
        os.utime(path)
    assert not world.plan()


def test_comments_and_docstrings_rerun_nothing(world):
    for folder in ("workflow_scripts", "loco"):
        for path in (world.workflow / folder).rglob("*.py"):
            path.write_text(f"{path.read_text()}\n# a comment\n")
    edit(world.workflow / "loco/training/run.py", '"""', '"""Another docstring. ')
    assert not world.plan()


def test_the_loss_reruns_training_and_below(world):
    with (world.workflow / "loco/losses/exact.py").open("a") as file:
        file.write("\nADDED = True\n")
    assert world.plan() == {"train": 1, "training_curve": 1, **ONE_EXPERIMENT}


def test_the_ray_caster_reruns_all_scenes(world):
    with (world.workflow / "loco/geometry/raycast.py").open("a") as file:
        file.write("\nADDED = True\n")
    plan = world.plan()
    assert (plan["depth"], plan["correspondence"], plan["train"]) == (3, 3, 1)


def test_a_changed_setting_reruns_what_it_decides(world):
    world.overlay({"benchmarks": {"location_consistency": {"queries_per_scene": 21}}})
    assert world.plan() == {"evaluate": 2, "table_location_consistency": 1, **CONSISTENCY}


def test_a_title_reruns_tables_and_figures_alone(world):
    world.overlay({"experiments": {"quick": {"title": "another title"}}})
    assert world.plan() == {**TABLES, **SCORE_FIGURES, "training_curve": 1, "pictures": 1}


def test_the_order_of_keys_reruns_nothing(world):
    config = yaml.safe_load(world.configs[0].read_text())
    world.configs = []
    world.overlay({key: dict(reversed(value.items())) for key, value in reversed(config.items())})
    assert not world.plan()


def test_a_new_split_runs_its_own_jobs(world):
    world.overlay(
        {
            "run": {"splits": ["tiny", "swapped"]},
            "splits": {"swapped": {"train": {"tiny": ["cedar"]}, "test": {"tiny": ["ash"]}}},
        }
    )
    assert world.plan() == {
        "train": 1,
        "extract": 2,
        "evaluate": 4,
        **TABLES,
        **SCORE_FIGURES,
        "training_curve": 1,
    }


def test_a_new_experiment_runs_its_own_jobs(world):
    world.overlay({"run": {"experiments": ["quick", "untrained", "dense_sift_fine"]}})
    plan = world.plan()
    assert plan.pop("training_curve") == 1  # it has the colours of all experiments
    assert plan == ONE_EXPERIMENT


def test_a_new_seed_runs_its_own_jobs(world):
    world.overlay({"run": {"seeds": [0, 1]}})
    plan = world.plan()
    assert (plan["train"], plan["extract"], plan["evaluate"]) == (1, 2, 4)


def test_a_removed_training_scene_is_noticed(world):
    world.overlay({"splits": {"tiny": {"val": {"tiny": []}}}})
    plan = world.plan()
    assert (plan["train"], plan["checks"]) == (1, 1)
    assert not plan.keys() & set(SCENE_STEPS)


def test_a_removed_raw_file_is_noticed(world):
    """Without `simulate`, as for a download: the check sees that a file has gone, and tells."""
    raw = world.directory / "download"
    shutil.copytree(world.directory / "results/raw/tiny", raw)
    world.overlay(real_data("download"))
    world.run("results/manifests/real/cedar.json")
    assert not world.plan("results/manifests/real/cedar.json")
    (raw / "cedar/undistorted_depth_images.zip").unlink()
    assert world.plan("results/manifests/real/cedar.json") == {"check": 1}


def test_newer_raw_files_behind_their_manifest_rerun_nothing(world):
    """Depth sees the raw files through the manifest, and that by content: time stamps alone do not count."""
    raw = world.directory / "download"
    shutil.copytree(world.directory / "results/raw/tiny", raw)
    world.overlay(real_data("download"))
    world.run("results/frames/real/cedar.h5")
    manifest = world.directory / "results/manifests/real/cedar.json"
    for path in [*raw.rglob("*.zip"), manifest]:  # as after a copy: newer, the manifest too
        os.utime(path)
    assert not world.plan("results/frames/real/cedar.h5")


def test_one_table_is_remade_alone(world):
    plan = world.plan("--forcerun", "table_location_consistency", "--", "results/tables/location_consistency.csv")
    assert plan == {"table_location_consistency": 1}


def test_a_table_refuses_metrics_of_other_settings(world):
    """Without Snakemake's records a changed setting goes unseen: the passports tell."""
    shutil.rmtree(world.directory / ".snakemake")
    world.overlay({"benchmarks": {"location_consistency": {"queries_per_scene": 21}}})
    table = "results/tables/location_consistency.csv"
    done = world.snakemake("--cores", "1", "--forcerun", "table_location_consistency", "--", table)
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert "results/metrics/location_consistency/tiny/quick/seed0.json: other settings" in said
    assert "--forcerun evaluate" in said
    assert not (world.directory / table).exists()


def real_data(raw: str) -> dict:
    """The dataset `real`: the tiny scenes as a download in ``raw``."""
    tiny = yaml.safe_load((Path(__file__).parent / "tiny.yaml").read_text())["datasets"]["tiny"]
    return {"datasets": {"real": {**{k: v for k, v in tiny.items() if k != "simulate"}, "raw": raw}}}
