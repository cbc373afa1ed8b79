"""An extractor without feature maps, beside one that has them."""

from __future__ import annotations

import pandas as pd
import pytest


@pytest.mark.long
def test_keypoints_have_a_row_in_the_table_of_relative_pose_alone(world):
    keypoints = {"title": "SIFT keypoints", "model": {"name": "sift_keypoints"}}
    benchmarks = ["location_consistency", "relative_pose"]
    world.overlay(
        {
            "run": {"experiments": ["untrained", "keypoints"], "benchmarks": benchmarks},
            "experiments": {"keypoints": keypoints},
            "benchmarks": {"relative_pose": {"pairs_per_bin": 2, "matches": 50, "iterations": 50}},
        }
    )
    tables = [f"results/tables/{name}.csv" for name in benchmarks]
    plan = world.plan(*tables)
    assert plan["evaluate"] == 2
    assert "extract" not in plan
    world.run(*tables)
    assert not world.plan(*tables)
    location, poses = (pd.read_csv(world.directory / table) for table in tables)
    assert set(location["experiment"]) == {"untrained"}
    assert set(poses["experiment"]) == {"untrained", "keypoints"}
    world.run("tables", "figures")
