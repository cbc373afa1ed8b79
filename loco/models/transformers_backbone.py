"""Backbones that run a network of Hugging Face transformers, from the hub or from a local folder.

The parts of a network after the requested layer are removed; the rest is run by its own forward method. The differences
between the types are in :mod:`loco.models.model_types`, and folders are read by :mod:`loco.models.model_folder`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from loco.errors import ConfigError, DataError
from loco.models.backbones import IMAGENET_MEAN, IMAGENET_STD, Backbone, check_layer, to_grid
from loco.models.hub import find_folder
from loco.models.model_folder import Description, load_network, read_colours, read_description
from loco.models.model_types import IMAGENET, VISION_TRANSFORMERS, HierarchyType, ModelType, VisionTransformerType
from loco.models.parts import Encoding

_FACETS = {"query": "q_proj", "key": "k_proj", "value": "v_proj"}
# Name of a module in transformers -> its name here. Model files contain these names, so they must not change.
_NAMES = {"rope_embeddings": "rotary"}
_PROBE = 224  # side of the image that determines the stride of a network of AutoBackbone, pixels


def load_transformers(
    path: str,
    layer: int | None = None,
    facet: str = "token",
    norm: bool | None = None,
    pretrained: bool = True,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    revision: str | None = None,
    interpolate_offset: float = 0.0,
    concat_class_token: bool = False,
) -> Backbone:
    """Load a backbone from the hub, or from a folder with ``config.json`` and ``model.safetensors``.

    Cached files are used without network access; missing ones are downloaded.

    Args:
        path: a short name of :data:`loco.models.backbones.KNOWN`, a name on the hub (``hub:owner/name``), or a folder.
        layer: 1 to the number of blocks, or of stages for a network in stages; None for the last.
        facet: ``token``, the output of the block, or the ``query``, ``key`` or ``value`` of its attention, heads
            concatenated (Amir et al., ECCV Workshops 2022), before any rotary position embedding.
        norm: whether to apply the network's last normalisation; None to apply it to the tokens of the last layer only.
        pretrained: False for random weights, which requires ``config.json`` only.
        mean, std: mean and standard deviation that normalise the three colours in [0, 1]; None for those of the model.
        revision: branch, tag or commit of a model on the hub; None for its main branch.
        interpolate_offset: number that is added to the rows and columns of the grid when the scale of the interpolation
            of position embeddings is computed, (cells + offset) / (cells in pretraining). The code of DINO and DINOv2
            adds 0.1; transformers adds 0, which maps corners to corners.
        concat_class_token: whether to prepend the class token to the channels of each patch (as in DINOv2's linear
            probe).

    Raises:
        ConfigError: unknown layer or facet, a type of model that is not supported, a revision of a folder, or an option
            that this type of model does not have.
        DataError: the model is not found, not in safetensors, damaged, or has weights of another model.
    """
    folder = find_folder(path, revision, pretrained)
    found = read_description(folder)
    if facet not in ("token", *_FACETS):
        raise ConfigError(f"unknown facet {facet!r}; expected one of: token, {', '.join(_FACETS)}")
    if norm and facet != "token":
        raise ConfigError(f"`norm` applies to tokens, not to the facet {facet!r}; remove it")
    options = {"facet": facet != "token", "norm": bool(norm), "interpolate_offset": interpolate_offset}
    _require_support(found, {**options, "concat_class_token": concat_class_token})
    own = read_colours(folder, found.type.colours if found.type else IMAGENET, notice=mean is None or std is None)
    mean, std = (default if value is None else value for value, default in zip((mean, std), own))
    if found.type is None:
        found.config.out_features = [
            _stage_names(found)[check_layer(layer, len(_stage_names(found)), _what(found)) - 1]
        ]
        return AnyBackbone(load_network(folder, found, pretrained), mean, std)
    network = load_network(folder, found, pretrained)
    if isinstance(found.type, HierarchyType):
        return Hierarchy(network, found.type, layer, norm, mean, std)
    return VisionTransformer(network, found.type, layer, facet, norm, mean, std, interpolate_offset, concat_class_token)


def _require_support(found: Description, options: dict[str, Any]) -> None:
    """Reject options that are set but that this type of model does not have."""
    vit = found.type if isinstance(found.type, VisionTransformerType) else None
    has = {
        "facet": vit is not None and vit.facets is not None,
        "norm": found.type is not None and found.type.norm is not None,
        "interpolate_offset": vit is not None and vit.is_dino,
        "concat_class_token": vit is not None and vit.class_tokens(found.config) > 0,
    }
    reasons = {
        "facet": "this model has no facets (separate query, key and value of its attention)",
        "norm": "this model has no final normalisation of its features",
        "interpolate_offset": "this option is supported only for "
        f"{' and '.join(sorted(kind for kind, row in VISION_TRANSFORMERS.items() if row.is_dino))} models",
        "concat_class_token": "this model has no class token",
    }
    for name, value in options.items():
        if value and not has[name]:
            raise ConfigError(f"`{name}`: {reasons[name]}, found the model type {found.kind!r}; remove `{name}`")


def _what(found: Description) -> str:
    return f"this model ({found.kind})"


class TransformersBackbone(Backbone):
    """Base class of backbones that run a network of transformers.

    The modules of the network are registered under names that do not depend on the release of transformers: ``blocks``
    or ``stages``, ``norm``, and the names of the modules before them (``direct`` for parameters that belong to no
    module but the network). The network, which shares these modules, is not registered itself.
    """

    def __init__(
        self, network: PreTrainedModel, row: ModelType, count: int, list_name: str, norm: bool, colours: Sequence[Any]
    ) -> None:
        """
        Args:
            network: a network of transformers; modified.
            row: its type.
            count: number of entries of its list of layers to keep.
            list_name: name under which the list is registered, ``blocks`` or ``stages``.
            norm: whether to apply its last normalisation.
            colours: (mean, std), see :class:`Backbone`.
        """
        super().__init__(*colours)
        self._network, self._inputs = (network,), partial(row.inputs, network.config)
        if hasattr(network, "use_head"):
            network.use_head = False
        removed = [*row.unused, *([row.norm] if row.norm and not norm else [])]
        for name in removed:
            _replace(network, name, nn.Identity())
        layers = network.get_submodule(row.layers)[:count]
        _replace(network, row.layers, layers)
        last = network.get_submodule(row.norm) if row.norm else nn.Identity()
        self._before: list[str] = []
        self._owners: list[nn.Module] = []
        self._register(network, {layers, last, *map(network.get_submodule, removed)})
        setattr(self, list_name, layers)
        self.norm = last

    @property
    def embedding(self) -> list[nn.Module]:
        return [self.get_submodule(name) for name in self._before]

    def _register(self, owner: nn.Module, others: set[nn.Module]) -> None:
        """Register the modules and parameters of ``owner`` before the layers, but none of ``others``."""
        self._owners.append(owner)
        if direct := dict(owner.named_parameters(recurse=False)):
            self.direct = nn.ParameterDict(direct)
            self._before.append("direct")
        for name, module in owner.named_children():
            if module in others:
                continue
            if others.isdisjoint(module.modules()):
                setattr(self, _NAMES.get(name, name), module)
                self._before.append(_NAMES.get(name, name))
            else:
                self._register(module, others)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> TransformersBackbone:
        super()._apply(fn, recurse)
        for owner in self._owners:  # parameters and buffers of the network itself
            owner._apply(fn, recurse=False)
        return self

    def _run(self, images: Tensor) -> Tensor:
        """Return the last hidden state of the network for normalised images."""
        (network,) = self._network
        return network(**self._inputs(images)).last_hidden_state


class VisionTransformer(TransformersBackbone):
    """The patch tokens, or a facet of them, and the class token of one layer of a vision transformer.

    Register tokens are used by the attention but are not part of the output. The class token is None if the network has
    none.
    """

    def __init__(
        self,
        network: PreTrainedModel,
        row: VisionTransformerType,
        layer: int | None = None,
        facet: str = "token",
        norm: bool | None = None,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        interpolate_offset: float = 0.0,
        concat_class_token: bool = False,
    ) -> None:
        """See :func:`load_transformers`; modules of ``network`` become modules of this one."""
        config, count = network.config, len(network.get_submodule(row.layers))
        layer = check_layer(layer, count, f"this model ({config.model_type})")
        norm = norm if norm is not None else layer == count and facet == "token"
        if concat_class_token and facet != "token":
            raise ConfigError(f"`concat_class_token` applies to tokens, not to the facet {facet!r}; remove it")
        if row.has_neck and norm:
            _replace(network, row.norm, _ChannelsLast(network.get_submodule(row.norm)))
        super().__init__(network, row, layer, "blocks", norm, (mean, std))
        embeddings = getattr(self, "embeddings", None)
        if getattr(embeddings, "mask_token", None) is not None:
            embeddings.mask_token = None  # only for pretraining; otherwise a parameter without gradient
        if interpolate_offset:
            embeddings.interpolate_pos_encoding = partial(
                _interpolated_positions, embeddings, config.patch_size, interpolate_offset
            )
        width = config.output_channels if row.has_neck and norm else config.hidden_size
        if facet != "token":
            norm_name, attention = row.facets
            last = self.blocks[-1]
            projection = getattr(getattr(last, attention), _FACETS[facet])
            self.blocks[-1] = _Facet(getattr(last, norm_name), projection)
            width = projection.out_features
        self.stride, self.concat_class_token = config.patch_size, concat_class_token
        self.token_dim = width if row.class_tokens(config) else 0
        self.dim = width * (2 if concat_class_token else 1)
        self._prefix, self._class_tokens = row.prefix(config), row.class_tokens(config)
        self._size = config.image_size if row.fixed(config) else None

    def forward(self, images: Tensor) -> Encoding:
        tokens, (height, width) = self._tokens(self.normalised(images))
        maps = to_grid(tokens[:, self._prefix :], height, width)
        maps = maps[:, :, : images.shape[2] // self.stride, : images.shape[3] // self.stride]
        if not self._class_tokens:
            return Encoding(maps)
        token = tokens[:, : self._class_tokens].mean(dim=1)
        if self.concat_class_token:
            maps = torch.cat([token[:, :, None, None].expand(-1, -1, *maps.shape[2:]), maps], dim=1)
        return Encoding(maps, token)

    def _tokens(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Return all tokens (b, n, c) of normalised images, patches last and in row-major order, and their grid."""
        if self._size is not None:
            images = _padded(images, self._size)
        tokens = self._run(images)
        height, width = (side // self.stride for side in images.shape[2:])
        return tokens.flatten(1, 2) if tokens.ndim == 4 else tokens, (height, width)


class Hierarchy(TransformersBackbone):
    """A stage of a network in stages, such as a ResNet, a ConvNeXt or a Swin transformer.

    An unmodified ResNet centres its cell r at pixel ``r stride``, the corner of the patch (``is_shifted``). The image
    is therefore padded by half a patch above and on the left with its first pixels, and the first row and column of
    cells, which belong to the padding, are dropped: the centres are then half a pixel from those of the patches.
    """

    stages: nn.ModuleList

    def __init__(
        self,
        network: PreTrainedModel,
        row: HierarchyType,
        layer: int | None = None,
        norm: bool | None = None,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        """See :func:`load_transformers`; ``layer`` is the stage; modules of ``network`` become modules of this one.

        Raises:
            ConfigError: there is no such stage, ``norm`` is set but the stage has no normalisation, or the stage is not
                the last one although only the last one is supported.
        """
        config, widths = network.config, row.widths(network.config)
        layer = check_layer(layer, len(widths), f"this model ({config.model_type})")
        is_last = layer == len(widths)
        if row.last_only and not is_last:
            raise ConfigError(
                f"this model ({config.model_type}) supports only its last layer, {len(widths)}; found layer {layer}; "
                "remove `layer`"
            )
        if norm and not is_last:
            raise ConfigError(
                f"this model ({config.model_type}) normalises its last layer only, found layer {layer}; remove `norm`"
            )
        count = row.ends(config)[layer - 1] if row.ends else layer
        list_name = "blocks" if row.has_blocks else "stages"
        super().__init__(network, row, count, list_name, is_last and norm is not False, (mean, std))
        if row.merge and not is_last:
            setattr(self.stages[-1], row.merge, None)
        self.dim, self.stride = widths[layer - 1], row.stride(config, layer)
        self.cells = math.lcm(self.stride, row.multiple(config)) // self.stride
        self._prefix, self._is_shifted = row.prefix, row.is_shifted

    @property
    def embedding(self) -> list[nn.Module]:
        return [*super().embedding, *([] if self.blocks else [self.stages])]

    def forward(self, images: Tensor) -> Encoding:
        images = self.normalised(images)
        height, width = (side // self.stride for side in images.shape[2:])
        if self._is_shifted:
            images = F.pad(images, (self.stride // 2, 0, self.stride // 2, 0), mode="replicate")
            return Encoding(self._run(images)[:, :, 1:, 1:])
        found = self._run(images)
        if found.ndim == 3:
            return Encoding(to_grid(found[:, self._prefix :], height, width))
        return Encoding(found if found.shape[1] == self.dim else found.permute(0, 3, 1, 2))


class AnyBackbone(Backbone):
    """A stage of any network that AutoBackbone supports. It cannot be trained."""

    trainable = False

    def __init__(
        self,
        network: PreTrainedModel,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        """
        Args:
            network: a network of AutoBackbone that returns one stage.
            mean, std: see :class:`Backbone`.

        Raises:
            ConfigError: the cells of its output are not square, or their side is not a whole number of pixels.
        """
        super().__init__(mean, std)
        self.network = network.eval().requires_grad_(False)
        side = getattr(network.config, "image_size", None) or _PROBE
        side = side if isinstance(side, int) else side[0]
        with torch.inference_mode():
            _, self.dim, height, width = self._run(torch.zeros(1, 3, side, side)).shape
        if height != width or side % height:
            raise ConfigError(
                f"this model ({network.config.model_type}) maps an image of {side} x {side} pixels to "
                f"{height} x {width} cells, which are not square patches of whole pixels; it is not supported, use "
                "another backbone"
            )
        self.stride = side // height

    def forward(self, images: Tensor) -> Encoding:
        return Encoding(self._run(self.normalised(images)))

    def _run(self, images: Tensor) -> Tensor:
        return self.network(images).feature_maps[0]


class _Facet(nn.Module):
    """The part of the last block that computes its query, key or value."""

    def __init__(self, norm: nn.Module, projection: nn.Linear) -> None:
        super().__init__()
        self.norm, self.projection = norm, projection

    def forward(self, tokens: Tensor, *_: Any, **__: Any) -> Tensor:
        return self.projection(self.norm(tokens))


class _ChannelsLast(nn.Module):
    """A convolutional network whose output (b, c, h, w) is returned as (b, h, w, c)."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, tokens: Tensor) -> Tensor:
        return self.layers(tokens).permute(0, 2, 3, 1)


def _replace(network: nn.Module, path: str, module: nn.Module) -> None:
    """Replace a module of a network."""
    owner, _, name = path.rpartition(".")
    setattr(network.get_submodule(owner), name, module)


def _interpolated_positions(
    embeddings: Any, patch: int, offset: float, tokens: Tensor, height: int, width: int
) -> Tensor:
    """Return the position embeddings of a grid, interpolated as in the code of DINO.

    The scale of the interpolation is (cells + offset) / (cells in pretraining).
    """
    table = embeddings.position_embeddings
    cells, trained = [height // patch, width // patch], math.isqrt(table.shape[1] - 1)
    if cells == [trained, trained]:
        return table
    grid = to_grid(table[:, 1:], trained, trained)
    ratio = [(count + offset) / trained for count in cells]
    stretched = F.interpolate(grid, scale_factor=ratio, mode="bicubic", align_corners=False)
    return torch.cat([table[:, :1], stretched.flatten(2).mT], dim=1)


def _padded(images: Tensor, size: int) -> Tensor:
    """Pad normalised images below and on the right with zeros to ``size`` x ``size`` pixels, as the network requires.

    Raises:
        DataError: the images are larger.
    """
    height, width = images.shape[2:]
    if height > size or width > size:
        raise DataError(
            "an image is larger than the input of the network, which has a fixed size",
            expected=f"at most {size} x {size} pixels",
            found=f"{height} x {width}",
            remedy="reduce the input size (raise `stride` of the model), or use a model with a larger input",
        )
    return F.pad(images, (0, size - width, 0, size - height))


def _stage_names(found: Description) -> Sequence[str]:
    """Return the names of the stages of a network of AutoBackbone, without its stem."""
    names: Iterable[str] = found.config.stage_names
    return [name for name in names if name != "stem"]
