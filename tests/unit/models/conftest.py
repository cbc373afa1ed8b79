"""Small backbones with random weights, as transformers writes them."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModel, Dinov2Config, ViTConfig

from loco.storage.content_id import BLANK, seal

SMALL = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
CONFIGS = {
    "vit": ViTConfig(**SMALL, image_size=48, patch_size=8, intermediate_size=32, layer_norm_eps=1e-6),
    "dinov2": Dinov2Config(**SMALL, image_size=42, patch_size=14),
}


def write_backbone(folder: Path, kind: str, seed: int = 0) -> Path:
    """Return a model without weights of exactly zero or one."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModel.from_config(CONFIGS[kind])
        for tensor in model.state_dict().values():
            tensor.add_(0.1 * torch.randn_like(tensor))
    model.save_pretrained(folder)
    return folder


def write_model(path: Path, content: dict, weights: dict[str, torch.Tensor]) -> Path:
    """Write a model file with arbitrary content and a valid content id."""
    text = json.dumps({"content_id": BLANK, **{key: value for key, value in content.items() if key != "content_id"}})
    save_file(weights, path, {"loco-model": text})
    seal(path)
    return path


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Kind -> configuration of a backbone of 16 channels and 3 blocks: ``vit`` (patch size 8), ``dinov2`` (14)."""
    folder = tmp_path_factory.mktemp("backbones")
    return {
        kind: {"name": "transformers", "path": str(write_backbone(folder / kind, kind)), "norm": False}
        for kind in CONFIGS
    }
