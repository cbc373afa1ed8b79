"""Build feature extractors from their configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from loco.errors import ConfigError
from loco.models.catalogue import MODELS, find
from loco.models.extractor import Extractor
from loco.models.options import construct
from loco.models.upsample import build_upsampler


def build_extractor(config: Mapping[str, Any], seed: int = 0) -> Extractor:
    """Build an extractor from its configuration: ``name``, a key of :data:`loco.models.catalogue.MODELS`, and options.

    Every model can have the option ``upsample`` (:func:`add_upsampler`).

    The initial weights depend on ``seed`` alone, and the state of PyTorch's global generator does not change. The
    configuration is stored as ``config``; ``pretrained`` and ``published`` models store that of the loaded model.

    Raises:
        ConfigError: unknown name or option, or options that do not fit together.
        DataError: weights are missing or damaged.
    """
    name, options = config.get("name"), {key: config[key] for key in config if key not in ("name", "upsample")}
    constructor = find(MODELS, name, "model").load()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        built = construct(f"model {name!r}", constructor, options)
    extractor = built if isinstance(built, Extractor) else Extractor(built)
    extractor.config = extractor.config or {"name": name, **options}
    return add_upsampler(extractor, config["upsample"]) if "upsample" in config else extractor


def add_upsampler(extractor: Extractor, upsample: Mapping[str, Any]) -> Extractor:
    """Add an upsampler to an extractor, in place, and to its ``config``; return the extractor.

    Args:
        extractor: an extractor without an upsampler.
        upsample: for :func:`loco.models.upsample.build_upsampler`.

    Raises:
        ConfigError: the extractor has an upsampler, or the configuration is invalid.
    """
    if extractor.upsampler:
        raise ConfigError(
            f"the features of this model are already upsampled to a stride of {extractor.stride}; remove `upsample`"
        )
    extractor.upsampler = build_upsampler(upsample, extractor.map_stride)
    extractor.config = {**extractor.config, "upsample": dict(upsample)}
    return extractor
