"""What runs again after a change, and what does not."""

from __future__ import annotations

import os
import shutil

import pytest
import yaml

from tests.workflow.conftest import download, edit

TABLES = {"table_location_consistency": 1, "table_pixel_correspondence": 1}
CONSISTENCY = {"location_consistency_dots": 1, "location_consistency_per_scene_spread": 1}
CORRESPONDENCE = {
    f"pixel_correspondence_{name}": 1 for name in ("recall_against_angle", "error_curves", "per_scene_spread")
}
SCORE_FIGURES = CONSISTENCY | CORRESPONDENCE
ONE_EXPERIMENT = {"extract": 1, "evaluate": 2, **TABLES, **SCORE_FIGURES, "pictures": 1, "explorer": 1}
SCENE_STEPS = ("simulate", "check_scene", "frames", "correspondence")


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
    assert (plan["frames"], plan["correspondence"], plan["train"]) == (3, 3, 1)


# A change of the code that changes no result -> the file, and how it is changed.
HARMLESS = {
    "a version": ("loco/__init__.py", '__version__ = "', '__version__ = "9.'),
    "a message": ("loco/steps/frames.py", "no frame of the", "no image of the"),
    "a message of a log": ("loco/logs.py", 'logger.info("started with', 'logger.info("begun with'),
    "a type": ("loco/geometry/inpaint.py", "-> NDArray[np.float32]", "-> NDArray[np.floating]"),
    "a type of a setting": ("loco/steps/evaluate.py", "subject: Mapping[str, str]", "subject: dict[str, str]"),
}


@pytest.mark.parametrize("change", HARMLESS)
def test_harmless_changes_rerun_nothing(world, change):
    file, old, new = HARMLESS[change]
    edit(world.workflow / file, old, new)
    assert not world.plan()


def test_a_new_dataset_format_reruns_nothing(world):
    package = world.workflow / "loco/datasets"
    (package / "video.py").write_text((package / "tum_rgbd.py").read_text().replace("TumRgbdScene", "VideoScene"))
    with (package / "layouts.py").open("a") as file:
        file.write("\n\ndef video(folder, scene):\n    return fixed(('film.mp4', 'poses.txt'))(folder, scene)\n")
    entry = '    "tum_rgbd": Format('
    edit(package / "catalogue.py", entry, f'    "video": Format("video", "VideoScene", layouts.video),\n{entry}')
    assert not world.plan()


def test_the_layout_of_another_format_reruns_nothing(world):
    """The files of a scene are determined when the run is planned; their contents are recorded in the manifest."""
    with (world.workflow / "loco/datasets/tum_rgbd.py").open("a") as file:
        file.write("\nADDED = True\n")
    assert not world.plan()


@pytest.mark.parametrize("patches", [{"overlap_tolerance": 0.06}, {"stride": 8}])
def test_patches_concern_no_step_before_the_correspondences(view, patches):
    view.overlay({"datasets": {"tiny": {"patches": patches}}})
    plan = view.plan()
    assert plan["correspondence"] >= 1
    assert plan["evaluate"] == 4
    assert not plan.keys() & {"simulate", "check_scene", "frames"}
    assert plan["train"] == (1 if "overlap_tolerance" in patches else 0)  # training uses the stride of the model


def test_a_changed_setting_reruns_what_it_decides(view):
    view.overlay({"benchmarks": {"location_consistency": {"queries_per_scene": 21}}})
    assert view.plan() == {"evaluate": 2, "table_location_consistency": 1, **CONSISTENCY}


def test_a_title_reruns_tables_and_figures_alone(view):
    view.overlay({"experiments": {"quick": {"title": "another title"}}})
    assert view.plan() == {**TABLES, **SCORE_FIGURES, "training_curve": 1, "pictures": 1, "explorer": 1}


def test_the_order_of_keys_reruns_nothing(world):
    config = yaml.safe_load(world.configs[0].read_text())
    base = {"extends": config.pop("extends")}
    world.configs = []
    world.overlay({key: dict(reversed(value.items())) for key, value in reversed(config.items())} | base)
    assert not world.plan()


def test_a_new_split_runs_its_own_jobs(view):
    view.overlay(
        {
            "run": {"splits": ["tiny", "swapped"]},
            "splits": {"swapped": {"train": {"tiny": ["cedar"]}, "test": {"tiny": ["ash"]}}},
        }
    )
    assert view.plan() == {
        "train": 1,
        "extract": 2,
        "evaluate": 4,
        **TABLES,
        **SCORE_FIGURES,
        "training_curve": 1,
    }


def test_a_new_experiment_runs_its_own_jobs(view):
    view.overlay({"run": {"experiments": ["quick", "untrained", "dense_sift_fine"]}})
    plan = view.plan()
    assert plan.pop("training_curve") == 1  # the plot shows all experiments, in common colours
    assert plan == ONE_EXPERIMENT


SIFT = {"run": {"experiments": ["dense_sift_fine"]}}


@pytest.fixture(scope="module")
def sift(finished, tmp_path_factory):
    """Return a world with the tables of a deterministic extractor."""
    world = finished.clone(tmp_path_factory.mktemp("sift"))
    world.overlay(SIFT)
    world.run("tables")
    return world


def test_a_second_seed_of_a_deterministic_extractor_is_nothing_new(sift, tmp_path):
    view = sift.view(tmp_path)
    view.overlay({"run": {"seeds": [0, 1, 7]}})
    assert not view.plan("tables")


def test_a_second_split_with_the_same_test_scenes_is_scored_already(sift, tmp_path):
    view = sift.view(tmp_path)
    view.overlay(
        {
            "run": {"splits": ["tiny", "other"]},
            "splits": {"other": {"train": {"tiny": ["birch"]}, "test": {"tiny": ["cedar"]}}},
        }
    )
    assert view.plan("tables") == TABLES


def test_a_deterministic_extractor_is_run_once_whatever_the_splits_and_seeds(view):
    view.overlay(SIFT)
    view.overlay(
        {
            "run": {"splits": ["tiny", "other"], "seeds": [0, 1, 2]},
            "splits": {"other": {"train": {"tiny": ["ash"]}, "test": {"tiny": ["birch", "cedar"]}}},
        }
    )
    plan = view.plan("tables")
    assert (plan["extract"], plan["evaluate"]) == (2, 4)  # scenes; benchmarks on two choices of test scenes
    view.overlay({"splits": {"other": {"test": {"tiny": ["cedar"]}}}})
    plan = view.plan("tables")
    assert (plan["extract"], plan["evaluate"]) == (1, 2)


def test_a_new_seed_runs_its_own_jobs(view):
    view.overlay({"run": {"seeds": [0, 1]}})
    plan = view.plan()
    assert (plan["train"], plan["extract"], plan["evaluate"]) == (1, 2, 4)


def test_a_removed_training_scene_is_noticed(view):
    view.overlay({"splits": {"tiny": {"val": {"tiny": []}}}})
    plan = view.plan()
    assert (plan["train"], plan["check_all"]) == (1, 1)
    assert not plan.keys() & set(SCENE_STEPS)


def test_a_removed_raw_file_is_noticed(world):
    """Without `simulate`, as for a download: the check detects and reports that a file is missing."""
    raw = world.directory / "download"
    shutil.copytree(world.directory / "results/raw/tiny", raw)
    world.overlay(download("download"))
    world.run("results/manifests/real/cedar.json")
    assert not world.plan("results/manifests/real/cedar.json")
    (raw / "cedar/undistorted_depth_images.zip").unlink()
    assert world.plan("results/manifests/real/cedar.json") == {"check_scene": 1}


def test_newer_raw_files_with_the_same_content_rerun_their_check_alone(world):
    """As after a copy. Frames depend on the manifest by content: time stamps alone do not count."""
    raw, manifest, frames = (
        world.directory / "download",
        "results/manifests/real/cedar.json",
        "results/frames/real/cedar.h5",
    )
    shutil.copytree(world.directory / "results/raw/tiny", raw)
    world.overlay(download("download"))
    world.run(frames)
    for path in raw.rglob("*.zip"):
        os.utime(path)
    assert world.plan(manifest) == {"check_scene": 1}
    world.run(manifest)
    assert not world.plan(frames)


def test_one_table_is_remade_alone(view):
    plan = view.plan("--forcerun", "table_location_consistency", "--", "results/tables/location_consistency.csv")
    assert plan == {"table_location_consistency": 1}


def test_a_table_refuses_metrics_of_other_settings(world):
    """Without Snakemake's records a changed setting is not detected by Snakemake, but by the provenance records."""
    shutil.rmtree(world.directory / ".snakemake")
    world.overlay({"benchmarks": {"location_consistency": {"queries_per_scene": 21}}})
    table = "results/tables/location_consistency.csv"
    done = world.snakemake("--cores", "1", "--forcerun", "table_location_consistency", "--", table)
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert "results/metrics/location_consistency/tiny/quick/tiny-seed0.json" in said
    assert "--forcerun evaluate" in said
    assert not (world.directory / table).exists()
