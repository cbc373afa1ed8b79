"""Feature extractors, which map an image to one L2-normalised feature per patch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
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
from loco.models.options import MAX_STRIDE, require_sizes
from loco.models.parts import Encoder, Encoding, Head
from loco.models.upsample import Upsampler


class Extractor(nn.Module):
    """An encoder with an optional head and an optional upsampler; handles padding, resizing, the grid of features,
    normalisation and metadata.

    Attributes:
        dim: channels of the features.
        map_stride: stride of the maps of the encoder and the head, pixels.
        upsampler: computes features of a smaller stride from the maps (:func:`loco.models.build.add_upsampler`); None
            for none.
        token_dim: channels of the class token, 0 if the encoder has none (:meth:`with_class_token`).
        config: configuration from which :func:`loco.models.build_extractor` builds this extractor.
        facts: facts about its training, as stated in its model file.
    """

    def __init__(
        self,
        encoder: Encoder,
        head: Head | None = None,
        stride: int | None = None,
        config: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """
        Args:
            encoder: the network applied to the images.
            head: the network applied to the encoder's features; None for none.
            stride: stride of the maps in pixels. If it differs from that of the encoder, images are resized
                accordingly. None for the stride of the encoder.
            config: see above.

        Raises:
            ConfigError: the stride is not an integer from 1 to 1024.
        """
        super().__init__()
        self.encoder, self.head = encoder, head
        self.map_stride = encoder.stride if stride is None else stride
        require_sizes("model", MAX_STRIDE, stride=self.map_stride)
        self.upsampler: Upsampler | None = None
        self.dim = head.dim if head else encoder.dim
        self.token_dim = encoder.token_dim
        self.config, self.facts = config, MappingProxyType({})
        self.train()

    def train(self, mode: bool = True) -> Self:
        """Set the mode. Frozen parts stay in evaluation mode, so the statistics of their batch norms do not change."""
        if not self.trainable_parameters:
            return super().train(False)
        super().train(mode)
        for module in self.modules():
            parameters = list(module.parameters())
            if parameters and not any(parameter.requires_grad for parameter in parameters):
                module.eval()
        return self

    @property
    def stride(self) -> int:
        """The output stride in pixels."""
        return self.upsampler.stride if self.upsampler else self.map_stride

    @property
    def frozen_encoder(self) -> bool:
        """Whether the encoder is frozen and the head needs no class token, so that the encoder's maps can be cached."""
        trained = any(parameter.requires_grad for parameter in self.encoder.parameters())
        return not trained and not (self.head and self.head.needs_token)

    @property
    def needs_images(self) -> bool:
        """Whether the head or the upsampler needs the images in addition to the encoder's maps."""
        return self.upsampler is not None or (self.head is not None and self.head.needs_images)

    def forward(self, images: Tensor | None, encoded: Tensor | None = None) -> Tensor:
        """Return L2-normalised features (b, dim, h, w); arguments and errors as for :meth:`raw`."""
        return F.normalize(self.raw(images, encoded), dim=1)

    def raw(self, images: Tensor | None, encoded: Tensor | None = None) -> Tensor:
        """Return the features of images, before L2 normalisation.

        Images are padded below and on the right with their last pixels, to whole patches; the result contains all cells
        that overlap with the image. For any size, cell (r, q) is centred at pixel ((q + 0.5) stride, (r + 0.5) stride).

        Args:
            images: (b, 3, H, W) float RGB colours in [0, 1]. May be None if ``encoded`` is passed and ``needs_images``
                is false.
            encoded: stored maps of :meth:`encode` for these images, with any floating-point dtype; the encoder is then
                not run.

        Returns:
            (b, dim, h, w) float32; (h, w) = :meth:`grid` of (H, W).

        Raises:
            ValueError: the images have another shape, or the stored maps do not fit them.
        """
        if encoded is None:
            return self.decode(self.encode(images), images)
        if images is not None and tuple(encoded.shape[2:]) != grid_size(_size(images), self.map_stride):
            raise ValueError(_mismatch(encoded, images, self.map_stride))
        return self.decode(Encoding(encoded), images)

    def with_class_token(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features of :meth:`raw` for images (b, 3, H, W), and their class tokens (b, token_dim) float32."""
        encoding = self.encode(images)
        token = images.new_empty(len(images), 0) if encoding.token is None else encoding.token
        return self.decode(encoding, images), token.float()

    def encode(self, images: Tensor) -> Encoding:
        """Return the encoder's output for images (b, 3, H, W): maps (b, encoder.dim, h, w) of stride ``map_stride``.

        Raises:
            ValueError: the images have another shape, or the encoder returns a grid that does not match its stride.
        """
        rows, columns = grid_size(_size(images), self.map_stride)
        prepared = self._prepared(images)
        maps, token = self.encoder(prepared)
        if any(side != cells * self.encoder.stride for side, cells in zip(prepared.shape[2:], maps.shape[2:])):
            raise ValueError(_mismatch(maps, prepared, self.encoder.stride))
        return Encoding(maps[:, :, :rows, :columns], token)

    def decode(self, encoding: Encoding, images: Tensor | None = None) -> Tensor:
        """Apply the head and the upsampler to an output of :meth:`encode`, and return features (b, dim, h, w) float32.

        Args:
            encoding: output of :meth:`encode`, of any floating-point dtype.
            images: the images that were encoded, (b, 3, H, W); may be None if ``needs_images`` is false.
        """
        maps = encoding.maps.float()
        if self.head is not None:
            prepared = self._prepared(images) if self.head.needs_images else None
            token = encoding.token.float() if self.head.needs_token else None
            maps = self.head(maps, prepared, token).float()
        return self.upsampler(maps, images).float() if self.upsampler else maps

    def _prepared(self, images: Tensor) -> Tensor:
        """Pad images to whole patches, and resize them such that a patch has the encoder's stride."""
        height, width = _size(images)
        multiple = self.map_stride * self.encoder.cells
        images = F.pad(images, (0, -width % multiple, 0, -height % multiple), mode="replicate")
        wanted = self.encoder.stride
        if wanted == self.map_stride:
            return images
        size = [side // self.map_stride * wanted for side in images.shape[2:]]
        return F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=wanted < self.map_stride)

    @torch.no_grad()  # not inference mode, whose tensors cannot be inputs of a network in training
    def extract(
        self, images: NDArray[np.uint8] | Tensor | Iterable[NDArray[np.uint8] | Tensor], batch: int = 16
    ) -> Tensor:
        """Return L2-normalised features of 8-bit images, computed in evaluation mode. The mode is restored afterwards.

        Args:
            images: 8-bit RGB, as arrays, tensors or PIL images: one (H, W, 3), a batch (b, H, W, 3), or several of
                equal size.
            batch: number of images that pass through the network together.

        Returns:
            (b, dim, h, w) float32, b = 1 for one image; (h, w) = :meth:`grid` of (H, W).

        Raises:
            TypeError: a path was passed instead of an image.
            ValueError: the images have other shapes or unequal sizes, or are not 8-bit.
        """
        parts = _as_batch(images).split(batch)
        with evaluating(self):
            return torch.cat([self(to_colours(part, self.device)) for part in parts])

    @property
    def device(self) -> torch.device:
        """The device of the weights; the CPU if there are none."""
        return next((tensor.device for tensor in chain(self.parameters(), self.buffers())), torch.device("cpu"))

    def grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return (rows, columns) of the features of an image of ``size`` (height, width).

        Feature (r, q) is centred at pixel ((q + 0.5) stride, (r + 0.5) stride), (0, 0) being the top-left corner.
        """
        return grid_size(size, self.stride)

    @property
    def trainable_parameters(self) -> int:
        """The number of parameters that training changes."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put a network in evaluation mode within this context; restore the mode of each of its modules afterwards."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def to_colours(images: NDArray[np.uint8] | Tensor, device: torch.device | str) -> Tensor:
    """Convert 8-bit images (b, H, W, 3) to the input of an extractor: (b, 3, H, W) float32 in [0, 1]."""
    return torch.as_tensor(images).to(device).permute(0, 3, 1, 2).float() / 255


def _size(images: Tensor) -> tuple[int, int]:
    """Return the (height, width) of images (b, 3, H, W)."""
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"images must have the shape (b, 3, H, W), found {tuple(images.shape)}")
    return images.shape[2], images.shape[3]


def _mismatch(maps: Tensor, images: Tensor, stride: int) -> str:
    return (
        f"maps of {tuple(maps.shape[2:])} cells do not fit images of {tuple(images.shape[2:])} pixels at a stride of "
        f"{stride}"
    )


def _as_batch(images: NDArray[np.uint8] | Tensor | Iterable[NDArray[np.uint8] | Tensor]) -> Tensor:
    """Stack images to a batch (b, H, W, 3), uint8."""
    if isinstance(images, np.ndarray | Tensor) or hasattr(images, "__array_interface__"):
        batch = _as_tensor(images)
    else:
        several = [_as_tensor(image) for image in ([images] if isinstance(images, str | Path) else images)]
        sizes = sorted({str(tuple(image.shape)) for image in several})
        if len(sizes) > 1:
            raise ValueError(
                f"images of different sizes ({', '.join(sizes)}) cannot form a batch: extract them separately"
            )
        batch = torch.stack(several) if several else torch.empty(0)
    batch = batch[None] if batch.ndim == 3 else batch
    if batch.ndim != 4 or batch.shape[3] != 3 or batch.dtype != torch.uint8:
        raise ValueError(
            f"images of shape {tuple(batch.shape)} and type {str(batch.dtype).removeprefix('torch.')} are not "
            "supported: "
            "expected uint8 RGB (H, W, 3) or (b, H, W, 3); pass float images in [0, 1] to the module itself"
        )
    return batch


def _as_tensor(images: object) -> Tensor:
    if isinstance(images, str | Path):
        raise TypeError(
            f"{str(images)!r} is a path, not an image: read the file first (note that cv2.imread returns BGR, not RGB)"
        )
    # A copy: PyTorch does not support negative strides (BGR reversed to RGB), and warns about read-only arrays.
    return images if isinstance(images, Tensor) else torch.from_numpy(np.array(images))
