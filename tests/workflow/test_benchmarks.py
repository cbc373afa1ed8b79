"""All benchmarks on the tiny world, and on planes on which its models are evaluated without being trained on them."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from loco.evaluation import catalogue
from loco.storage import Features
from tests.unit.test_new_benchmark import ENTRY, MODULE, SCHEMA, SETTINGS, insert

PROBE = {"epochs": 2, "batch": 4, "train_fraction": 0.5, "block": 18}
BENCHMARKS = {
    "panoptic_segmentation": PROBE,
    "semantic_segmentation": PROBE,
    "place_recognition": {
        "queries": 6,
        "descriptors": [{"name": "mean"}, {"name": "class_token"}],
        "rerank": ["none", {"top": 3, "matching": "mutual", "score": "count"}],
        "ks": [1, 5],
    },
    "landmark_retrieval": {"landmarks": 20},
    "relative_pose": {"pairs_per_bin": 2, "matches": 50, "iterations": 50},
    "homography": {"thresholds": [1, 5], "corner_thresholds": [5]},
}
PLANES = ["i_ash", "v_ash"]


@pytest.fixture
def whole(world):
    """Return the world with all benchmarks."""
    tiny = {"labels": {"mapping": "config/labels/simulated.tsv"}}
    simulate = {"seed": 1, "rooms": 1, "image": {"height": 64, "width": 80}, "repetition": 0.3}
    planes = {
        "format": "hpatches",
        "raw": "results/raw/planes",
        "scenes": PLANES,
        "simulate": simulate,
        "check": {"decode": "all"},
        "frames": {"height": 48, "width": 64, "images": "all", "max_hole_fraction": 1.0},
        "patches": {"stride": 4, "overlap_tolerance": 0.05},
    }
    world.overlay(
        {
            "run": {"splits": ["tiny", "planes"], "benchmarks": list(catalogue.BENCHMARKS)},
            "datasets": {"tiny": tiny, "planes": planes},
            "splits": {"planes": {"trained_on": "tiny", "test": {"planes": PLANES}}},
            "benchmarks": BENCHMARKS,
        }
    )
    return world


@pytest.mark.long
def test_every_benchmark_ends_in_a_table(whole, finished):
    plan = whole.plan("all")
    assert not {"train", "location_consistency_dots", "table_pixel_correspondence"} & plan.keys()  # unchanged
    # Two experiments: four further benchmarks, and two segmentations of one scene.
    assert (plan["evaluate"], plan["evaluate_scene"], plan["merge_items"], plan["label"]) == (8, 4, 4, 1)
    whole.run("all")
    assert not whole.plan("all")

    for benchmark in catalogue.BENCHMARKS:
        table = pd.read_csv(whole.directory / f"results/tables/{benchmark}.csv")
        assert set(table["split"]) == {"planes" if benchmark == "homography" else "tiny"}
        assert set(table["experiment"]) == {"quick", "untrained"}
        assert table["value"].notna().any()
        assert table["published"].isna().all()
        shares = table.loc[table["unit"] == "%", "value"].dropna()
        assert shares.between(0, 1).all()
        assert (whole.directory / f"results/figures/{table['split'][0]}/{benchmark}/per_scene_spread.svg").is_file()
    for name in ("location_consistency", "pixel_correspondence"):
        assert whole.read(f"results/tables/{name}.csv") == finished.read(f"results/tables/{name}.csv")

    metrics = json.loads(whole.read("results/metrics/homography/planes/quick/tiny-seed0.json"))
    assert {"results/frames/planes/v_ash.h5", "results/features/quick/tiny-seed0/planes/v_ash.h5"} == {
        name for name in metrics["record"]["inputs"] if "v_ash" in name
    }
    places = pd.read_csv(whole.directory / "results/tables/place_recognition.csv").set_index("condition")["value"]
    assert places["mean"].notna().all()
    # A convolutional network has no class token, and its score is missing, not zero.
    assert places["class token"].isna().all()

    # Another mapping of the labels affects the segmentations only.
    mapping = whole.workflow / "config/labels/simulated.tsv"
    mapping.write_text(mapping.read_text() + "a thing that is nowhere\tobjects\n")
    plan = whole.plan("tables")
    assert (plan["label"], plan["evaluate_scene"], plan["merge_items"], plan["evaluate"]) == (1, 4, 4, 0)
    tables = {name for name in plan if name.startswith("table_")}
    assert tables == {"table_panoptic_segmentation", "table_semantic_segmentation"}


@pytest.fixture(scope="module")
def extended(finished, tmp_path_factory):
    """Return the world with one more benchmark, which takes four files."""
    world = finished.clone(tmp_path_factory.mktemp("extended"))
    (world.workflow / "loco/evaluation/feature_norm.py").write_text(MODULE.lstrip())
    insert(world.workflow / "loco/evaluation/catalogue.py", "\n)\n\nBENCHMARKS", ENTRY)
    insert(world.workflow / "config/schemas/benchmarks.yaml", "\nproperties:\n", SCHEMA)
    insert(world.workflow / "config/defaults.yaml", "\nbenchmarks:\n", SETTINGS)
    return world


def test_a_new_benchmark_reruns_nothing(extended):
    assert not extended.plan("all")


def test_a_new_benchmark_runs_alone(extended, tmp_path):
    world = extended.clone(tmp_path)
    world.overlay({"run": {"benchmarks": ["location_consistency", "feature_norm"]}})
    assert world.plan("tables") == {"evaluate": 2, "table_feature_norm": 1}
    figure = "results/figures/tiny/feature_norm/dots.svg"
    world.run("tables", figure)
    assert (world.directory / figure).stat().st_size > 1000
    table = pd.read_csv(world.directory / "results/tables/feature_norm.csv").set_index("experiment")["value"]
    with Features(world.directory / "results/features/untrained/seed0/tiny/cedar.h5") as features:
        assert table["untrained"] == pytest.approx(float(features["norm"][:].astype(float).mean()) ** 2, rel=1e-4)
