"""Backbones of timm give the features of timm's own networks, here the small ones that timm has for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from loco.errors import ConfigError, DataError

timm = pytest.importorskip("timm", reason="needs timm and torchvision: pip install 'loco[timm]'", exc_type=ImportError)

from loco.models.build import build_extractor  # noqa: E402
from loco.models.timm_backbone import load_timm  # noqa: E402

WHOLE = ("test_vit", "test_vit2", "test_convnext", "test_resnet", "swin_tiny_patch4_window7_224")
NAMES = (*WHOLE, "test_efficientnet")  # the last one has layers after its last stage


def write_model(folder: Path, name: str, **changes: object) -> Any:
    """Write a network with random weights and a classifier, as timm stores it on the hub."""
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=5).eval()
    folder.mkdir()
    settings = {"architecture": name, "pretrained_cfg": {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4]}, **changes}
    (folder / "config.json").write_text(json.dumps(settings))
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, folder / "model.safetensors")
    return network


@pytest.mark.parametrize("name", WHOLE)
def test_features_are_those_of_timm(name: str, tmp_path: Path) -> None:
    network = write_model(tmp_path / "model", name)
    size = network.pretrained_cfg["input_size"][1:]  # the size of the pretraining: nothing is interpolated
    images = torch.rand(2, 3, *size)
    backbone = load_timm(str(tmp_path / "model"))
    normalised = (images - torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1)) / torch.tensor([0.2, 0.3, 0.4]).view(3, 1, 1)
    with torch.inference_mode():
        expected = network.forward_features(normalised)
        if expected.ndim == 3:  # tokens
            side = size[0] // backbone.stride
            expected = expected[:, network.num_prefix_tokens :].mT.unflatten(2, (side, side))
        elif expected.shape[-1] == backbone.dim != expected.shape[1]:
            expected = expected.permute(0, 3, 1, 2)
        found = backbone(images).maps
        assert found.shape == (2, backbone.dim, *(side // backbone.stride for side in size))
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(backbone(images[:1]).maps, found[:1], atol=1e-5, rtol=1e-4)
    assert not any(weight.requires_grad for weight in backbone.parameters())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("layer", [1, 2])
def test_other_layers_and_other_image_sizes(name: str, layer: int, tmp_path: Path) -> None:
    network = write_model(tmp_path / "model", name)
    backbone = load_timm(str(tmp_path / "model"), layer=layer, mean=(0, 0, 0), std=(1, 1, 1))
    side = network.pretrained_cfg["input_size"][1]
    images = torch.rand(1, 3, side, side + 2 * network.feature_info[-1]["reduction"])
    with torch.inference_mode():
        (found,) = backbone(images).maps
        square = backbone(images[..., :side]).maps
        expected = network.forward_intermediates(
            images[..., :side], [layer - 1], output_fmt="NCHW", intermediates_only=True
        )
    assert found.shape == (backbone.dim, side // backbone.stride, images.shape[3] // backbone.stride)
    torch.testing.assert_close(square, expected[0], atol=1e-5, rtol=1e-4)


def test_an_extractor_upsamples_and_normalises(tmp_path: Path) -> None:
    write_model(tmp_path / "model", "test_vit")
    model = {"name": "backbone", "backbone": {"name": "timm", "path": str(tmp_path / "model")}, "stride": 8}
    features = build_extractor(model).eval()(torch.rand(1, 3, 50, 70))
    assert features.shape[2:] == (7, 9)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(1, 7, 9))


def test_what_cannot_be_loaded_is_refused(tmp_path: Path) -> None:
    write_model(tmp_path / "other", "test_vit", architecture="no_such_network")
    with pytest.raises(DataError, match=r"not a model in timm's format[\s\S]*no_such_network"):
        load_timm(str(tmp_path / "other"))
    write_model(tmp_path / "changed", "test_vit", model_args={"depth": 10**9})
    with pytest.raises(DataError, match="not the standard test_vit"):
        load_timm(str(tmp_path / "changed"))
    write_model(tmp_path / "model", "test_vit")
    with pytest.raises(ConfigError, match="has no layer 99"):
        load_timm(str(tmp_path / "model"), layer=99)
    weights = {"patch_embed.proj.weight": torch.zeros(1)}
    save_file(weights, tmp_path / "model/model.safetensors")
    with pytest.raises(DataError, match="do not belong to this network"):
        load_timm(str(tmp_path / "model"))
    (tmp_path / "model/model.safetensors").write_bytes(b"no weights")
    with pytest.raises(DataError, match="do not belong to this network"):
        load_timm(str(tmp_path / "model"))
