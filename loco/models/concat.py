"""Concatenation of several extractors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from loco.errors import ConfigError
from loco.models.build import build_extractor
from loco.models.extractor import Extractor
from loco.models.parts import Encoder, Encoding


def concat(models: Sequence[Mapping[str, Any]], stride: int) -> Extractor:
    """Build an extractor that concatenates the features of several others.

    Args:
        models: configurations for :func:`loco.models.build_extractor`.
        stride: their common stride, in pixels.

    Raises:
        ConfigError: there are no models, or one of them has another stride or is invalid.
    """
    seeds = torch.randint(2**31, (len(models),)).tolist()
    members = [build_extractor(model, seed) for model, seed in zip(models, seeds)]
    strides = [member.stride for member in members]
    if set(strides) != {stride}:
        raise ConfigError(f"the concatenated models have the strides {strides}; all must be {stride}")
    config = {"name": "concat", "models": [member.config for member in members], "stride": stride}
    return Extractor(Concat(members), config=config)


class Concat(Encoder):
    """Concatenated L2-normalised features of several extractors; their cosine is the mean of the members' cosines."""

    def __init__(self, models: Sequence[Extractor]) -> None:
        """
        Args:
            models: extractors with equal strides.
        """
        super().__init__()
        self.models = nn.ModuleList(models)
        self.stride, self.dim = models[0].stride, sum(model.dim for model in models)

    def forward(self, images: Tensor) -> Encoding:
        maps = torch.cat([model(images) for model in self.models], dim=1)
        return Encoding(maps / math.sqrt(len(self.models)))
