"""A compact convolutional network for training from scratch on a small machine.

A residual pyramid of four levels (1/2 to 1/16 of the image) gives each patch the context of most of the image at little
cost; a top-down path brings that context back to the 1/4 level, where the features are read.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loco.models.extractor import FeatureExtractor

_MEAN, _STD = 0.45, 0.25  # of colours indoors, roughly: centres the input


class CompactCNN(FeatureExtractor):
    """About 1.7 million parameters at ``dim`` = 64; stride 4. Input height and width must be multiples of 16."""

    stride = 4

    def __init__(self, dim: int = 64, widths: tuple[int, int, int, int] = (32, 64, 128, 192), blocks: int = 2) -> None:
        """
        Args:
            dim: length of a feature.
            widths: channels at 1/2, 1/4, 1/8 and 1/16 of the image.
            blocks: residual blocks at each of the last three levels.
        """
        super().__init__()
        self.dim = dim
        self.stem = nn.Sequential(
            nn.Conv2d(3, widths[0], 5, stride=2, padding=2, bias=False), _norm(widths[0]), nn.ReLU()
        )
        self.levels = nn.ModuleList(
            nn.Sequential(Residual(before, after, stride=2), *(Residual(after, after) for _ in range(blocks - 1)))
            for before, after in pairwise(widths)
        )
        inner = widths[1]
        self.laterals = nn.ModuleList(nn.Conv2d(width, inner, 1) for width in widths[1:])
        self.merges = nn.ModuleList(Residual(inner, inner) for _ in widths[2:])
        self.head = nn.Conv2d(inner, dim, 1)

    def maps(self, images: Tensor) -> Tensor:
        x = self.stem(((images - _MEAN) / _STD).to(memory_format=torch.channels_last))
        pyramid = []
        for level, lateral in zip(self.levels, self.laterals):
            x = level(x)
            pyramid.append(lateral(x))
        top = pyramid.pop()
        for merge in self.merges:
            side = pyramid.pop()
            top = merge(side + F.interpolate(top, size=side.shape[2:], mode="bilinear", align_corners=False))
        return self.head(top)


class Residual(nn.Module):
    """Two 3 x 3 convolutions around a shortcut."""

    def __init__(self, before: int, after: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False),
            _norm(after),
            nn.ReLU(),
            nn.Conv2d(after, after, 3, padding=1, bias=False),
            _norm(after),
        )
        self.shortcut = (
            nn.Identity()
            if before == after and stride == 1
            else nn.Sequential(nn.AvgPool2d(stride, ceil_mode=True), nn.Conv2d(before, after, 1, bias=False))
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.shortcut(x))


def _norm(channels: int) -> nn.Module:
    # By groups, not by batch: a batch holds a few rooms alone, and training and use must see the same network.
    return nn.GroupNorm(8, channels)
