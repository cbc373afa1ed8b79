"""Feature extractors by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import torch

from loco.errors import ConfigError
from loco.models.adapted import AdaptedBackbone
from loco.models.compact_cnn import CompactCNN
from loco.models.concat import Concat
from loco.models.dense_sift import DenseSIFT
from loco.models.extractor import FeatureExtractor


def _given(kind: str) -> Callable[..., FeatureExtractor]:
    # Imported by name: files of models are read by what is built here.
    return lambda **options: getattr(import_module("loco.models.given"), kind)(**options)


MODELS: dict[str, Callable[..., FeatureExtractor]] = {
    "backbone": AdaptedBackbone,
    "compact_cnn": CompactCNN,
    "concat": Concat,
    "dense_sift": DenseSIFT,
    "pretrained": _given("pretrained"),
    "published": _given("published"),
}


def build_extractor(config: Mapping[str, Any], seed: int = 0) -> FeatureExtractor:
    """An extractor as the configuration describes it: ``name``, a key of :data:`MODELS`, and its options.

    The initial weights depend on ``seed`` alone; the state of PyTorch's own generator is left as it was. The extractor
    keeps its configuration as ``config``; models that are there already keep their own.

    Raises:
        ConfigError: unknown name or option, or options that do not fit each other.
        DataError: weights are not there, or broken.
    """
    name, options = config["name"], {key: value for key, value in config.items() if key != "name"}
    if name not in MODELS:
        raise ConfigError(f"there is no model {name!r}; there are: {', '.join(sorted(MODELS))}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            extractor = MODELS[name](**options)
        except TypeError as error:
            raise ConfigError(f"model {name!r} does not take these options: {error}") from error
    extractor.config = extractor.config or dict(config)
    return extractor
