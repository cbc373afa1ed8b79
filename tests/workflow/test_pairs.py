"""Training runs that draw batches from positive pairs: the index of the pairs is made once, and only for them."""

from __future__ import annotations

import yaml

from loco.storage import PairIndex
from tests.workflow.conftest import TINY

MODEL = "results/train/tiny/paired/seed0/model.safetensors"
INDEX = "results/pairs/tiny/stride4/radius0.2/ash.h5"


def experiment(lr=1e-3, radius=0.2):
    quick = yaml.safe_load(TINY.read_text())["experiments"]["quick"]
    batch = {"radius": radius, "images": 4, "scenes_by": "equal", "patches_per_image": 64}
    train = {**quick["train"], "batch": batch, "optimiser": {**quick["train"]["optimiser"], "lr": lr}}
    return {"experiments": {"paired": {**quick, "title": "batches of positive pairs", "train": train}}}


def test_pairs_are_indexed_once_and_again_for_another_radius(world):
    assert not (world.directory / "results/pairs").exists()  # the tiny run draws batches by overlap
    world.overlay(experiment())
    assert world.plan(MODEL) == {"pairs": 1, "train": 1}  # of the training scene only
    world.run(MODEL)
    with PairIndex(world.directory / INDEX) as index:
        assert index.record.recipe.step == "pairs"
        assert index.bounds[-1] > 0
    assert "Nothing to be done" in world.run(MODEL)
    world.overlay(experiment(lr=2e-3))
    assert world.plan(MODEL) == {"train": 1}
    world.overlay(experiment(radius=0.1))
    assert world.plan(MODEL) == {"pairs": 1, "train": 1}
    with (world.workflow / "loco/geometry/near_pairs.py").open("a") as file:
        file.write("\nADDED = True\n")
    world.overlay(experiment())
    assert world.plan(MODEL) == {"pairs": 1, "train": 1}
