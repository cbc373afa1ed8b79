"""Model files whose configuration or weights were not written by a training run."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import loco
from loco.cli import main
from loco.errors import ConfigError, DataError
from loco.models import build_extractor, load, load_weights, read_content, save_extractor
from loco.models.options import MAX_PARAMETERS, construct_network
from tests.unit.models.conftest import write_model

CNN = {"name": "compact_cnn", "dim": 8, "widths": [8, 8], "blocks": 1}
SIFT = {"name": "dense_sift", "stride": 4, "keypoint_size": 4}


def nested(levels: int) -> dict:
    model = SIFT
    for _ in range(levels):
        model = {"name": "concat", "models": [model], "stride": 4}
    return model


def write(path: Path, model: object, weights: dict[str, torch.Tensor] | None = None, **more: object) -> Path:
    return write_model(path, {"model": model, "facts": {}, **more}, weights or {"weight": torch.zeros(1)})


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        ({}, "the model must be one of"),
        ({"dim": 8}, "the model must be one of"),
        ({"name": None}, "the model must be one of"),
        ({"name": ["compact_cnn"]}, "the model must be one of"),
        ({"name": "resnet"}, "found 'resnet'"),
        ({"name": "pretrained", "path": "model.safetensors", "stride": 4}, "found 'pretrained'"),
        ({"name": "published", "weights": "loco", "path": "x", "stride": 8}, "found 'published'"),
        ({"name": "concat", "stride": 4}, "no list `models`"),
        ({"name": "concat", "models": 3, "stride": 4}, "no list `models`"),
        ({"name": "concat", "models": [SIFT, 3], "stride": 4}, "found '3'"),
        ({"name": "concat", "models": [{"name": "pretrained", "path": "."}], "stride": 4}, "found 'pretrained'"),
        (nested(9), "more than 8 levels"),
        (nested(300), "more than 8 levels"),
        ({"name": "backbone", "stride": 8}, "no `path`"),
        ({"name": "backbone", "backbone": {"name": "croco", "path": 3}, "stride": 8}, "no `path`"),
        ({"name": "backbone", "backbone": {"path": "x"}, "stride": 8}, "unknown kind of backbone None"),
        (
            {"name": "backbone", "backbone": {"name": "mmseg", "path": "x"}, "stride": 8},
            "unknown kind of backbone 'mmseg'",
        ),
        ({"name": "concat", "models": [], "stride": 4}, r"strides \[\]"),
        ({"name": "concat", "models": [SIFT]}, "has unknown or missing options"),
        ({**CNN, "depth": 3}, "has unknown or missing options"),
        ({**CNN, "dim": 10**9}, "`dim` must be an integer"),
        ({**CNN, "dim": 1e9}, "`dim` must be an integer"),
        ({**CNN, "dim": -1}, "`dim` must be an integer"),
        ({**CNN, "dim": 0}, "`dim` must be an integer"),
        ({**CNN, "dim": True}, "`dim` must be an integer"),
        ({**CNN, "dim": "8"}, "`dim` must be an integer"),
        ({**CNN, "dim": None}, "`dim` must be an integer"),
        ({**CNN, "blocks": 10**9}, "`blocks` must be an integer"),
        ({**CNN, "widths": 64}, "`widths` must be a list"),
        ({**CNN, "widths": []}, "`widths` must be a list"),
        ({**CNN, "widths": [8] * 1000}, "`widths` must be a list"),
        ({**CNN, "widths": [8, "8"]}, "must be an integer"),
        ({**CNN, "widths": [8, 9]}, "multiples of 8"),
        ({**CNN, "widths": [80000, 80000]}, f"at most {MAX_PARAMETERS}"),
        ({**SIFT, "stride": 0}, "`stride` must be an integer"),
        ({**SIFT, "stride": 10**6}, "`stride` must be an integer"),
        ({**SIFT, "keypoint_size": -1}, "`keypoint_size`"),
        ({**SIFT, "keypoint_size": "big"}, "`keypoint_size`"),
    ],
)
def test_a_configuration_that_is_none_names_the_file(tmp_path, model, problem):
    path = write(tmp_path / "odd.safetensors", model)
    start = time.monotonic()
    with pytest.raises(DataError, match=rf"{problem}(.|\n)*odd\.safetensors"):
        load(path)
    assert time.monotonic() - start < 20  # nothing large was built


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"head": {"hidden": 3}}, "unknown head None"),
        ({"head": {"name": "residual_mlp", "hidden": 10**9}}, "`hidden` must be"),
        ({"head": {"name": "residual_mlp", "hidden": 10**6, "dim": 10**6}}, "at most"),
        ({"head": {"name": "residual_mlp", "hidden": 4, "dim": -3}}, "`dim` must be"),
        ({"head": {"name": "linear", "dim": 0}}, "`dim` must be"),
        ({"head": {"name": "locus", "blocks": 10**9}}, "`blocks` must be"),
        ({"head": {"name": "locus", "width": 10**6}}, "at most"),
        ({"head": {"name": "residual_cnn", "widths": [8, 8, 10**6, 10**6]}}, "at most"),
        ({"head": {"name": "residual_cnn", "widths": 8}}, "the model cannot be built"),
        ({"head": "linear"}, "the model cannot be built"),
        ({"train": {"lora": {"rank": 10**9, "last": 1}}}, "`rank` must be"),
        ({"train": {"last": "one"}}, "`train` of a backbone"),
        ({"stride": 0}, "`stride` must be"),
        ({"stride": "8"}, "`stride` must be"),
    ],
)
def test_options_on_a_backbone_that_cannot_be_built_name_the_file(tiny, tmp_path, settings, problem):
    model = {"name": "backbone", "backbone": tiny["vit"], "stride": 8, **settings}
    with pytest.raises(DataError, match=rf"{problem}(.|\n)*odd\.safetensors"):
        load(write(tmp_path / "odd.safetensors", model))


@pytest.mark.parametrize("metadata", ["[" * 100_000, "3", "null", '{"model": [1], "facts": {}}', '{"model": {}}'])
def test_metadata_that_are_no_configuration_name_the_file(tmp_path, metadata):
    save_file({"weight": torch.zeros(1)}, tmp_path / "odd.safetensors", {"loco-model": metadata})
    with pytest.raises(DataError, match=r"odd\.safetensors"):
        read_content(tmp_path / "odd.safetensors")


def test_fingerprints_that_are_none_name_the_file(tmp_path):
    with pytest.raises(DataError, match=r"odd\.safetensors"):
        load(write(tmp_path / "odd.safetensors", SIFT, backbones=3))


def test_the_program_lists_the_models_beside_a_broken_one(tmp_path, capsys):
    write(tmp_path / "odd.safetensors", {"dim": 3})
    save_extractor(build_extractor(CNN), CNN, tmp_path / "good.safetensors")
    assert main(["models", str(tmp_path)]) == 0
    listed = capsys.readouterr()
    assert "good.safetensors" in listed.out
    assert "odd.safetensors" in listed.err
    assert main(["info", str(tmp_path / "odd.safetensors")]) == 1
    assert "odd.safetensors" in capsys.readouterr().err


def test_a_model_that_refers_to_a_file_is_not_stored(tmp_path):
    save_extractor(build_extractor(CNN), CNN, tmp_path / "model.safetensors")
    config = {"name": "pretrained", "path": str(tmp_path), "stride": 4}
    extractor = build_extractor(config)
    with pytest.raises(ConfigError, match="pretrained"):
        save_extractor(extractor, config, tmp_path / "again.safetensors")
    save_extractor(extractor, extractor.config, tmp_path / "again.safetensors")
    assert loco.load(tmp_path / "again.safetensors").config == CNN


def test_a_network_of_any_size_is_measured_without_its_memory():
    with pytest.raises(ConfigError, match=str(10**12 + 10**6)):
        construct_network("a layer", torch.nn.Linear, {"in_features": 10**6, "out_features": 10**6})
    with pytest.raises(ConfigError, match="has unknown or missing options"):
        construct_network("a layer", torch.nn.Linear, {"channels": 3})
    torch.manual_seed(0)
    built = construct_network("a layer", torch.nn.Linear, {"in_features": 3}, out_features=2)
    torch.manual_seed(0)
    assert torch.equal(built.weight, torch.nn.Linear(3, 2).weight)  # measuring does not draw random numbers


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("load_file_of", [load, lambda path: load_weights(build_extractor(CNN), path)])
def test_weights_that_are_not_finite_are_refused_by_their_names(tmp_path, value, load_file_of):
    path = tmp_path / "bent.safetensors"
    save_extractor(build_extractor(CNN), CNN, path)
    content, weights = read_content(path), load_file(path)
    weights["encoder.fine.0.body.3.weight"][1, 2, 0, 1] = value
    write(path, content["model"], weights)
    with pytest.raises(
        DataError, match=r"not finite(.|\n)*bent\.safetensors(.|\n)*in encoder\.fine\.0\.body\.3\.weight\n"
    ):
        load_file_of(path)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda w: w.double(), r"float64 \(8, 8, 1, 1\) instead of float32 \(8, 8, 1, 1\)"),
        (lambda w: w.int(), r"int32 \(8, 8, 1, 1\) instead of float32"),
        (lambda w: w[0], r"float32 \(8, 1, 1\) instead of float32 \(8, 8, 1, 1\)"),
    ],
)
def test_weights_of_other_types_and_shapes_are_refused_by_their_names(tmp_path, change, problem):
    path = tmp_path / "bent.safetensors"
    save_extractor(build_extractor(CNN), CNN, path)
    weights = load_file(path)
    weights["encoder.head.weight"] = change(weights["encoder.head.weight"]).contiguous()
    write(path, CNN, weights)
    with pytest.raises(DataError, match=rf"bent\.safetensors(.|\n)*encoder\.head\.weight: {problem}"):
        load(path)
