"""A head on a frozen backbone through the real workflow, on stored features and without."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import ViTConfig, ViTModel

import loco
from loco.storage import Correspondences, Encoded

pytestmark = pytest.mark.xdist_group("workflow")


@pytest.fixture(scope="module")
def world(finished, tmp_path_factory):
    """Two trainings that differ in whether the backbone's features are stored, and an extractor without training."""
    world = finished.clone(tmp_path_factory.mktemp("backbone"))
    torch.manual_seed(0)
    config = ViTConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, patch_size=10)
    ViTModel(config, add_pooling_layer=False).save_pretrained(world.directory / "vit")
    backbone = {"name": "transformers", "path": str(world.directory / "vit")}
    model = {"name": "backbone", "backbone": backbone, "stride": 10, "head": {"name": "residual_mlp", "hidden": 32}}
    train = {
        "loss": {"name": "exact", "rho": [0.2, 0.6], "kappa": [2.0, 5.0], "tau": 0.05},
        "steps": 4,
        "batch": {"radius": 0.3, "images": 4, "scenes_by": "size", "patches_per_image": 20, "patches_by": "space"},
        "optimiser": {"lr": 1e-2, "weight_decay": 0.0, "warmup_steps": 1, "clip": 1.0},
        "validate_every": 2,
        "save_every": 2,
        "keep": "best",
    }
    experiments = {
        "stored": {"title": "stored", "model": model, "train": {**train, "cache": True}},
        "computed": {"title": "computed", "model": model, "train": train},
        "frozen": {"title": "frozen", "model": {key: model[key] for key in ("name", "backbone", "stride")}},
    }
    world.overlay({"experiments": experiments, "run": {"experiments": list(experiments)}})
    world.run("results/tables/location_consistency.csv", "results/tables/pixel_correspondence.csv")
    return world


def test_stored_features_give_the_same_training(world):
    stored, computed = (
        pd.read_csv(world.directory / f"results/train/tiny/{name}/seed0/log.csv") for name in ("stored", "computed")
    )
    np.testing.assert_allclose(stored["loss"], computed["loss"], atol=5e-3)  # they are stored in half precision
    np.testing.assert_allclose(stored["mean_ap"], computed["mean_ap"], atol=5e-3)


def test_features_are_stored_once_for_the_scenes_to_train_on(world):
    (path,) = (world.directory / "results/encoded").glob("*/*/*.h5")
    assert path.name == "ash.h5"
    with Encoded(path) as file:
        assert file["encoded"].shape[1:] == (16, 5, 7)  # of 48 x 64 pixels
        assert file.facts["encoder"]["name"] == "backbone"


def test_the_model_is_trained_at_the_patches_of_its_own_stride(world):
    with Correspondences(world.directory / "results/correspondences/tiny/stride10/ash.h5") as found:
        assert found.grid == (5, 7)
        assert found.extent == (50, 70)
    assert not (world.directory / "results/correspondences/tiny/stride10/cedar.h5").exists()  # judged at stride 4


def test_the_model_file_says_what_it_was_trained_on(world):
    model = loco.load(world.directory / "results/train/tiny/stored/seed0/model.safetensors")
    assert model.grid((48, 64)) == (5, 7)
    assert model.facts["data"] == {"train": {"tiny": ["ash"]}, "val": {"tiny": ["birch"]}, "test": {"tiny": ["cedar"]}}
    assert (model.facts["experiment"], model.facts["split"], model.facts["seed"]) == ("stored", "tiny", 0)


def test_tables_have_a_row_for_each(world):
    table = pd.read_csv(world.directory / "results/tables/location_consistency.csv")
    assert set(table["experiment"]) == {"stored", "computed", "frozen"}
    assert table["value"].between(0, 1).all()
