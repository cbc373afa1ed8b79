"""Scores by what training images show, on the tiny world, whose scenes are declared to share a world frame."""

from __future__ import annotations

import json

import pandas as pd
import pytest


@pytest.mark.long
def test_scores_are_split_by_what_the_training_has_seen(world):
    tables = [f"results/tables/{name}.csv" for name in ("location_consistency", "pixel_correspondence")]
    before = [pd.read_csv(world.directory / table) for table in tables]
    report = {"seen_by_training": "report", "seen_within": 0.1, "unseen_beyond": 0.1}
    benchmarks = dict.fromkeys(("location_consistency", "pixel_correspondence"), report)
    world.overlay({"datasets": {"tiny": {"world_frame": "hall"}}, "benchmarks": benchmarks})
    plan = world.plan(*tables)
    assert plan["evaluate"] == 4
    assert not {"correspondence", "train", "extract"} & plan.keys()
    world.run(*tables)
    assert not world.plan(*tables)

    record = json.loads(world.read("results/metrics/location_consistency/tiny/quick/tiny-seed0.json"))["record"]
    assert "results/correspondences/tiny/stride4/ash.h5" in record["inputs"]
    location, pixels = (pd.read_csv(world.directory / table) for table in tables)
    conditions = set(before[0]["condition"])
    assert set(location["condition"]) == conditions | {f"{c}, {s}" for c in conditions for s in ("seen", "unseen")}
    assert location["value"].notna().all()
    metrics = set(before[1]["metric"])
    assert set(pixels["metric"]) == metrics | {f"{m}, {s} surfaces" for m in metrics for s in ("seen", "unseen")}
    for old, new in zip(before, (location, pixels)):  # the scores of all surfaces are unchanged
        keys = ["experiment", "metric", "condition"]
        values = new.set_index(keys)["value"]
        pd.testing.assert_series_equal(values.loc[old.set_index(keys).index], old.set_index(keys)["value"])
