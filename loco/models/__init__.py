"""Feature extractors by name, and how they are saved and loaded.

A model file is a safetensors file: plain numbers, nothing in it can run. Its metadata hold the model's configuration
and what made it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from loco.errors import ConfigError, DataError
from loco.models.compact_cnn import CompactCNN
from loco.models.dense_sift import DenseSIFT
from loco.models.extractor import FeatureExtractor
from loco.storage import atomic_path

MODELS: dict[str, type[FeatureExtractor]] = {"compact_cnn": CompactCNN, "dense_sift": DenseSIFT}
_FORMAT = "loco-model"


def build_extractor(config: Mapping[str, Any], seed: int = 0) -> FeatureExtractor:
    """An extractor as the configuration describes it: ``name``, a key of :data:`MODELS`, and its options.

    The initial weights depend on ``seed`` alone; the state of PyTorch's own generator is left as it was.

    Raises:
        ConfigError: unknown name or option.
    """
    name, options = config["name"], {key: value for key, value in config.items() if key != "name"}
    if name not in MODELS:
        raise ConfigError(f"there is no model {name!r}; there are: {', '.join(sorted(MODELS))}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return MODELS[name](**options)
        except TypeError as error:
            raise ConfigError(f"model {name!r} does not take these options: {error}") from error


def save_extractor(
    extractor: FeatureExtractor, config: Mapping[str, Any], path: Path, facts: Mapping[str, Any] | None = None
) -> None:
    """Write an extractor's weights, its configuration and further facts to a safetensors file, atomically."""
    # One key: safetensors writes several in an order that changes from run to run.
    metadata = {_FORMAT: json.dumps({"model": dict(config), "facts": facts or {}}, sort_keys=True)}
    with atomic_path(path) as temporary:
        save_file({k: v.contiguous() for k, v in extractor.state_dict().items()}, temporary, metadata=metadata)


def load(path: str | Path, device: str | torch.device = "cpu") -> FeatureExtractor:
    """The extractor of a model file, in evaluation mode.

    Raises:
        DataError: not a model file, truncated, or its weights do not fit its configuration.
    """
    remedy = "give a `model.safetensors` that the training step wrote"
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        if _FORMAT not in metadata:
            raise DataError(
                "is not a model of this project",
                file=path,
                expected=f"metadata `{_FORMAT}`",
                found=f"metadata {sorted(metadata)}",
                remedy=remedy,
            )
        extractor = build_extractor(json.loads(metadata[_FORMAT])["model"])
        extractor.load_state_dict(load_file(path, device="cpu"))
    except (SafetensorError, OSError) as error:
        raise DataError(f"cannot be read as a model: {error}", file=path, remedy=remedy) from error
    except RuntimeError as error:  # load_state_dict names each key that does not fit
        raise DataError(f"holds weights of another model: {error}", file=path, remedy=remedy) from error
    return extractor.to(device).eval()


__all__ = ["MODELS", "FeatureExtractor", "build_extractor", "load", "save_extractor"]
