"""Build feature extractors from their configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from loco.models.catalogue import MODELS, find
from loco.models.extractor import Extractor
from loco.models.options import construct


def build_extractor(config: Mapping[str, Any], seed: int = 0) -> Extractor:
    """Build an extractor from its configuration: ``name``, a key of :data:`loco.models.catalogue.MODELS`, and options.

    The initial weights depend on ``seed`` alone, and the state of PyTorch's global generator does not change. The
    configuration is stored as ``config``; ``pretrained`` and ``published`` models store that of the loaded model.

    Raises:
        ConfigError: unknown name or option, or options that do not fit together.
        DataError: weights are missing or damaged.
    """
    name, options = config.get("name"), {key: value for key, value in config.items() if key != "name"}
    constructor = find(MODELS, name, "model").load()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        built = construct(f"model {name!r}", constructor, options)
    extractor = built if isinstance(built, Extractor) else Extractor(built)
    extractor.config = extractor.config or dict(config)
    return extractor
