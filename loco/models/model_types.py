"""The types of models of transformers that are supported, and how each differs from the others.

A row of :data:`VISION_TRANSFORMERS` or :data:`HIERARCHIES` describes how a type differs from the others; :data:`PARTS`
lists the larger models that contain an image encoder of one of these types. Paths are attribute names of transformers,
joined by dots.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from loco.models.backbones import IMAGENET_MEAN, IMAGENET_STD

Config = Any  # a configuration of transformers; its attributes depend on the type
Inputs = Callable[[Config, Tensor], dict[str, Any]]
Colours = tuple[tuple[float, float, float], tuple[float, float, float]]

IMAGENET: Colours = (IMAGENET_MEAN, IMAGENET_STD)
CLIP: Colours = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
CENTRED: Colours = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
UNCHANGED: Colours = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def plain(config: Config, images: Tensor) -> dict[str, Any]:
    """Return the arguments of a network that accepts any size."""
    return {"pixel_values": images}


def interpolated(config: Config, images: Tensor) -> dict[str, Any]:
    """Return the arguments of a network that interpolates position embeddings on request."""
    return {"pixel_values": images, "interpolate_pos_encoding": True}


def in_order(config: Config, images: Tensor) -> dict[str, Any]:
    """Return the arguments of a masked autoencoder, which sorts the patches by ``noise``; here their order is kept."""
    count = math.prod(side // config.patch_size for side in images.shape[2:])
    noise = torch.arange(count, device=images.device, dtype=torch.float32).expand(len(images), -1)
    return {**interpolated(config, images), "noise": noise}


def flattened(config: Config, images: Tensor) -> dict[str, Any]:
    """Return the arguments of a network for images of different sizes: patches (b, n, values), no mask, grid sizes."""
    patch = config.patch_size
    height, width = (side // patch for side in images.shape[2:])
    cut = images.unflatten(3, (width, patch)).unflatten(2, (height, patch))  # (b, c, height, patch, width, patch)
    patches = cut.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
    shapes = torch.tensor([[height, width]] * len(images))
    return {"pixel_values": patches, "pixel_attention_mask": None, "spatial_shapes": shapes}


@dataclass(frozen=True, kw_only=True)
class ModelType:
    """What the types have in common.

    Attributes:
        layers: path of the list of transformer blocks, or of stages.
        norm: path of the last normalisation of all tokens; None if there is none.
        inputs: the arguments of the forward method for normalised images.
        unused: modules that do not affect the features: they are removed, and their weights may be missing.
        overrides: settings of the configuration that are replaced.
        requires: settings that must have these values.
        colours: mean and standard deviation of the inputs if the folder states none.
        patch: setting with the side of the patches, which must be square; None if the type has no such setting.
        architecture: name of the class in transformers; None for the class that AutoModel selects. It is required for
            types that AutoModel does not support.
    """

    layers: str
    norm: str | None
    inputs: Inputs = plain
    unused: Sequence[str] = ()
    overrides: Mapping[str, Any] = field(default_factory=dict)
    requires: Mapping[str, Any] = field(default_factory=dict)
    colours: Colours = IMAGENET
    patch: str | None = "patch_size"
    architecture: str | None = None


@dataclass(frozen=True, kw_only=True)
class VisionTransformerType(ModelType):
    """A vision transformer: all blocks have one width and one grid of patches.

    Attributes:
        facets: attributes of a block: the norm before the attention, and the attention, with q_proj, k_proj and v_proj;
            None if the attention has no such projections.
        prefix: number of tokens before those of the patches.
        class_tokens: number of class tokens, which come first; their mean is used as the class token.
        fixed: whether the network requires the image size of the pretraining; smaller images are padded to it.
        has_neck: whether ``norm`` is a convolutional network with other channels.
        is_dino: whether position embeddings are interpolated as in DINO, so that an offset can be added.
    """

    facets: tuple[str, str] | None
    prefix: Callable[[Config], int] = lambda config: 1
    class_tokens: Callable[[Config], int] = lambda config: 1
    fixed: Callable[[Config], bool] = lambda config: False
    has_neck: bool = False
    is_dino: bool = False


@dataclass(frozen=True, kw_only=True)
class HierarchyType(ModelType):
    """A network in stages, each with a coarser grid. A layer is a stage.

    Attributes:
        widths: channels of each stage.
        stride: pixels per cell of a stage, counted from 1.
        ends: number of entries of ``layers`` up to the end of each stage; None if the entries are the stages.
        has_blocks: whether the entries of ``layers`` are transformer blocks.
        merge: attribute of a stage that merges its cells for the next stage.
        last_only: whether only the last stage is supported, because the cells of the others are not in row-major order.
        prefix: number of tokens before those of the cells.
        multiple: the sides of images must be multiples of this number of pixels.
        is_shifted: whether cells are centred at the corners of their patches (see
            :class:`loco.models.transformers_backbone`).
    """

    widths: Callable[[Config], Sequence[int]]
    stride: Callable[[Config, int], int]
    ends: Callable[[Config], Sequence[int]] | None = None
    has_blocks: bool = False
    merge: str | None = None
    last_only: bool = False
    prefix: int = 0
    multiple: Callable[[Config], int] = lambda config: 1
    is_shifted: bool = False


class Support(NamedTuple):
    """The supported options of a type of model, as texts: a row of the table of :func:`supported`.

    Attributes:
        kind: type of the model, ``model_type`` in its configuration.
        within: types of larger models that contain it as image encoder.
        layer: the unit that is counted by the option ``layer``.
        blocks: whether single blocks can be trained, or have low-rank adapters.
        facets: whether queries, keys and values can be used as features.
        class_token: whether it has a class token.
        size: supported image sizes.
    """

    kind: str
    within: str
    layer: str
    blocks: str
    facets: str
    class_token: str
    size: str


class Part(NamedTuple):
    """The image encoder within a larger model: its type, its path in the configuration, the prefix of its weights."""

    kind: str
    path: tuple[str, ...]
    prefix: str


def _registers(config: Config) -> int:
    return 1 + config.num_register_tokens


def _none(config: Config) -> int:
    return 0


def _always(config: Config) -> bool:
    return True


_VIT = ("layernorm_before", "attention")
_DINO = ("norm1", "attention")
_CLIP = ("layer_norm1", "self_attn")
_STILL = {"pos_embed_shift": None, "pos_embed_jitter": None, "pos_embed_rescale": None}  # random shifts of positions

VISION_TRANSFORMERS: dict[str, VisionTransformerType] = {
    "aimv2_vision_model": VisionTransformerType(
        layers="encoder.layers",
        norm="rms_norm",
        facets=("rms_norm1", "attention"),
        prefix=_none,
        class_tokens=_none,
        fixed=lambda config: not config.is_native,
        unused=("head",),
        colours=CLIP,
    ),
    "beit": VisionTransformerType(
        unused=("pooler",), layers="layers", norm="layernorm", facets=_VIT, inputs=interpolated, colours=CENTRED
    ),
    "clip_vision_model": VisionTransformerType(
        layers="encoder.layers",
        norm=None,
        facets=_CLIP,
        inputs=interpolated,
        unused=("post_layernorm",),
        colours=CLIP,
    ),
    "deit": VisionTransformerType(
        unused=("pooler",),
        layers="layers",
        norm="layernorm",
        facets=_VIT,
        prefix=lambda config: 2,  # class and distillation token
        inputs=interpolated,
    ),
    "dinov2": VisionTransformerType(layers="encoder.layer", norm="layernorm", facets=_DINO, is_dino=True),
    "dinov2_with_registers": VisionTransformerType(
        layers="encoder.layer", norm="layernorm", facets=_DINO, prefix=_registers
    ),
    "dinov3_vit": VisionTransformerType(
        layers="model.layer", norm="norm", facets=_DINO, prefix=_registers, overrides=_STILL
    ),
    "ijepa": VisionTransformerType(
        layers="layers", norm="layernorm", facets=_VIT, prefix=_none, class_tokens=_none, inputs=interpolated
    ),
    "metaclip_2_vision_model": VisionTransformerType(
        layers="encoder.layers",
        norm=None,
        facets=_CLIP,
        inputs=interpolated,
        unused=("post_layernorm",),
        colours=CLIP,
        architecture="MetaClip2VisionModel",
    ),
    "pixio": VisionTransformerType(
        layers="layers",
        norm="layernorm",
        facets=_VIT,
        prefix=lambda config: config.n_cls_tokens,
        class_tokens=lambda config: config.n_cls_tokens,
    ),
    "radio": VisionTransformerType(
        layers="encoder.layer",
        norm=None,
        facets=_DINO,
        prefix=lambda config: config.num_cls_tokens + config.num_registers,
        colours=UNCHANGED,  # the network normalises its inputs
    ),
    "sam3_vit_model": VisionTransformerType(
        layers="layers",
        norm=None,
        facets=(*_CLIP[:1], "attention"),
        prefix=_none,
        class_tokens=_none,
        fixed=_always,
        colours=CENTRED,
    ),
    "sam_vision_model": VisionTransformerType(
        layers="vision_encoder.layers",
        norm="vision_encoder.neck",
        facets=None,
        prefix=_none,
        class_tokens=_none,
        fixed=_always,
        has_neck=True,
    ),
    "siglip2_vision_model": VisionTransformerType(
        layers="encoder.layers",
        norm="post_layernorm",
        facets=_CLIP,
        prefix=_none,
        class_tokens=_none,
        inputs=flattened,
        unused=("head",),
        colours=CENTRED,
    ),
    "siglip_vision_model": VisionTransformerType(
        layers="encoder.layers",
        norm="post_layernorm",
        facets=_CLIP,
        prefix=_none,
        class_tokens=_none,
        inputs=interpolated,
        unused=("head",),
        colours=CENTRED,
    ),
    "tipsv2_vision_model": VisionTransformerType(
        layers="encoder.layer", norm="layernorm", facets=_DINO, prefix=_registers, colours=UNCHANGED
    ),
    "vit": VisionTransformerType(
        unused=("pooler",), layers="layers", norm="layernorm", facets=_VIT, inputs=interpolated, is_dino=True
    ),
    "vit_mae": VisionTransformerType(
        layers="layers", norm="layernorm", facets=_VIT, inputs=in_order, overrides={"mask_ratio": 0.0}
    ),
    "vit_msn": VisionTransformerType(layers="layers", norm="layernorm", facets=_VIT, inputs=interpolated),
}


def _side(size: int | Sequence[int]) -> int:
    """Return the height of a size, which may be stated as a number or as height and width."""
    return size if isinstance(size, int) else size[0]


def _hidden_sizes(config: Config) -> Sequence[int]:
    return config.hidden_sizes


def _by_patch(config: Config, stage: int) -> int:
    return config.patch_size * 2 ** (stage - 1)


HIERARCHIES: dict[str, HierarchyType] = {
    "convnext": HierarchyType(
        layers="encoder.stages", norm=None, widths=_hidden_sizes, stride=_by_patch, unused=("layernorm",)
    ),
    "convnextv2": HierarchyType(
        layers="encoder.stages", norm=None, widths=_hidden_sizes, stride=_by_patch, unused=("layernorm",)
    ),
    "dinov3_convnext": HierarchyType(
        layers="model.stages",
        patch=None,
        norm="layer_norm",
        widths=_hidden_sizes,
        stride=lambda config, stage: 2 ** (stage + 1),
        prefix=1,  # the mean of the cells
    ),
    "hiera": HierarchyType(
        unused=("pooler",),
        layers="encoder.stages",
        patch=None,
        norm=None,
        widths=lambda config: [
            int(config.embed_dim * config.embed_dim_multiplier**stage) for stage in range(len(config.depths))
        ],
        stride=lambda config, stage: _side(config.patch_stride) * _side(config.query_stride) ** (stage - 1),
        multiple=lambda config: _side(config.patch_stride) * _side(config.masked_unit_size),
        inputs=interpolated,
        last_only=True,  # the cells of earlier stages are in the order of the attention, not in row-major order
    ),
    "resnet": HierarchyType(
        unused=("pooler",),
        layers="encoder.stages",
        patch=None,
        norm=None,
        widths=_hidden_sizes,
        stride=lambda config, stage: 2 ** (stage + 1 + bool(config.downsample_in_first_stage)),
        is_shifted=True,
    ),
    "sam2_hiera_det_model": HierarchyType(
        layers="blocks",
        patch=None,
        norm=None,
        widths=lambda config: config.embed_dim_per_stage,
        stride=lambda config, stage: _side(config.patch_stride) * _side(config.query_stride) ** (stage - 1),
        ends=lambda config: [
            sum(config.blocks_per_stage[: stage + 1]) for stage in range(len(config.blocks_per_stage))
        ],
        has_blocks=True,
        multiple=lambda config: _side(config.patch_stride) * config.window_size_per_stage[0],
    ),
    "swinv2": HierarchyType(
        unused=("pooler",),
        layers="encoder.layers",
        norm="layernorm",
        widths=lambda config: [config.embed_dim * 2**stage for stage in range(len(config.depths))],
        stride=_by_patch,
        merge="downsample",
        requires={"use_absolute_embeddings": False},  # transformers interpolates these wrongly
    ),
}

TYPES: dict[str, VisionTransformerType | HierarchyType] = {**VISION_TRANSFORMERS, **HIERARCHIES}

PARTS: dict[str, Part] = {
    "aimv2": Part("aimv2_vision_model", ("vision_config",), "vision_model."),
    "clip": Part("clip_vision_model", ("vision_config",), "vision_model."),
    "metaclip_2": Part("metaclip_2_vision_model", ("vision_config",), "vision_model."),
    "sam": Part("sam_vision_model", ("vision_config",), ""),
    "sam2": Part("sam2_hiera_det_model", ("vision_config", "backbone_config"), "vision_encoder.backbone."),
    "sam2_video": Part("sam2_hiera_det_model", ("vision_config", "backbone_config"), "vision_encoder.backbone."),
    "sam2_vision_model": Part("sam2_hiera_det_model", ("backbone_config",), "backbone."),
    "sam3": Part("sam3_vit_model", ("vision_config", "backbone_config"), "vision_encoder.backbone."),
    "sam3_video": Part(
        "sam3_vit_model",
        ("detector_config", "vision_config", "backbone_config"),
        "detector_model.vision_encoder.backbone.",
    ),
    "sam3_vision_model": Part("sam3_vit_model", ("backbone_config",), "backbone."),
    "siglip": Part("siglip_vision_model", ("vision_config",), "vision_model."),
    "siglip2": Part("siglip2_vision_model", ("vision_config",), "vision_model."),
    "tipsv2": Part("tipsv2_vision_model", ("vision_config",), ""),
}


def supported() -> list[Support]:
    """Return the supported options of each type of model, sorted by type."""
    return [_support(kind, row) for kind, row in sorted(TYPES.items())]


def _support(kind: str, row: VisionTransformerType | HierarchyType) -> Support:
    within = ", ".join(name for name, part in PARTS.items() if part.kind == kind) or "-"
    if isinstance(row, HierarchyType):
        layer = "last stage" if row.last_only else "stage"
        return Support(kind, within, layer, "yes" if row.has_blocks else "no", "no", "no", "any")
    size = {"aimv2_vision_model": "fixed, unless `is_native`"}.get(kind, "fixed" if row.fixed is _always else "any")
    class_token = "no" if row.class_tokens is _none else "yes"
    return Support(kind, within, "block", "yes", "yes" if row.facets else "no", class_token, size)
