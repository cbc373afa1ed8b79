"""config/published.yaml: every experiment has the settings that its papers and releases state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from loco.config import load, read_files
from loco.losses import build_loss

ROOT = Path(__file__).parents[2]
LOCO, LOCUS = ("loco_paper", "loco_released", "exact_residual"), ("locus_fine", "locus_coarse")


def read(*names: str) -> dict[str, Any]:
    return read_files([ROOT / f"config/{name}.yaml" for name in names], ROOT)


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    """Return the configuration of the command in its header, without the label table, which is part of the download."""
    config = read("published")
    config["datasets"]["matterport3d"]["labels"]["mapping"] = "config/labels/simulated.tsv"
    return load(config, ROOT)


def test_images_patches_and_benchmarks_are_as_the_header_says(config: dict[str, Any]) -> None:
    dataset, benchmarks = config["datasets"]["matterport3d"], config["benchmarks"]
    assert (dataset["frames"]["height"], dataset["frames"]["width"], dataset["patches"]["stride"]) == (256, 320, 8)
    assert [len(config["splits"]["matterport3d"][part]["matterport3d"]) for part in ("train", "val", "test")] == [
        59,
        11,
        18,
    ]
    recognition = benchmarks["place_recognition"]
    assert [entry["clusters"] for entry in recognition["descriptors"]] == [128]
    assert [entry["top"] for entry in recognition["rerank"] if entry != "none"] == [100]
    assert recognition["queries"] == "greedy"
    assert benchmarks["panoptic_segmentation"]["batch"] == 32
    assert benchmarks["pixel_correspondence"]["step"] == 2  # near the 120 x 160 of the papers
    assert benchmarks["pixel_correspondence"]["thresholds"] == [1, 5, 10, 20, 40]


@pytest.mark.parametrize(
    ("name", "rho", "kappa", "same_image"),
    [
        ("loco_paper", 0.5, 5.0, 1.0),
        ("loco_released", 0.2, 0.5, 0.4),
        ("exact_residual", 0.5, 5.0, 1.0),
        ("locus_fine", 0.2, 10.0, 1.0),
        ("locus_coarse", 0.6, 10.0, 1.0),
    ],
)
def test_losses_are_those_of_the_papers(
    config: dict[str, Any], name: str, rho: float, kappa: float, same_image: float
) -> None:
    train = config["experiments"][name]["train"]
    loss = build_loss(**train["loss"])
    assert (loss.rho, loss.kappa, loss.tau, loss.same_image) == (rho, kappa, 0.01, same_image)
    if train["loss"]["name"] == "sampled":
        caps = {"loco_paper": (800, 3000), "loco_released": (6000, 30000)}[name]
        assert (loss.anchors, loss.max_positives, loss.max_negatives) == (32, *caps)
        assert loss.delta == pytest.approx(0.0760, abs=5e-5)
        assert loss.corrections == ("published" if name == "loco_released" else "unbiased")
    if name in LOCUS:
        assert (loss.landmarks, loss.patches, loss.self_term) == (64, 0.1, True)


@pytest.mark.parametrize("name", [*LOCO, *LOCUS])
def test_models_are_trained_as_published(config: dict[str, Any], name: str) -> None:
    experiment = config["experiments"][name]
    optimiser = {"lr": 1e-3, "weight_decay": 0.0, "warmup_steps": 0, "clip": None, "schedule": "constant"}
    assert experiment["train"]["optimiser"] == optimiser
    assert experiment["train"]["steps"] == 20 * 1000
    batch = experiment["train"]["batch"]
    assert batch.get("images", batch.get("images_per_scene")) == 16
    assert batch["patches_per_image"] == (128 if name == "loco_released" else None)
    model = experiment["model"]
    assert model["backbone"]["path"] == "dino_vitb8"
    assert model["backbone"]["interpolate_offset"] == 0.1
    assert model["backbone"].get("layer") == (11 if name in LOCUS else None)
    assert model["stride"] == 8


def test_the_pairs_of_scannet_are_scored_at_all_published_thresholds() -> None:
    config = load(read("scannet1500"), ROOT)
    assert config["benchmarks"]["pixel_correspondence"]["thresholds"] == [1, 5, 10, 20, 40]
