"""Configurations of users through Snakemake: what `loco init` writes for each kind of data, and what jobs read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import pytest
import yaml

from loco.cli import main
from loco.datasets.recognise import EXAMPLES
from loco.simulate import simulate_scene
from tests.unit.test_starter import HOUSE, write_photographs
from tests.workflow.conftest import TINY, World


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Return a world before its first run."""
    return World.new(tmp_path_factory.mktemp("empty"))


@pytest.mark.parametrize("kind", EXAMPLES)
def test_a_starter_configuration_is_planned(kind: str, empty: World, tmp_path: Path) -> None:
    scenes = ("scene0000_00", "scene0001_00")
    for scene in scenes:
        if kind == "photographs":
            write_photographs(tmp_path / "data" / scene)
        else:
            count = {"panoramas": 1} if kind == "matterport3d" else {"images": 4}
            simulate_scene(kind, tmp_path / "data" / scene, scene, HOUSE | count)
    assert main(["init", str(tmp_path / "data"), "--out", str(tmp_path / "my.yaml")]) == 0
    world = empty.view(tmp_path)
    world.configs = [tmp_path / "my.yaml"]
    plan = world.plan("all")
    assert plan["check_scene"] == plan["frames"] == 2
    assert (plan["train"], plan["extract"]) == (1, 3)
    assert plan["reconstruct"] == (2 if kind == "photographs" else 0)


def test_jobs_read_the_configuration_of_their_snakemake(empty: World, tmp_path: Path) -> None:
    """Files that extend others, and values of the command line, reach the processes of the jobs."""
    world = empty.clone(tmp_path / "world")
    tiny: dict[str, Any] = yaml.safe_load(TINY.read_text())
    base = {key: tiny[key] for key in ("datasets", "splits")}
    (world.directory / "base.yaml").write_text(yaml.safe_dump(base))
    training = tiny["experiments"]["quick"]["train"]
    frames = {"tiny": {"frames": {"height": 32}}}
    mine = {
        "extends": "base.yaml",
        "run": {"splits": ["tiny"], "experiments": ["exact"]},
        "datasets": frames,
        "experiments": {"exact": {"model": {"name": "compact_cnn", "dim": 16}, "train": training}},
    }
    (world.directory / "my.yaml").write_text(yaml.safe_dump(mine))
    world.configs = [world.directory / "my.yaml"]
    options = ("--config", "datasets={tiny: {frames: {width: 48, every: 2}}}", "run={seeds: [1]}")
    target = "results/frames/tiny/cedar.h5"
    assert world.plan("results/train/tiny/exact/seed1/model.safetensors", *options)["train"] == 1
    world.run(target, *options)
    assert not world.plan(target, *options)
    assert world.plan(target)["frames"] == 1  # of another width

    with h5py.File(world.directory / target) as file:
        assert file["rgb"].shape[1:3] == (32, 48)
