"""Pretrained backbones: their base class, short names, and :func:`build_backbone`.

The kinds are in :mod:`loco.models.transformers_backbone`, :mod:`loco.models.timm_backbone`,
:mod:`loco.models.croco` and :mod:`loco.models.onnx_backbone`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from loco.errors import ConfigError
from loco.models.catalogue import BACKBONES, find
from loco.models.options import construct
from loco.models.parts import Encoder

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Known:
    """A backbone with a short name: its name on the Hugging Face hub, and the stride and channels of its last layer."""

    hub: str
    stride: int
    dim: int
    licence: str


# DINO: Caron et al. (ICCV 2021). DINOv2: Oquab et al. (TMLR 2024); registers: Darcet et al. (ICLR 2024). DINOv3:
# Simeoni et al. (arXiv:2508.10104); its licence must be accepted on the hub first. C-RADIOv4: arXiv:2601.17237.
# SigLIP 2: Tschannen et al. (arXiv:2502.14786). TIPSv2: Cao et al. (CVPR 2026). ResNet: He et al. (CVPR 2016).
KNOWN: dict[str, Known] = {
    "dino_vits8": Known("facebook/dino-vits8", 8, 384, "Apache-2.0"),
    "dino_vitb8": Known("facebook/dino-vitb8", 8, 768, "Apache-2.0"),
    "dino_vits16": Known("facebook/dino-vits16", 16, 384, "Apache-2.0"),
    "dino_vitb16": Known("facebook/dino-vitb16", 16, 768, "Apache-2.0"),
    "dinov2_vits14": Known("facebook/dinov2-small", 14, 384, "Apache-2.0"),
    "dinov2_vitb14": Known("facebook/dinov2-base", 14, 768, "Apache-2.0"),
    "dinov2_vitl14": Known("facebook/dinov2-large", 14, 1024, "Apache-2.0"),
    "dinov2_vits14_reg": Known("facebook/dinov2-with-registers-small", 14, 384, "Apache-2.0"),
    "dinov2_vitb14_reg": Known("facebook/dinov2-with-registers-base", 14, 768, "Apache-2.0"),
    "dinov2_vitl14_reg": Known("facebook/dinov2-with-registers-large", 14, 1024, "Apache-2.0"),
    "dinov3_vits16": Known("facebook/dinov3-vits16-pretrain-lvd1689m", 16, 384, "DINOv3 (gated)"),
    "dinov3_vitb16": Known("facebook/dinov3-vitb16-pretrain-lvd1689m", 16, 768, "DINOv3 (gated)"),
    "dinov3_vitl16": Known("facebook/dinov3-vitl16-pretrain-lvd1689m", 16, 1024, "DINOv3 (gated)"),
    "cradiov4_so400m16": Known("nvidia/C-RADIOv4-SO400M", 16, 1152, "NVIDIA Open Model"),
    "cradiov4_vith16": Known("nvidia/C-RADIOv4-H", 16, 1280, "NVIDIA Open Model"),
    "siglip2_vitb16": Known("google/siglip2-base-patch16-512", 16, 768, "Apache-2.0"),
    "siglip2_vitl16": Known("google/siglip2-large-patch16-512", 16, 1024, "Apache-2.0"),
    "siglip2_so400m16": Known("google/siglip2-so400m-patch16-512", 16, 1152, "Apache-2.0"),
    "tipsv2_vitb14": Known("google/tipsv2-b14", 14, 768, "Apache-2.0"),
    "tipsv2_vitl14": Known("google/tipsv2-l14", 14, 1024, "Apache-2.0"),
    "tipsv2_so400m14": Known("google/tipsv2-so400m14", 14, 1152, "Apache-2.0"),
    "tipsv2_vitg14": Known("google/tipsv2-g14", 14, 1536, "Apache-2.0"),
    "resnet50": Known("microsoft/resnet-50", 32, 2048, "Apache-2.0"),
}


class Backbone(Encoder):
    """Base class of backbones. The ``forward`` of a subclass begins with :meth:`normalised`.

    ``blocks`` are the transformer blocks that are run, first to last, and ``embedding`` the modules before them; they
    determine what is frozen, adapted or trained. The linear layers of a block are those of its attention and its MLP.
    ``blocks`` is empty for a network without such blocks.

    Attributes:
        trainable: whether the weights can be trained.
    """

    mean: Tensor
    std: Tensor
    trainable: bool = True

    def __init__(self, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD) -> None:
        """
        Args:
            mean, std: mean and standard deviation of the three colours in [0, 1], which normalise the inputs of the
                network.
        """
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(3, 1, 1), persistent=False)
        self.blocks = nn.ModuleList()

    @property
    def embedding(self) -> list[nn.Module]:
        """The modules before the first block."""
        return []

    def normalised(self, images: Tensor) -> Tensor:
        """Normalise RGB colours (b, 3, H, W) in [0, 1] with the mean and standard deviation used in pretraining.

        Raises:
            ValueError: wrong shape; H and W must be multiples of ``cells * stride``.
        """
        multiple = self.cells * self.stride
        if images.ndim != 4 or images.shape[1] != 3 or any(side % multiple for side in images.shape[2:]):
            raise ValueError(
                f"images must have the shape (b, 3, H, W), with H and W multiples of {multiple}; found "
                f"{tuple(images.shape)}"
            )
        return (images - self.mean) / self.std


def build_backbone(config: Mapping[str, Any]) -> Backbone:
    """Build the backbone of a configuration (``name``, the kind, and its options), in evaluation mode.

    The kinds are ``transformers`` (:func:`loco.models.transformers_backbone.load_transformers`), ``timm``
    (:func:`loco.models.timm_backbone.load_timm`), ``croco`` (:func:`loco.models.croco.load_croco`) and ``onnx``
    (:class:`loco.models.onnx_backbone.OnnxBackbone`).

    Raises:
        ConfigError: unknown kind, option, layer or facet.
        DataError: the weights are missing, cannot be downloaded, are damaged or belong to another network.
    """
    name, options = config.get("name"), {key: value for key, value in config.items() if key != "name"}
    return construct(f"backbone {name!r}", find(BACKBONES, name, "kind of backbone").load(), options).eval()


def check_layer(layer: int | None, count: int, what: str) -> int:
    """Return ``layer``, or the last layer if it is None; layers are counted from 1.

    Raises:
        ConfigError: there is no such layer.
    """
    layer = count if layer is None else layer
    if not 1 <= layer <= count:
        raise ConfigError(f"{what} has no layer {layer}: its layers are 1 to {count}")
    return layer


def to_grid(tokens: Tensor, height: int, width: int) -> Tensor:
    """Reshape tokens (b, height * width, c), in row-major order, to maps (b, c, height, width)."""
    return tokens.transpose(1, 2).unflatten(2, (height, width))
