"""A transformer of a few channels with stride 4 and dropout, as a backbone that is trained."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loco.models.backbones import Backbone, to_grid
from loco.models.extractor import Extractor
from loco.models.parts import Encoding
from loco.models.transformer import Block


class TinyViT(Backbone):
    dim, stride = 16, 4

    def __init__(self, drop: float = 0.0, blocks: int = 3) -> None:
        super().__init__()
        self.drop = drop
        self.patches = nn.Conv2d(3, 16, 4, stride=4)
        self.blocks = nn.ModuleList(Block(16, 2, 32) for _ in range(blocks))

    def forward(self, images: Tensor) -> Encoding:
        x = self.patches(self.normalised(images))
        height, width = x.shape[2:]
        x = x.flatten(2).transpose(1, 2)
        for block in self.blocks:
            x = F.dropout(block(x), self.drop, self.training)
        return Encoding(to_grid(x, height, width))


def tiny_vit(seed: int = 0, **options: float) -> Extractor:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Extractor(TinyViT(**options))
