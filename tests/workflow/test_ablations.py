"""An ablation through the real workflow: its variants are trained, evaluated, and shown side by side."""

from __future__ import annotations

import json

import pandas as pd
import pytest
import yaml

from tests.workflow.conftest import ROOT


def test_an_ablation_ends_in_tables_and_a_plot(world):
    variants = [{"name": "0.02"}, {"name": "0.2", "train": {"loss": {"tau": 0.2}}}]
    ablation = {"title": "tau", "experiment": "quick", "split": "tiny", "seeds": [0, 1], "variants": variants}
    world.overlay({"ablations": {"tau": ablation}})
    assert world.plan("all") == {}  # an ablation is not a part of `all`
    world.run("ablation_tau")
    folder = world.directory / "results/ablations/tau"
    table = pd.read_csv(folder / "location_consistency.csv", dtype={"title": str})
    assert table["title"].unique().tolist() == ["0.02", "0.2"]
    assert (table["seeds"] == 2).all()
    own = table[(table["title"] == "0.02") & (table["condition"] == "2 m, uniform")]["value"].item()
    other = table[(table["title"] == "0.2") & (table["condition"] == "2 m, uniform")]["value"].item()
    assert own != other
    assert "0.02" in (folder / "pixel_correspondence.md").read_text()
    assert (folder / "plot.svg").stat().st_size > 5000
    assert world.plan("ablation_tau") == {}
    third = {"name": "0.1", "train": {"loss": {"tau": 0.1}}}
    world.overlay({"ablations": {"tau": {**ablation, "variants": [*variants, third]}}})
    assert world.plan("ablation_tau")["train"] == 2  # only what is new


@pytest.mark.long
def test_what_is_trained_on_may_vary(world):
    swapped = {"train": {"tiny": ["birch"]}, "test": {"tiny": ["cedar"]}}
    variants = [{"name": "birch", "split": "swapped"}, {"name": "ash"}]
    ablation = {"title": "trained on", "experiment": "quick", "split": "tiny", "seeds": [0], "variants": variants}
    world.overlay({"splits": {"swapped": swapped}, "ablations": {"scene": ablation}})
    assert world.plan("ablation_scene")["train"] == 1  # the other one belongs to the run
    world.run("ablation_scene")
    folder = world.directory / "results/ablations/scene"
    table = pd.read_csv(folder / "location_consistency.csv")
    assert table.groupby("title")["split"].unique().map(list).to_dict() == {"ash": ["tiny"], "birch": ["tiny"]}
    assert table["title"].drop_duplicates().tolist() == ["birch", "ash"]
    scores = table[table["condition"] == "2 m, uniform"].set_index("title")["value"]
    metrics = json.loads(world.read("results/metrics/location_consistency/tiny/quick/swapped-seed0.json"))
    assert scores["birch"] == pytest.approx(metrics["content"]["rows"][0]["value"], abs=1e-6)
    assert scores["birch"] != scores["ash"]


@pytest.mark.long
def test_trained_models_are_peers_and_starts_of_others(world):
    """Trained models are made first; after a change of their training, all files that depend on them are made again."""
    trained = "results/train/tiny/quick/seed0"
    quick = yaml.safe_load((ROOT / "tests/workflow/tiny.yaml").read_text())["experiments"]["quick"]
    experiments = {
        "again": {"title": "again", "model": {"name": "pretrained", "path": trained, "stride": 4}},
        "tuned": {**quick, "title": "tuned", "train": {**quick["train"], "init": trained, "steps": 2}},
    }
    world.overlay({"experiments": experiments, "run": {"experiments": ["quick", "again", "tuned"]}})
    plan = world.plan("tables")
    assert (plan["train"], plan["extract"], plan["evaluate"]) == (1, 2, 4)
    world.run("tables")
    assert world.plan("tables") == {}
    table = pd.read_csv(world.directory / "results/tables/location_consistency.csv").set_index(["condition", "title"])
    score = table["value"]["2 m, uniform"]
    assert score["again"] == score["compact CNN, three steps"] != score["tuned"]
    world.overlay({"experiments": {"quick": {"train": {"loss": {"tau": 0.05}}}}})
    plan = world.plan("tables")
    assert (plan["train"], plan["extract"], plan["evaluate"]) == (2, 3, 6)
