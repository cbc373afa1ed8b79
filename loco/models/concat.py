"""Several extractors as one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from loco.errors import ConfigError
from loco.models.extractor import FeatureExtractor


class Concat(FeatureExtractor):
    """The unit features of several extractors side by side, each with the same say: the cosine is their mean cosine."""

    def __init__(self, models: Sequence[Mapping[str, Any]], stride: int) -> None:
        """
        Args:
            models: for :func:`loco.models.build_extractor`, one each.
            stride: of every one of them.

        Raises:
            ConfigError: no models, or models of other strides.
        """
        from loco.models.build import build_extractor  # which knows this class

        super().__init__()
        seeds = torch.randint(2**31, (len(models),)).tolist()
        self.models = nn.ModuleList(build_extractor(model, seed) for model, seed in zip(models, seeds))
        strides = [model.stride for model in self.models]
        if set(strides) != {stride}:
            raise ConfigError(f"the models that are concatenated have the strides {strides}, not all {stride}")
        self.config = {"name": "concat", "models": [model.config for model in self.models], "stride": stride}
        self.stride = stride
        self.dim = sum(model.dim for model in self.models)

    def maps(self, images: Tensor) -> Tensor:
        return torch.cat([model(images) for model in self.models], dim=1) / math.sqrt(len(self.models))
