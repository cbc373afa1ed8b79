"""A compact convolutional network for training from scratch on a small machine.

Fixed oriented gradients, normalised by the local contrast, replace the learnt first layers of a network, as in HOG
(Dalal and Triggs, CVPR 2005) and SIFT. A residual pyramid of three levels (1/4 to 1/16 of the resolution of the image)
provides each patch with the context of most of the image at low cost; a top-down path propagates that context to the
level at 1/4, which is the output.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loco.errors import ConfigError
from loco.models.options import construct_network, require_sizes
from loco.models.parts import Encoder, Encoding

GROUPS = 8  # number of groups of the group norms


def compact_cnn(**options: Any) -> CompactCNN:
    """Build a :class:`CompactCNN` with these options, after checking its size.

    Raises:
        ConfigError: unknown options, sizes that do not fit, or a network that is too large.
    """
    return construct_network("model 'compact_cnn'", CompactCNN, options)


class CompactCNN(Encoder):
    """A convolutional encoder with about 2 million parameters at ``dim`` = 64 and an output stride of 4 pixels."""

    stride = 4
    cells = 4  # the third level has a stride of 16

    def __init__(self, dim: int = 64, widths: Sequence[int] = (64, 128, 192), blocks: int = 2) -> None:
        """
        Args:
            dim: channels of the features.
            widths: channels of the levels at 1/4, 1/8, 1/16, ... of the resolution of the image; multiples of 8.
            blocks: residual blocks at each level.

        Raises:
            ConfigError: sizes that do not fit.
        """
        super().__init__()
        require_sizes("compact_cnn", dim=dim)
        require_sizes("compact_cnn", 100, blocks=blocks)
        if not isinstance(widths, list | tuple) or not 1 <= len(widths) <= 8:
            raise ConfigError(f"compact_cnn: `widths` must be a list of 1 to 8 numbers, found {widths!r}")
        require_sizes("compact_cnn", **{f"widths.{number}": width for number, width in enumerate(widths)})
        if any(width % GROUPS for width in widths):
            raise ConfigError(f"compact_cnn: `widths` must be multiples of {GROUPS}, found {widths!r}")
        self.dim = dim
        self.gradients = OrientedGradients()
        inner = widths[0]
        self.stem = nn.Sequential(
            nn.Conv2d(self.gradients.channels, inner, 5, padding=2, bias=False), _norm(inner), nn.ReLU()
        )
        self.levels = nn.ModuleList(
            nn.Sequential(
                Residual(before, after, stride=2),
                *(Residual(after, after) for _ in range(blocks - 1)),
            )
            for before, after in pairwise((inner, *widths[1:]))
        )
        self.fine = nn.Sequential(*(Residual(inner, inner) for _ in range(blocks)))
        self.laterals = nn.ModuleList(nn.Conv2d(width, inner, 1) for width in widths)
        self.merges = nn.ModuleList(Residual(inner, inner) for _ in widths[1:])
        self.head = nn.Conv2d(inner, dim, 1, bias=False)
        # Centre the features around zero from the first step on: otherwise all cosines start near 1, where the ranking
        # loss is flat, and training is slow.
        self.centre = nn.BatchNorm2d(dim, affine=False)

    def forward(self, images: Tensor) -> Encoding:
        x = self.fine(self.stem(self.gradients(images).to(memory_format=torch.channels_last)))
        pyramid = [x]
        for level in self.levels:
            x = level(x)
            pyramid.append(x)
        pyramid = [lateral(x) for lateral, x in zip(self.laterals, pyramid)]
        top = pyramid.pop()
        for merge in self.merges:
            side = pyramid.pop()
            top = merge(side + F.interpolate(top, size=side.shape[2:], mode="bilinear", align_corners=False))
        return Encoding(self.centre(self.head(top)))


class OrientedGradients(nn.Module):
    """Rectified gradients in eight directions at two scales, and colours, over cells of 4 x 4 pixels."""

    directions, sigmas, cell = 8, (0.8, 1.6), 4
    channels = directions * len(sigmas) + 3
    filters: Tensor

    def __init__(self) -> None:
        super().__init__()
        # On the CPU even if the meta device is the default (in size checks), because the arithmetic of the meta device
        # takes seconds to import.
        angles = torch.arange(self.directions, device="cpu") * (2 * math.pi / self.directions)
        filters = torch.stack([_gradient(sigma, angle) for sigma in self.sigmas for angle in angles.tolist()])
        self.register_buffer("filters", filters[:, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Map colours (b, 3, H, W) in [0, 1] to features (b, channels, H / 4, W / 4)."""
        grey = F.pad(images.mean(dim=1, keepdim=True), [6] * 4, mode="replicate")
        gradients = F.avg_pool2d(F.conv2d(grey, self.filters).relu_(), self.cell)
        energy = F.avg_pool2d(gradients.square().sum(dim=1, keepdim=True), 5, stride=1, padding=2)
        colours = F.avg_pool2d(images, self.cell)
        # The constant is the contrast below which gradients are noise.
        return torch.cat([gradients / (energy + 1e-4).sqrt(), 2 * (colours - 0.5)], dim=1)


def _gradient(sigma: float, angle: float) -> Tensor:
    """Return the (13, 13) derivative of a Gaussian along ``angle``, with unit response to a unit slope."""
    taps = torch.arange(-6.0, 7.0, device="cpu")
    y, x = torch.meshgrid(taps, taps, indexing="ij")
    along = x * math.cos(angle) + y * math.sin(angle)
    derivative = along * torch.exp(-(x**2 + y**2) / (2 * sigma**2))
    return derivative / (derivative * along).sum()


class Residual(nn.Module):
    """A residual block: the output of two 3 x 3 convolutions is added to a shortcut."""

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
    # Group norm instead of batch norm: a batch contains only a few rooms, and training and inference must agree.
    return nn.GroupNorm(GROUPS, channels)
