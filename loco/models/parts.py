"""The parts of an extractor: an encoder maps images to feature maps, and a head maps these to other feature maps."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn


class Encoding(NamedTuple):
    """The output of an encoder: ``maps`` (b, dim, H / stride, W / stride), and a class token (b, token_dim) or None."""

    maps: Tensor
    token: Tensor | None = None


class Encoder(nn.Module):
    """Base class of encoders: ``encoder(images)`` returns an :class:`Encoding`.

    Images are (b, 3, H, W) float32 RGB colours in [0, 1]. H and W are multiples of ``cells * stride``.

    Attributes:
        dim: channels of the maps.
        stride: pixels of the input per cell of the maps.
        cells: rows and columns of the maps are multiples of this number.
        token_dim: channels of the class token; 0 if there is none.
    """

    dim: int
    stride: int
    cells: int = 1
    token_dim: int = 0


class Head(nn.Module):
    """Base class of heads: ``head(features, images, token)`` returns maps (b, dim, h, w) on the grid of the features.

    Features are (b, c, h, w) float32; images are (b, 3, H, W), as the encoder received them; the class token is (b, c).

    Attributes:
        dim: channels of the result.
        needs_images: whether the images are used; ``None`` is passed otherwise.
        needs_token: whether the class token is used.
    """

    dim: int
    needs_images: bool = False
    needs_token: bool = False
