"""Heads on top of a backbone: the residual network of LoCo, the transformer head of LoCUS, and lighter ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loco.errors import ConfigError, DataError
from loco.models.backbones import IMAGENET_MEAN, IMAGENET_STD, to_grid
from loco.models.options import construct_network, require_sizes
from loco.models.parts import Head
from loco.models.transformer import Block


class ResidualCNN(Head):
    """A convolutional network on the image whose output is added to the backbone's features (LoCo).

    The network is Delta-DINO of DINO-Tracker (Tumanyan et al., ECCV 2024; github.com/AssafSinger94/dino-tracker), as
    LoCo widened it (Kloepfer et al., NeurIPS 2024; github.com/dakloepfer/LoCo): convolutions of 5 x 5, the first three
    followed by blurred downsampling by 2 (Zhang, ICML 2019), the others dilated; 28.9 million parameters at ``dim`` =
    768.

    A cell of the network covers 8 pixels and is centred on them: the blur of four taps at stride 2 is symmetric about
    the pair of cells that it merges. Patches are sampled at their centres, between the cells.

    The published network differs in two respects (``aligned`` false). First, it assumes cells to be centred on their
    first pixel, so patches are sampled 3.5 pixels too far to the right and below. Second, its last convolution is
    initialised with zeros and followed by a batch norm of scale 0.05, which amplifies the first update of the
    convolution to the full scale of the norm. Here, the scale of the norm is initialised with zero instead (Goyal et
    al., 2017), so the residual grows with this scale.
    """

    needs_images = True
    cell, halvings = 8, 3
    mean: Tensor
    std: Tensor

    def __init__(
        self, inputs: int, stride: int, widths: Sequence[int] = (64, 128, 256, 512, 768), aligned: bool = True
    ) -> None:
        """
        Args:
            inputs: channels of the backbone, and of the result.
            stride: pixels of the backbone's input per patch.
            widths: channels of all convolutions but the last; at least three.
            aligned: False for the published geometry and initialisation.

        Raises:
            ConfigError: a width is not a positive integer, or there are fewer than three.
        """
        super().__init__()
        require_sizes("residual_cnn", **{f"widths.{number}": width for number, width in enumerate(widths)})
        if len(widths) < self.halvings:
            raise ConfigError(f"residual_cnn: `widths` must have at least {self.halvings} entries, found {widths}")
        self.dim, self.stride, self.aligned = inputs, stride, aligned
        layers: list[nn.Module] = []
        for number, (before, after) in enumerate(pairwise((3, *widths, inputs))):
            dilation = 1 if number < self.halvings else 2
            convolution = nn.Conv2d(before, after, 5, padding=2 * dilation, dilation=dilation, padding_mode="reflect")
            norm = nn.BatchNorm2d(after)
            layers += [convolution, norm]
            if number < len(widths):
                layers.append(nn.ReLU())
            if number < self.halvings:
                layers.append(BlurPool())
        self.layers = nn.Sequential(*layers)  # in the published order, so that the keys match
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)
        self._start_at_zero(convolution, norm)

    def _start_at_zero(self, convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
        if self.aligned:
            nn.init.zeros_(norm.weight)
        else:
            nn.init.zeros_(convolution.weight)
            nn.init.zeros_(convolution.bias)
            nn.init.constant_(norm.weight, 0.05)

    def forward(self, features: Tensor, images: Tensor | None, token: Tensor | None = None) -> Tensor:
        smallest = 4 * self.cell + 1  # the dilated convolutions pad by reflecting four cells
        if min(images.shape[2:]) < smallest:
            raise DataError(
                "the image is too small for the head `residual_cnn`",
                expected=f"at least {smallest} pixels per side, at the input size of the backbone",
                found=f"{images.shape[2]} x {images.shape[3]} pixels",
                remedy="use larger images, a smaller `stride` of the model, or another head",
            )
        return features + self._at_patches(self.layers((images - self.mean) / self.std), features.shape[2:])

    def _at_patches(self, maps: Tensor, grid: Sequence[int]) -> Tensor:
        """Sample maps at the centres of the patches; beyond the centres of the outermost cells, use these cells."""
        v, u = (2 * self._centres(number, maps) / cells - 1 for number, cells in zip(grid, maps.shape[2:], strict=True))
        places = torch.stack(torch.meshgrid(u, v, indexing="xy"), dim=-1).expand(len(maps), -1, -1, -1)
        # Sample in single precision, also within autocast: half precision would shift the positions by a pixel.
        return F.grid_sample(maps.float(), places, mode="bilinear", padding_mode="border", align_corners=False)

    def _centres(self, patches: int, maps: Tensor) -> Tensor:
        """Return the centres of a row of patches, in cells from the edge of the image."""
        pixels = (torch.arange(patches, device=maps.device) + 0.5) * self.stride
        # The published code assumes cell k to be centred 8 k + 0.5 pixels from the edge; it is centred at 8 k + 4.
        return pixels / self.cell if self.aligned else (pixels - 0.5) / self.cell + 0.5


class BlurPool(nn.Module):
    """Downsampling by 2 after a 4 x 4 binomial blur (Zhang, ICML 2019); cell i merges cells 2i and 2i + 1."""

    taps: Tensor

    def __init__(self) -> None:
        super().__init__()
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0], device="cpu") / 8
        self.register_buffer("taps", torch.outer(taps, taps)[None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        taps = self.taps.to(x.dtype).expand(x.shape[1], -1, -1, -1)
        return F.conv2d(F.pad(x, (1, 2, 1, 2), mode="reflect"), taps, stride=2, groups=x.shape[1])


class LocusHead(Head):
    """The head of LoCUS (Kloepfer et al., ICCV 2023; github.com/dakloepfer/locus): a linear layer, two transformer
    blocks over the whole image, a linear layer.

    Queries and keys have 32 channels but are scaled by 1/8, the scale for the 64 channels of the backbone, as
    published. The published head also processes the class token, which matters only for published weights.
    """

    heads = 4

    def __init__(
        self, inputs: int, dim: int = 64, width: int = 128, blocks: int = 2, class_token: bool = False
    ) -> None:
        """
        Args:
            inputs: channels of the backbone.
            dim: channels of the result.
            width: channels between the two linear layers; a multiple of 4.
            blocks: number of transformer blocks.
            class_token: whether to process the backbone's class token. The backbone's output then cannot be cached as
                maps.

        Raises:
            ConfigError: a size is invalid.
        """
        super().__init__()
        require_sizes("locus", dim=dim, width=width)
        require_sizes("locus", 100, blocks=blocks)
        if width % self.heads:
            raise ConfigError(f"locus: `width` must be a multiple of {self.heads}, found {width}")
        self.dim, self.needs_token = dim, class_token
        self.layers = nn.Sequential(
            nn.Linear(inputs, width),
            *(Block(width, self.heads, 4 * width, scale=0.125) for _ in range(blocks)),
            nn.Linear(width, dim),
        )

    def forward(self, features: Tensor, images: Tensor | None = None, token: Tensor | None = None) -> Tensor:
        tokens = features.flatten(2).transpose(1, 2)
        if self.needs_token:
            tokens = self.layers(torch.cat([token[:, None], tokens], dim=1))[:, 1:]
        else:
            tokens = self.layers(tokens)
        return to_grid(tokens, *features.shape[2:])


class ResidualMLP(Head):
    """A light head: a residual network of two layers that reads each patch alone or with its neighbours.

    Its last layer is initialised with zeros, so training starts from the backbone's features, or from their projection
    if ``dim`` is set. The convolution between the layers is as in SegFormer (Xie et al., NeurIPS 2021).
    """

    def __init__(self, inputs: int, hidden: int, dim: int | None = None, context: bool = False) -> None:
        """
        Args:
            inputs: channels of the backbone.
            hidden: channels between the two layers.
            dim: channels of the result; None for those of the backbone. If set, the shortcut is a learnt projection,
                which is initialised as a random orthogonal one.
            context: whether to mix each patch with its eight neighbours, by a depthwise convolution.
        """
        super().__init__()
        require_sizes("residual_mlp", hidden=hidden, dim=inputs if dim is None else dim)
        self.dim = inputs if dim is None else dim
        self.norm = nn.LayerNorm(inputs)
        self.expand, self.reduce = nn.Linear(inputs, hidden), nn.Linear(hidden, self.dim)
        self.mix = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden) if context else nn.Identity()
        self.shortcut = nn.Identity() if dim is None else nn.Linear(inputs, dim, bias=False)
        nn.init.zeros_(self.reduce.weight)
        nn.init.zeros_(self.reduce.bias)
        if isinstance(self.shortcut, nn.Linear):
            nn.init.orthogonal_(self.shortcut.weight)

    def forward(self, features: Tensor, images: Tensor | None = None, token: Tensor | None = None) -> Tensor:
        x = features.permute(0, 2, 3, 1)
        y = self.mix(self.expand(self.norm(x)).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return (self.shortcut(x) + self.reduce(F.gelu(y))).permute(0, 3, 1, 2)


class Linear(Head):
    """A linear map of the features of each patch: trained, or set to a projection to principal components
    (:mod:`loco.training.pca`).
    """

    def __init__(self, inputs: int, dim: int) -> None:
        """
        Args:
            inputs: channels of the backbone.
            dim: channels of the result; the map is initialised as a random orthogonal projection.
        """
        super().__init__()
        require_sizes("linear", dim=dim)
        self.dim = dim
        self.layer = nn.Linear(inputs, dim)
        nn.init.orthogonal_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def forward(self, features: Tensor, images: Tensor | None = None, token: Tensor | None = None) -> Tensor:
        return self.layer(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


HEADS: dict[str, type[Head]] = {
    "linear": Linear,
    "locus": LocusHead,
    "residual_cnn": ResidualCNN,
    "residual_mlp": ResidualMLP,
}


def build_head(config: Mapping[str, Any], inputs: int, stride: int) -> Head:
    """Build the head of a configuration: ``name``, a key of :data:`HEADS`, and its options.

    Args:
        config: as in an experiment's ``model.head``.
        inputs: channels of the backbone.
        stride: pixels of the backbone's input per patch.

    Raises:
        ConfigError: unknown name or options.
    """
    name, options = config.get("name"), {key: value for key, value in config.items() if key != "name"}
    if name not in HEADS:
        raise ConfigError(f"unknown head {name!r}; expected one of: {', '.join(sorted(HEADS))}")
    fixed = {"inputs": inputs, **({"stride": stride} if name == "residual_cnn" else {})}
    return construct_network(f"head {name!r}", HEADS[name], options, **fixed)
