"""What every feature extractor is: images in, one unit feature a patch out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

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
    ``config`` is what the extractor was built from and ``facts`` what its file says of its making, where
    :func:`loco.models.pretrained.load` gave it.
    """

    dim: int
    stride: int
    multiple: int = 0
    config: Mapping[str, Any] | None = None
    facts: Mapping[str, Any] = MappingProxyType({})

    def maps(self, images: Tensor) -> Tensor:
        """(b, 3, H, W) colours in [0, 1] to (b, dim, H / stride, W / stride), of any length."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        """Unit features of images.

        Images are continued below and on the right, by their last pixels, to what :meth:`maps` takes; of the map those
        cells stay that hold any part of the image. So cell (r, q) is centred at pixel ((q + 0.5) stride,
        (r + 0.5) stride), whatever the size.

        Args:
            images: (b, 3, H, W) float colours in [0, 1].

        Returns:
            (b, dim, h, w), unit length along ``dim``; (h, w) = :func:`loco.geometry.patches.grid_size`.

        Raises:
            ValueError: wrong shape.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images of shape {tuple(images.shape)} do not fit: expected (b, 3, H, W)")
        height, width = images.shape[2:]
        rows, columns = grid_size((height, width), self.stride)
        multiple = self.multiple or self.stride
        images = F.pad(images, (0, -width % multiple, 0, -height % multiple), mode="replicate")
        maps = self.maps(images)
        if maps.shape[2:] != (images.shape[2] // self.stride, images.shape[3] // self.stride):
            raise ValueError(
                f"maps of {tuple(maps.shape[2:])} cells do not fit images of {tuple(images.shape[2:])} pixels at a stride "
                f"of {self.stride}"
            )
        return F.normalize(maps[:, :, :rows, :columns].float(), dim=1)

    @torch.inference_mode()
    def extract(self, images: NDArray[np.uint8] | Tensor | Iterable[NDArray[np.uint8] | Tensor]) -> Tensor:
        """Unit features of photographs, in evaluation mode.

        Args:
            images: 8-bit RGB, arrays or tensors: one (H, W, 3), a batch (b, H, W, 3), or several of one size.

        Returns:
            (b, dim, h, w), b = 1 for one image; (h, w) = :meth:`grid` of (H, W).

        Raises:
            ValueError: other shapes, unequal sizes, not 8-bit.
        """
        self.eval()
        device = next((p.device for p in self.parameters()), torch.device("cpu"))
        return self(_as_batch(images).to(device).permute(0, 3, 1, 2).float() / 255)

    def grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """(rows, columns) of the features of an image of ``size`` (height, width).

        Feature (r, q) is centred at pixel ((q + 0.5) stride, (r + 0.5) stride), (0, 0) being the top-left corner.
        """
        return grid_size(size, self.stride)

    @property
    def trainable_parameters(self) -> int:
        return sum(p.numel() for p in self.parameters() if p.requires_grad)


def _as_batch(images: NDArray[np.uint8] | Tensor | Iterable[NDArray[np.uint8] | Tensor]) -> Tensor:
    """(b, H, W, 3) uint8."""
    if not isinstance(images, np.ndarray | Tensor):
        images = [torch.as_tensor(image) for image in images]
        if len({image.shape for image in images}) > 1:
            sizes = ", ".join(sorted({str(tuple(image.shape)) for image in images}))
            raise ValueError(f"images of unequal size ({sizes}) make no batch: extract them one by one, or resize them")
        images = torch.stack(images) if images else torch.empty(0)
    batch = torch.as_tensor(images)
    batch = batch[None] if batch.ndim == 3 else batch
    if batch.ndim != 4 or batch.shape[3] != 3 or batch.dtype != torch.uint8:
        raise ValueError(
            f"images of shape {tuple(batch.shape)} and type {str(batch.dtype).removeprefix('torch.')} do not fit: "
            "expected 8-bit colours (H, W, 3) or (b, H, W, 3); colours in [0, 1] go to the module itself"
        )
    return batch
