"""Extractors with a backbone as encoder: the selection of its trained part, and the head on top."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import nn

from loco.errors import ConfigError
from loco.extras import named_extras
from loco.models.backbones import Backbone, build_backbone
from loco.models.extractor import Extractor
from loco.models.heads import build_head
from loco.models.options import construct, require_sizes

Train = str | Mapping[str, Any]


def adapted_backbone(
    backbone: Mapping[str, Any],
    stride: int,
    train: Train = "none",
    head: Mapping[str, Any] | None = None,
) -> Extractor:
    """Build an extractor on a backbone that is frozen, partly trained or fully trained.

    Args:
        backbone: for :func:`loco.models.backbones.build_backbone`.
        stride: output stride in pixels. If it differs from that of the backbone, images are resized accordingly.
        train: the trained part of the backbone: ``none``; ``{last: k}``, the last k blocks and all layers after them;
            ``{lora: {rank, last, rslora, alpha}}``, low-rank adapters of all linear layers of the last blocks
            (:func:`add_lora`); ``all``.
        head: for :func:`loco.models.heads.build_head`; None for the backbone's features.

    Raises:
        ConfigError: the backbone has fewer blocks than ``train`` requires, has no trainable parameters, or has no class
            token although the head requires one; or options are invalid.
    """
    encoder = build_backbone(backbone)
    set_trained(encoder, train)
    top = build_head(head, encoder.dim, encoder.stride) if head else None
    if top and top.needs_token and not encoder.token_dim:
        raise ConfigError(
            f"this backbone (type {backbone['name']!r}) has no class token, which the head requires; set `class_token: "
            "false` in `head`"
        )
    return Extractor(encoder, top, stride)


def set_trained(backbone: Backbone, train: Train) -> None:
    """Enable gradients for the trained part of a backbone (see :func:`adapted_backbone`), and disable all others.

    Raises:
        ConfigError: the backbone has fewer blocks than ``train`` requires, or no trainable parameters; or ``train`` is
            invalid.
    """
    if train != "none" and not (backbone.trainable and any(True for _ in backbone.parameters())):
        raise ConfigError(f"this backbone cannot be trained: set `train: none`, found {train!r}")
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
            construct("`train.lora`", add_lora, settings, backbone=backbone)
        case _:
            raise ConfigError(f"`train` of a backbone must be none, all, {{last: k}} or {{lora: ...}}, found {train!r}")


def add_lora(backbone: Backbone, rank: int, last: int, rslora: bool = False, alpha: float = 8) -> None:
    """Add a trainable low-rank adapter to each linear layer of the last blocks (LoRA: Hu et al., ICLR 2022; by peft).

    Args:
        backbone: modified in place.
        rank: rank of the adapters.
        last: number of blocks, counted from the last.
        rslora: whether to scale the adapters by alpha / sqrt(rank) (Kalajdzievski, 2023) instead of alpha / rank.
        alpha: scale of the adapters.

    Raises:
        ConfigError: the backbone has fewer blocks than ``last``, or fewer channels than ``rank``.
    """
    with named_extras():
        from peft import LoraConfig, inject_adapter_in_model  # slow to import

    _check_blocks(backbone, last)
    require_sizes("`train.lora`", backbone.dim, rank=rank)
    layers = [
        f"blocks.{number}.{name}"
        for number, block in list(enumerate(backbone.blocks))[-last:]
        for name, module in block.named_modules()
        if isinstance(module, nn.Linear)
    ]
    # A single pattern of full names, because peft treats the names of a list as suffixes.
    pattern = "|".join(re.escape(name) for name in layers)
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=alpha, use_rslora=rslora, target_modules=pattern), backbone)


def _check_blocks(backbone: Backbone, last: int) -> None:
    if not isinstance(last, int) or not 1 <= last <= len(backbone.blocks):
        raise ConfigError(
            f"the last {last} blocks cannot be trained: this backbone has {len(backbone.blocks)} transformer blocks; "
            f"{'set `last` to an integer from 1 to this number' if backbone.blocks else 'set `train: none` or `all`'}"
        )
