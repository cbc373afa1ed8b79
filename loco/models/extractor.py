"""What every feature extractor is: images in, one unit feature a patch out."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F


class FeatureExtractor(nn.Module):
    """Base of all extractors. Subclasses set ``dim`` and ``stride`` and implement :meth:`maps`.

    ``stride`` is the number of pixels of the input along the side of a cell of the map.
    """

    dim: int
    stride: int

    def maps(self, images: Tensor) -> Tensor:
        """(b, 3, H, W) colours in [0, 1] to (b, dim, H / stride, W / stride), of any length."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        """Unit features of images.

        Args:
            images: (b, 3, H, W) float colours in [0, 1]; H and W are multiples of ``stride``.

        Returns:
            (b, dim, H / stride, W / stride), unit length along ``dim``.

        Raises:
            ValueError: wrong shape.
        """
        if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] % self.stride or images.shape[3] % self.stride:
            raise ValueError(
                f"images of shape {tuple(images.shape)} do not fit: expected (b, 3, H, W) with H and W multiples of "
                f"{self.stride}"
            )
        return F.normalize(self.maps(images).float(), dim=1)

    @torch.inference_mode()
    def extract(self, images: NDArray[np.uint8] | Iterable[NDArray[np.uint8]]) -> Tensor:
        """Unit features of 8-bit colour images (b, H, W, 3), as (b, dim, h, w); in evaluation mode."""
        self.eval()
        batch = torch.from_numpy(np.stack(list(images)))
        device = next((p.device for p in self.parameters()), torch.device("cpu"))
        return self(batch.to(device).permute(0, 3, 1, 2).float() / 255)

    @property
    def trainable_parameters(self) -> int:
        return sum(p.numel() for p in self.parameters() if p.requires_grad)
