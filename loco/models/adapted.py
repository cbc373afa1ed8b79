"""Extractors that stand on a backbone: what of it is trained, and the head on top."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loco.errors import ConfigError
from loco.models.backbones import Backbone, build_backbone, to_grid
from loco.models.extractor import FeatureExtractor
from loco.models.heads import build_head
from loco.provenance import file_fingerprint

Train = str | Mapping[str, Any]


class AdaptedBackbone(FeatureExtractor):
    """The features of a backbone, of which nothing, a part or all is trained, through a head or as they are.

    What is not trained is always in evaluation mode. ``maps`` is ``decode`` of ``encode``: where the encoder is frozen
    (``frozen_encoder``), its maps of an image that does not change may be kept and only decoded at each step.
    """

    def __init__(
        self,
        backbone: Mapping[str, Any],
        stride: int,
        train: Train = "none",
        head: Mapping[str, Any] | None = None,
    ) -> None:
        """
        Args:
            backbone: for :func:`loco.models.backbones.build_backbone`.
            stride: pixels of the image a feature. Where it is not the backbone's, the image is resized in that
                proportion before the backbone sees it.
            train: what of the backbone is trained: ``none``; ``{last: k}``, the last k blocks and what follows them;
                ``{lora: {rank, last, rslora, alpha}}``, low-rank changes of all linear layers of the last blocks (see
                :func:`add_lora`); ``all``.
            head: for :func:`loco.models.heads.build_head`; None for the features as they are.

        Raises:
            ConfigError: the backbone has not that many blocks, or nothing that could be trained.
        """
        super().__init__()
        self.stride = stride
        self.backbone = build_backbone(backbone)
        self.source = str(backbone.get("path"))
        self._pretrained = backbone.get("pretrained", True)
        set_trained(self.backbone, train)
        self.head = build_head(head, self.backbone.dim, self.backbone.stride) if head else None
        self.dim = self.head.dim if self.head else self.backbone.dim
        self.token_dim = self.backbone.dim if hasattr(self.backbone, "tokens") else 0
        if self._class_token and not self.token_dim:
            raise ConfigError(
                f"a backbone of the kind {backbone['name']!r} has no class token; set `class_token: false`"
            )
        self.train()

    @property
    def frozen_encoder(self) -> bool:
        """Whether :meth:`encode` gives maps that training does not change."""
        return not self._trained and not self._class_token

    @property
    def needs_images(self) -> bool:
        """Whether :meth:`decode` looks at the images."""
        return self.head is not None and self.head.needs_images

    def maps(self, images: Tensor) -> Tensor:
        return self.decode(self.encode(images), images)

    def encode(self, images: Tensor) -> Tensor:
        """The backbone's features.

        Args:
            images: (b, 3, H, W) colours in [0, 1]; H and W are multiples of ``stride``.

        Returns:
            (b, c, H / stride, W / stride); for a head that takes the class token, one row more, filled with it.
        """
        with nullcontext() if self._trained else torch.no_grad():
            images = self._resize(images)
            return self._encode_with_class_token(images) if self._class_token else self.backbone(images)

    def decode(self, encoded: Tensor, images: Tensor | None = None) -> Tensor:
        """Features from what :meth:`encode` gave for ``images``, which only some heads need (``needs_images``).

        ``encoded`` may be kept in half precision. Returns (b, dim, H / stride, W / stride).
        """
        if self.head is None:
            return encoded.float()
        return self.head(encoded.float(), self._resize(images) if self.needs_images else None)

    def with_class_token(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """:meth:`raw` features (b, dim, h, w), and the class token (b, token_dim) of the layer that is read."""
        if not self.token_dim:
            return super().with_class_token(images)
        joined = self._encode_with_class_token(self._resize(self.continued(images)))
        encoded = joined if self._class_token else joined[:, :, :-1]
        return self.raw(images, encoded), joined[:, :, -1, 0]

    def train(self, mode: bool = True) -> AdaptedBackbone:
        super().train(mode)
        for module in self.backbone.modules():
            parameters = list(module.parameters())
            if parameters and not any(p.requires_grad for p in parameters):
                module.eval()
        return self

    def frozen_weights(self) -> dict[str, Tensor]:
        """What of ``state_dict`` is as the backbone's own files have it; nothing where its weights began at random."""
        if not self._pretrained:
            return {}
        trained = {
            f"backbone.{name}." if name else "backbone."
            for name, module in self.backbone.named_modules()
            if any(p.requires_grad for p in module.parameters(recurse=False))
        }
        return {
            key: value
            for key, value in self.state_dict().items()
            if key.startswith("backbone.") and key.removesuffix(key.rpartition(".")[2]) not in trained
        }

    def fingerprint(self) -> str:
        """SHA-256 of the weights that are the backbone's own; of its file, where that is the network itself (ONNX)."""
        if not any(True for _ in self.backbone.parameters()):
            return file_fingerprint(self.source)
        digest = hashlib.sha256()
        for name, tensor in sorted(self.frozen_weights().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    @property
    def _trained(self) -> bool:
        return any(p.requires_grad for p in self.backbone.parameters())

    @property
    def _class_token(self) -> bool:
        return self.head is not None and self.head.class_token

    def _resize(self, images: Tensor) -> Tensor:
        """Images at the scale at which a patch of the backbone is a cell of the map; the sides in whole patches."""
        wanted = self.backbone.stride
        if wanted == self.stride:
            return images
        size = [side // self.stride * wanted for side in images.shape[2:]]
        return F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=wanted < self.stride)

    def _encode_with_class_token(self, images: Tensor) -> Tensor:
        tokens = self.backbone.tokens(self.backbone.normalised(images))
        height, width = (side // self.backbone.stride for side in images.shape[2:])
        patches = to_grid(tokens[:, -height * width :], height, width)
        token = tokens[:, 0, :, None, None].expand(-1, -1, 1, width)
        return torch.cat([patches, token], dim=2)


def set_trained(backbone: Backbone, train: Train) -> None:
    """Let gradients reach what is trained of a backbone, as :class:`AdaptedBackbone` describes, and nothing else.

    Raises:
        ConfigError: the backbone has not that many blocks, or nothing that could be trained.
    """
    if train != "none" and not any(True for _ in backbone.parameters()):
        raise ConfigError(f"this backbone cannot be trained; set `train: none`, found {train!r}")
    backbone.requires_grad_(train != "none")
    match train:
        case "none" | "all":
            return
        case {"last": int(last)}:
            _check_blocks(backbone, last)
            for module in (*backbone.embedding, *backbone.blocks[: len(backbone.blocks) - last]):
                module.requires_grad_(False)
        case {"lora": dict(settings)}:
            backbone.requires_grad_(False)
            add_lora(backbone, **settings)
        case _:
            raise ConfigError(f"`train` of a backbone is none, all, {{last: k}} or {{lora: ...}}, found {train!r}")


def add_lora(backbone: Backbone, rank: int, last: int, rslora: bool = False, alpha: float = 8) -> None:
    """Give each linear layer of the last blocks a trained change of low rank (LoRA: Hu et al., ICLR 2022; by peft).

    Args:
        backbone: changed in place.
        rank: of the changes.
        last: how many blocks, counted from the last.
        rslora: scale the changes by alpha / sqrt(rank) (Kalajdzievski, 2023), not by alpha / rank.
        alpha: see ``rslora``.

    Raises:
        ConfigError: the backbone has not that many blocks.
    """
    from peft import LoraConfig, inject_adapter_in_model  # slow to import

    _check_blocks(backbone, last)
    layers = [
        f"blocks.{number}.{name}"
        for number, block in list(enumerate(backbone.blocks))[-last:]
        for name, module in block.named_modules()
        if isinstance(module, nn.Linear)
    ]
    # One pattern of whole names: a list would be taken for the ends of names.
    pattern = "|".join(re.escape(name) for name in layers)
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=alpha, use_rslora=rslora, target_modules=pattern), backbone)


def _check_blocks(backbone: Backbone, last: int) -> None:
    if not 1 <= last <= len(backbone.blocks):
        raise ConfigError(
            f"the last {last} blocks cannot be trained: this backbone runs {len(backbone.blocks)} transformer blocks"
        )
