"""config/published.yaml as it is shipped, on small simulated scenes: from raw files to tables.

Paths are overridden (simulated scenes instead of the download, a small random network instead of the one on the hub),
and sizes that would take hours: two steps of four images, a narrow residual network, few landmarks and image pairs.
Of the experiments, one per training loss and the frozen backbone are run; the others differ from them in numbers alone,
which tests/unit/test_published_config.py checks. Everything else is as shipped: images, grid, losses, optimiser,
benchmarks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import pandas as pd
import pytest
import torch
import yaml
from transformers import ViTConfig, ViTModel

from loco.models import load
from tests.workflow.conftest import ROOT, World

pytestmark = pytest.mark.long
TRAINED = ("loco_released", "locus_fine")
LANDMARKS = 8
SMALL = {"steps": 2, "validate_every": 1, "save_every": 2}
NARROW = {"widths": [4, 4, 4, 4, 4]}
SCENES = ["ash", "birch", "cedar"]


def paths(folder: Path) -> dict[str, Any]:
    """Set the data paths: simulated scenes instead of the download, a random network instead of the backbone."""
    simulated = {"seed": 1, "rooms": 1, "panoramas": 2, "image": {"height": 96, "width": 120}, "repetition": 0.3}
    dataset = {
        "raw": "results/raw/matterport3d",
        "scenes": SCENES,
        "simulate": simulated,
        "labels": {"mapping": "config/labels/simulated.tsv"},
    }
    parts = {part: {"matterport3d": [scene]} for part, scene in zip(("train", "val", "test"), SCENES)}
    experiments = {name: {"model": {"backbone": {"path": str(folder)}}} for name in (*TRAINED, "dino")}
    return {
        "run": {"seeds": [0], "experiments": [*TRAINED, "dino"]},
        "datasets": {"matterport3d": dataset},
        "splits": {"matterport3d": parts},
        "experiments": experiments,
        "figures": {"scene": "cedar"},
    }


def sizes() -> dict[str, Any]:
    experiments: dict[str, Any] = {}
    for name in TRAINED:
        locus = name.startswith("locus")
        batch = {"images_per_scene": 4} if locus else {"images": 4}
        experiments[name] = {"train": SMALL | {"batch": batch}}
        if locus:
            experiments[name]["train"]["loss"] = {"landmarks": LANDMARKS}
        else:
            experiments[name]["model"] = {"head": NARROW}
    return {"experiments": experiments, "benchmarks": {"pixel_correspondence": {"pairs_per_bin": 1}}}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Return the tables of config/published.yaml."""
    world = World.new(tmp_path_factory.mktemp("published"))
    config = ViTConfig(
        hidden_size=8, num_hidden_layers=12, num_attention_heads=1, intermediate_size=8, image_size=224, patch_size=8
    )
    backbone = world.directory / "backbone"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        ViTModel(config).save_pretrained(backbone)
    world.configs = [ROOT / "config/matterport3d.yaml", ROOT / "config/published.yaml"]
    world.overlay(paths(backbone))
    world.overlay(sizes())
    world.run("tables")
    return world


def test_images_have_256_x_320_pixels_and_patches_8(world: World) -> None:
    with h5py.File(world.directory / "results/frames/matterport3d/ash.h5") as file:
        assert file["rgb"].shape[1:] == (256, 320, 3)
    with h5py.File(world.directory / "results/correspondences/matterport3d/stride8/ash.h5") as file:
        assert file["points"].shape[1:] == (32, 40, 3)


def test_models_are_trained_with_the_published_losses(world: World) -> None:
    published = yaml.safe_load((ROOT / "config/published.yaml").read_text())["experiments"]
    for name in TRAINED:
        model = load(world.directory / f"results/train/matterport3d/{name}/seed0/model.safetensors")
        few = {"landmarks": LANDMARKS} if name.startswith("locus") else {}
        (phase,) = model.facts["phases"]
        assert phase["loss"] == published[name]["train"]["loss"] | few
        log = pd.read_csv(world.directory / f"results/train/matterport3d/{name}/seed0/log.csv")
        assert log["loss"].between(0, 1, inclusive="neither").all()


@pytest.mark.parametrize(
    ("benchmark", "metrics"),
    [
        ("location_consistency", {"mAP"}),
        ("pixel_correspondence", {f"recall@{pixels}px" for pixels in (1, 5, 10, 20, 40)}),
        ("panoptic_segmentation", {"mAP of patch centres", "mAP", "mIoU", "Jaccard"}),
        ("place_recognition", {"recall@1", "recall@5", "accuracy@1"}),
        ("landmark_retrieval", {"AP of views", "AP of images"}),
    ],
)
def test_every_experiment_has_the_scores_of_the_papers(world: World, benchmark: str, metrics: set[str]) -> None:
    table = pd.read_csv(world.directory / f"results/tables/{benchmark}.csv")
    assert set(table["experiment"]) == {*TRAINED, "dino"}
    assert metrics <= set(table["metric"])
    assert table.loc[table["metric"].isin(metrics), "value"].notna().any()
    if benchmark == "place_recognition":
        both = "VLAD 128, mutual + rapid spatial, both directions"
        assert set(table["condition"]) == {"VLAD 128", both}
