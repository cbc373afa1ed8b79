"""What every feature extractor is: images in, one unit feature a patch out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from loco.geometry.patches import grid_size


class FeatureExtractor(nn.Module):
    """Base of all extractors. Subclasses set ``dim`` and ``stride`` and implement :meth:`maps`.

    ``stride`` is the number of pixels of the input along the side of a cell of the map; ``multiple`` divides the height
    and the width of the images that :meth:`maps` takes (a multiple of the stride, and the stride unless it is set).
    ``token_dim`` is the length of its class token, 0 if it has none (:meth:`with_class_token`).
    ``config`` is what :func:`loco.models.build_extractor` can make it from; of a model that was there already, its own.
    ``facts`` is what its file says of its making.
    """

    dim: int
    stride: int
    multiple: int = 0
    token_dim: int = 0
    config: Mapping[str, Any] = MappingProxyType({})
    facts: Mapping[str, Any] = MappingProxyType({})

    def maps(self, images: Tensor) -> Tensor:
        """(b, 3, H, W) colours in [0, 1] to (b, dim, H / stride, W / stride), of any length."""
        raise NotImplementedError

    def train(self, mode: bool = True) -> Self:
        """Training mode, but for an extractor that has nothing to train: its batch norms are to stay as they are."""
        return super().train(mode and self.trainable_parameters > 0)

    @property
    def frozen_encoder(self) -> bool:
        """Whether what comes before :meth:`decode` is never trained, so that it can be stored."""
        return False

    @property
    def needs_images(self) -> bool:
        """Whether :meth:`decode` looks at the images."""
        return True

    def encode(self, images: Tensor) -> Tensor:
        """The frozen part of :meth:`maps`: its images to (b, C, h', w')."""
        raise NotImplementedError(f"{type(self).__name__} has no frozen encoder")

    def decode(self, encoded: Tensor, images: Tensor | None) -> Tensor:
        """The rest of :meth:`maps`: what :meth:`encode` gave, and the images where they are needed."""
        raise NotImplementedError(f"{type(self).__name__} has no frozen encoder")

    def forward(self, images: Tensor | None, encoded: Tensor | None = None) -> Tensor:
        """Unit features of images: :meth:`raw` ones, each divided by its length. Arguments and errors are the same."""
        return F.normalize(self.raw(images, encoded), dim=1)

    def raw(self, images: Tensor | None, encoded: Tensor | None = None) -> Tensor:
        """Features of images, of any length.

        Images are continued below and on the right, by their last pixels, to what :meth:`maps` takes; of the map those
        cells stay that hold any part of the image. So cell (r, q) is centred at pixel ((q + 0.5) stride,
        (r + 0.5) stride), whatever the size.

        Args:
            images: (b, 3, H, W) float colours in [0, 1]. None where ``encoded`` is given and ``needs_images`` is false.
            encoded: what :meth:`encode` gives for them, if it was stored.

        Returns:
            (b, dim, h, w), float32; (h, w) = :func:`loco.geometry.patches.grid_size`.

        Raises:
            ValueError: wrong shape.
        """
        if images is None:
            return self.decode(encoded.float(), None).float()
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images of shape {tuple(images.shape)} do not fit: expected (b, 3, H, W)")
        rows, columns = grid_size(tuple(images.shape[2:]), self.stride)
        images = self.continued(images)
        maps = self.maps(images) if encoded is None else self.decode(encoded.float(), images)
        if maps.shape[2:] != (images.shape[2] // self.stride, images.shape[3] // self.stride):
            raise ValueError(
                f"maps of {tuple(maps.shape[2:])} cells do not fit images of {tuple(images.shape[2:])} pixels at a "
                f"stride of {self.stride}"
            )
        return maps[:, :, :rows, :columns].float()

    def with_class_token(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What :meth:`raw` gives for images, and the backbone's class token of each, (b, token_dim)."""
        return self.raw(images), images.new_empty(len(images), 0)

    def continued(self, images: Tensor) -> Tensor:
        """Images (b, 3, H, W) with their last pixels repeated below and on the right, to multiples of ``multiple``."""
        height, width = images.shape[2:]
        multiple = self.multiple or self.stride
        return F.pad(images, (0, -width % multiple, 0, -height % multiple), mode="replicate")

    @torch.no_grad()  # no inference mode: its tensors would be no input to a network that learns
    def extract(
        self, images: NDArray[np.uint8] | Tensor | Iterable[NDArray[np.uint8] | Tensor], batch: int = 16
    ) -> Tensor:
        """Unit features of photographs, in evaluation mode.

        Args:
            images: 8-bit RGB, arrays, tensors or pictures of PIL: one (H, W, 3), a batch (b, H, W, 3), or several of
                one size.
            batch: how many go through the network at a time.

        Returns:
            (b, dim, h, w), b = 1 for one image; (h, w) = :meth:`grid` of (H, W).

        Raises:
            TypeError: paths.
            ValueError: other shapes, unequal sizes, not 8-bit.
        """
        self.eval()
        parts = _as_batch(images).split(batch)
        return torch.cat([self(to_colours(part, self.device)) for part in parts])

    @property
    def device(self) -> torch.device:
        """Where the weights lie; the CPU if there are none."""
        return next((tensor.device for tensor in chain(self.parameters(), self.buffers())), torch.device("cpu"))

    def grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """(rows, columns) of the features of an image of ``size`` (height, width).

        Feature (r, q) is centred at pixel ((q + 0.5) stride, (r + 0.5) stride), (0, 0) being the top-left corner.
        """
        return grid_size(size, self.stride)

    @property
    def trainable_parameters(self) -> int:
        return sum(p.numel() for p in self.parameters() if p.requires_grad)


def to_colours(images: NDArray[np.uint8] | Tensor, device: torch.device | str) -> Tensor:
    """8-bit images (b, H, W, 3) as the extractors' input: (b, 3, H, W) float32 in [0, 1]."""
    return torch.as_tensor(images).to(device).permute(0, 3, 1, 2).float() / 255


def _as_batch(images: NDArray[np.uint8] | Tensor | Iterable[NDArray[np.uint8] | Tensor]) -> Tensor:
    """(b, H, W, 3) uint8."""
    if isinstance(images, np.ndarray | Tensor) or hasattr(images, "__array_interface__"):
        batch = _as_tensor(images)
    else:
        several = [_as_tensor(image) for image in ([images] if isinstance(images, str | Path) else images)]
        sizes = sorted({str(tuple(image.shape)) for image in several})
        if len(sizes) > 1:
            raise ValueError(f"images of unequal size ({', '.join(sizes)}) make no batch: extract them one by one")
        batch = torch.stack(several) if several else torch.empty(0)
    batch = batch[None] if batch.ndim == 3 else batch
    if batch.ndim != 4 or batch.shape[3] != 3 or batch.dtype != torch.uint8:
        raise ValueError(
            f"images of shape {tuple(batch.shape)} and type {str(batch.dtype).removeprefix('torch.')} do not fit: "
            "expected 8-bit colours (H, W, 3) or (b, H, W, 3); colours in [0, 1] go to the module itself"
        )
    return batch


def _as_tensor(images: NDArray[np.uint8] | Tensor) -> Tensor:
    if isinstance(images, str | Path):
        raise TypeError(f"{str(images)!r} is a path, not an image: read the file first (cv2.imread gives BGR, not RGB)")
    # A copy: PyTorch takes no reversed arrays (BGR turned to RGB), and warns of read-only ones.
    return images if isinstance(images, Tensor) else torch.from_numpy(np.array(images))
