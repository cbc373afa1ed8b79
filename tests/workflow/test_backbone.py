"""A head on a frozen backbone through the real workflow, on stored encoder outputs and without."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import ViTConfig, ViTModel

import loco
from loco.storage import Correspondences, Encoded


@pytest.fixture(scope="module")
def world(finished, tmp_path_factory):
    """Return a world with training on stored backbone outputs, training without them, and an extractor."""
    world = finished.clone(tmp_path_factory.mktemp("backbone"))
    torch.manual_seed(0)
    config = ViTConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, patch_size=10)
    ViTModel(config, add_pooling_layer=False).save_pretrained(world.directory / "vit")
    backbone = {"name": "transformers", "path": str(world.directory / "vit")}
    model = {"name": "backbone", "backbone": backbone, "stride": 10, "head": {"name": "residual_mlp", "hidden": 32}}
    plain = {key: model[key] for key in ("name", "backbone", "stride")}
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
        "stored": {"title": "stored", "model": model, "cache": True, "train": train},
        "computed": {"title": "computed", "model": model, "train": train},
        "frozen": {"title": "frozen", "model": plain},
        "frozen_stored": {"title": "frozen, stored", "model": plain, "cache": True},
        "pca": {"title": "PCA", "model": {**plain, "head": {"name": "linear", "dim": 4}}, "cache": True, "pca": {}},
    }
    comparisons = [["pca", "frozen"], ["stored", "pca"]]
    world.overlay({"experiments": experiments, "run": {"experiments": list(experiments), "comparisons": comparisons}})
    world.run("tables")
    return world


def test_stored_features_give_the_same_training(world):
    stored, computed = (
        pd.read_csv(world.directory / f"results/train/tiny/{name}/seed0/log.csv") for name in ("stored", "computed")
    )
    np.testing.assert_allclose(stored["loss"], computed["loss"], atol=5e-3)  # maps are stored in half precision
    np.testing.assert_allclose(stored["mean_ap"], computed["mean_ap"], atol=5e-3)


def test_features_are_stored_once_for_training_and_extraction(world):
    paths = sorted((world.directory / "results/encoded").glob("*/*/*.h5"))
    assert [path.name for path in paths] == ["ash.h5", "birch.h5", "cedar.h5"]
    with Encoded(paths[0]) as file:
        assert file["encoded"].shape[1:] == (16, 5, 7)  # of 48 x 64 pixels
        assert file.facts["encoder"]["name"] == "backbone"


def test_the_model_is_trained_at_the_patches_of_its_own_stride(world):
    with Correspondences(world.directory / "results/correspondences/tiny/stride10/ash.h5") as found:
        assert found.grid == (5, 7)
        assert found.extent == (50, 70)
    assert not (world.directory / "results/correspondences/tiny/stride10/cedar.h5").exists()  # evaluated at stride 4


def test_the_model_file_says_what_it_was_trained_on(world):
    model = loco.load(world.directory / "results/train/tiny/stored/seed0/model.safetensors")
    assert model.grid((48, 64)) == (5, 7)
    assert model.facts["data"] == {"train": {"tiny": ["ash"]}, "val": {"tiny": ["birch"]}}
    assert (model.facts["experiment"], model.facts["split"], model.facts["seed"]) == ("stored", "tiny", 0)


def test_tables_have_a_row_for_each(world):
    table = pd.read_csv(world.directory / "results/tables/location_consistency.csv")
    assert set(table["experiment"]) == {"stored", "computed", "frozen", "frozen_stored", "pca"}
    assert table["value"].between(0, 1).all()
    frozen, stored = (table[table["experiment"] == name]["value"].array for name in ("frozen", "frozen_stored"))
    np.testing.assert_allclose(stored, frozen, atol=5e-3)


def test_principal_components_are_those_of_the_training_scenes(world):
    """Compare with a singular value decomposition of all cells, in double precision."""
    (path,) = (world.directory / "results/encoded").glob("*/*/ash.h5")
    with Encoded(path) as file:
        cells = file["encoded"][:].astype(float).transpose(0, 2, 3, 1).reshape(-1, 16)
    centred = cells - cells.mean(axis=0)
    expected = (centred @ np.linalg.svd(centred, full_matrices=False)[2][:4].T)[:50]
    model = loco.load(world.directory / "results/train/tiny/pca/deterministic/model.safetensors")
    found = model.head.layer(torch.from_numpy(cells[:50]).float()).detach().numpy()
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-4)
    share = (expected.shape[1], (np.linalg.svd(centred)[1] ** 2)[:4].sum() / (centred**2).sum())
    assert share == (4, pytest.approx(model.facts["explained_variance"], abs=1e-5))


def test_differences_are_those_of_the_scores(world):
    for benchmark in ("location_consistency", "pixel_correspondence"):
        scores, differences = (
            pd.read_csv(world.directory / f"results/tables/{benchmark}{kind}.csv").set_index(
                ["experiment", "metric", "condition"]
            )
            for kind in ("", "_differences")
        )
        assert list(differences.index.unique("experiment")) == ["pca - frozen", "stored - pca"]
        for one, other in (("pca", "frozen"), ("stored", "pca")):
            expected = scores.loc[one]["value"] - scores.loc[other]["value"]
            found = differences.loc[f"{one} - {other}"]["value"]
            np.testing.assert_allclose(found, expected[found.index], atol=2e-6)
        bounded = differences.dropna(subset="low")  # a single image pair has no interval
        assert len(bounded) > 0
        assert ((bounded["low"] <= bounded["value"]) & (bounded["value"] <= bounded["high"])).all()


def test_another_head_leaves_the_stored_features_and_the_others_alone(world):
    world.overlay({"experiments": {"pca": {"model": {"head": {"dim": 3}}}}})
    plan = world.plan("tables")
    world.configs.pop()
    assert (plan["encode"], plan["train"], plan["fit_pca"], plan["extract"], plan["evaluate"]) == (0, 0, 1, 1, 2)


def test_a_backbone_that_was_moved_is_missed(world):
    """Missing weights are reported by name, and results stay; when the weights are restored, nothing is made again."""
    before = world.results()
    (world.directory / "vit").rename(world.directory / "elsewhere")
    try:
        said = world.refuse("tables")
    finally:
        (world.directory / "elsewhere").rename(world.directory / "vit")
    assert str(world.directory / "vit") in said
    assert world.results() == before


def test_other_weights_under_the_same_name_are_another_model(world):
    assert not world.plan("tables")
    path = world.directory / "vit" / "model.safetensors"
    save_file({name: 2 * tensor for name, tensor in load_file(path).items()}, path)
    plan = world.plan("tables")
    assert (plan["encode"], plan["train"], plan["fit_pca"], plan["extract"], plan["evaluate"]) == (3, 2, 1, 5, 10)
    assert plan["frames"] == plan["correspondence"] == 0
