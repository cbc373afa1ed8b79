"""Models whose weights are in a local file, by configuration."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from loco.errors import ConfigError, DataError
from loco.models import build_extractor, save_extractor
from loco.models.published import load_published
from tests.unit.models.test_published import published_head, published_transformer

CNN = {"name": "compact_cnn", "dim": 8}


@pytest.fixture
def folder(tmp_path):
    save_extractor(build_extractor(CNN, seed=3), CNN, tmp_path / "model.safetensors")
    return tmp_path


def images():
    return np.random.default_rng(0).integers(0, 255, (2, 48, 48, 3), np.uint8)


@pytest.mark.parametrize("file", ["", "model.safetensors"])
def test_a_stored_model_is_what_it_was(folder, file):
    again = build_extractor({"name": "pretrained", "path": str(folder / file), "stride": 4}, seed=9)
    assert torch.equal(again.extract(images()), build_extractor(CNN, seed=3).extract(images()))
    assert not again.trainable_parameters


def test_published_weights_are_a_model(tiny, tmp_path):
    backbone = {key: tiny["vit"][key] for key in ("name", "path")}
    head = {f"trainable_head.{key}": value for key, value in published_head().items()}
    transformer = {f"dino_model.{key}": value for key, value in published_transformer(backbone, 2).items()}
    torch.save({"model_state_dict": head | transformer}, tmp_path / "locus.pth")
    config = {"name": "published", "weights": "locus", "path": str(tmp_path / "locus.pth"), "stride": 8}
    found = build_extractor({**config, "backbone": backbone})
    assert torch.equal(
        found.extract(images()), load_published("locus", tmp_path / "locus.pth", backbone).extract(images())
    )


def test_another_stride_is_refused(folder):
    with pytest.raises(ConfigError, match="has a stride of 4, not 8"):
        build_extractor({"name": "pretrained", "path": str(folder), "stride": 8})


def test_a_model_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="cannot be read as a model"):
        build_extractor({"name": "pretrained", "path": str(tmp_path), "stride": 4})
