"""The configurations that come with the project, as a user runs them, on small raw data at the paths that they name.

Each runs to the end with its own datasets, splits, frames, labels and figures, and with the experiments and benchmarks
that it names. Only sizes that would take minutes are reduced (``SMALL``): steps of the training, items and resamples of
the benchmarks. Files that run the experiments of the demo, with three seeds, run one of them with one seed
(``ONE_TRAINING``): they are about raw data, splits and labels.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from loco.simulate import simulate_scene
from loco.simulate.photographs import photograph, room, sideways
from loco.storage import Frames
from tests.workflow.conftest import ROOT, World

FEW_STEPS = {"steps": 2, "optimiser": {"warmup_steps": 0}, "validate_every": 2, "save_every": 2}
SMALL = {
    "experiments": {"exact": {"train": FEW_STEPS}},
    "benchmarks": {
        "location_consistency": {"queries_per_scene": 20, "samples_per_query": 50},
        "pixel_correspondence": {"pairs_per_bin": 2, "matches": 50},
    },
}
ONE_TRAINING = {"run": {"seeds": [0], "experiments": ["exact"]}}
HOUSE = {"seed": 1, "rooms": 1, "repetition": 0.3}


def shipped(name: str, root: Path) -> World:
    """Return a world that runs ``config/<name>.yaml``; raw data belong into its folder ``run/data``."""
    world = World.new(root)
    world.configs = [ROOT / f"config/{name}.yaml"]
    world.overlay(SMALL)
    return world


def run_to_the_end(world: World, split: str, test_scene: str, *targets: str) -> pd.DataFrame:
    """Run everything twice, the second time without effect; return the table of location consistency."""
    world.run("all", *targets)
    assert not world.plan("all", *targets)
    figures = world.directory / "results/figures" / split
    assert all((figures / f"{picture}.png").stat().st_size > 10_000 for picture in ("similarity_maps", "pca_colours"))
    table = pd.read_csv(world.directory / "results/tables/location_consistency.csv")
    assert set(table["split"]) == {split}
    assert table["value"].between(0, 1).all()
    checks = pd.read_csv(world.directory / "results/tables/checks.csv")
    assert test_scene in set(checks["scene"])
    return table


@pytest.mark.long
def test_photographs(tmp_path):
    world = shipped("photographs", tmp_path)
    for scene in ("first", "second"):
        renderer = room(scene)
        photograph(renderer, sideways(renderer, 12), (256, 384), world.directory / f"data/photographs/{scene}")
    table = run_to_the_end(world, "photographs", "second")
    assert set(table["experiment"]) == {"exact", "untrained", "dense_sift_fine"}
    with Frames(world.directory / "results/frames/photographs/second.h5") as frames:
        assert frames.sparse
        assert frames.size == (128, 192)
        assert len(frames) >= 10


@pytest.mark.long
def test_recordings(tmp_path):
    world = shipped("recordings", tmp_path)
    settings = {**HOUSE, "images": 16, "image": {"height": 96, "width": 144}}
    for scene in ("first", "second"):
        simulate_scene("posed_rgbd", world.directory / f"data/recordings/{scene}", scene, settings)
    table = run_to_the_end(world, "recordings", "second")
    assert set(table["experiment"]) == {"exact", "untrained", "dense_sift_fine"}
    assert (world.directory / "results/tables/pixel_correspondence.csv").is_file()
    with Frames(world.directory / "results/frames/recordings/second.h5") as frames:
        assert (frames["source"][:] == Frames.SOURCES.index("mesh")).any()  # the fused mesh


@pytest.mark.long
def test_matterport3d(tmp_path):
    world = shipped("matterport3d", tmp_path)
    world.overlay(ONE_TRAINING)
    parts = {"train": "17DRP5sb8fy", "val": "2azQ1b91cZZ", "test": "rqfALeAoiTq"}  # one scene of each published list
    lists = world.directory / "config/splits/matterport3d"
    lists.mkdir(parents=True)
    for part, scene in parts.items():
        assert scene in (ROOT / f"config/splits/matterport3d/{part}.txt").read_text().split()
        (lists / f"{part}.txt").write_text(f"{scene}\n")
        settings = {**HOUSE, "panoramas": 2, "image": {"height": 64, "width": 80}}
        simulate_scene("matterport3d", world.directory / f"data/matterport3d/v1/scans/{scene}", scene, settings)
    (lists / "all.txt").write_text("\n".join(parts.values()))
    shutil.copy(ROOT / "config/labels/simulated.tsv", world.directory / "data/matterport3d/category_mapping.tsv")
    table = run_to_the_end(world, "matterport3d", "rqfALeAoiTq", "labels")
    assert set(table["experiment"]) == {"exact"}
    assert (world.directory / "results/labels/matterport3d/rqfALeAoiTq.h5").is_file()


@pytest.mark.long
def test_scannet(tmp_path):
    world = shipped("scannet", tmp_path)
    world.overlay(ONE_TRAINING)
    settings = {**HOUSE, "images": 160, "image": {"height": 96, "width": 120}}
    for scene in ("scene0000_00", "scene0001_00", "scene0002_00"):
        simulate_scene("scannet", world.directory / f"data/scannet/scans/{scene}", scene, settings)
    shutil.copy(ROOT / "config/labels/simulated.tsv", world.directory / "data/scannet/scannetv2-labels.combined.tsv")
    table = run_to_the_end(world, "scannet", "scene0002_00", "labels")
    assert set(table["experiment"]) == {"exact"}
    with Frames(world.directory / "results/frames/scannet/scene0002_00.h5") as frames:
        assert 3 <= len(frames) <= 16  # every tenth
