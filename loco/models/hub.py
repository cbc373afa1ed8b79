"""Backbones in the form of Hugging Face transformers, from the hub or from a local folder.

Only safetensors are read: no code of a downloaded folder can run. The blocks are taken from the transformers model,
with its code for patches, positions and attention; those beyond the requested layer are dropped.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import snapshot_download
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, StrictDataclassError
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.activations import ACT2FN
from transformers.utils import logging as transformers_logging

from loco.errors import ConfigError, DataError
from loco.files import is_data, open_regular
from loco.models.backbones import IMAGENET_MEAN, IMAGENET_STD, KNOWN, Backbone, check_layer, to_grid
from loco.models.finite import require_finite
from loco.models.parts import Encoding
from loco.weights import HUB, adapter_problem, hub_name

HERE = "for a trained model, pass `backbone=` to `loco.load`, or `--backbone` to the command"
_FACETS = {"query": "q_proj", "key": "k_proj", "value": "v_proj"}
_FILES = ["config.json", "preprocessor_config.json", "processor_config.json"]
_UNREADABLE = (
    *(OSError, ImportError, KeyError, RecursionError, TypeError, ValueError),
    *(SafetensorError, StrictDataclassError),
)
_LARGEST_JSON = 1 << 24  # bytes of a configuration; on the hub they have a few kilobytes
_MAX_BLOCKS = 1000
_LARGEST_RATIO, _LARGEST_EXCESS = 10, 1 << 20  # numbers of weights implied by a configuration, relative to the file
_FLOATS = ("F64", "F32", "F16", "BF16")  # safetensors dtypes that are read
_UNUSED = re.compile(r"(.*\.)?(mask_token|inv_freq|pooler\..+)")  # weights that do not affect the features

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Names:
    """Attribute names of the parts of a vision transformer in transformers."""

    blocks: str
    norm: str
    block_norm: str  # the norm before the attention of a block


_TRANSFORMERS = {
    "vit": _Names("layers", "layernorm", "layernorm_before"),
    "dinov2": _Names("encoder.layer", "layernorm", "norm1"),
    "dinov2_with_registers": _Names("encoder.layer", "layernorm", "norm1"),
    "dinov3_vit": _Names("model.layer", "norm", "norm1"),
}
# Other names of these parts in files of other releases and code.
_PARTS = ("blocks", "embedder", "embeddings", "encoder", "layer", "layernorm", "layers", "norm", "patch_embed")
_TYPES = [*_TRANSFORMERS, "resnet"]
_LEARNT_POSITIONS = ("vit", "dinov2")  # interpolated tables; DINOv2's code differs with registers


def load_hub(
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
        layer: 1 to the number of blocks (of stages, for a ResNet); None for the last.
        facet: ``token``, the output of the block, or the ``query``, ``key`` or ``value`` of its attention, heads
            concatenated (Amir et al., ECCV Workshops 2022), before any rotary position embedding.
        norm: whether to apply the network's last normalisation; None to apply it to the tokens of the last layer only.
        pretrained: False for random weights, which requires ``config.json`` only.
        mean, std: mean and standard deviation that normalise the three colours in [0, 1]; None for those of the model.
        revision: branch, tag or commit of a model on the hub; None for its main branch.
        interpolate_offset: added to the number of rows and columns whose ratio scales the interpolation of position
            embeddings. The code of DINO and DINOv2 adds 0.1; transformers adds 0, which maps corners to corners.
        concat_class_token: whether to prepend the class token to the channels of each patch (as in DINOv2's linear
            probe).

    Raises:
        ConfigError: unknown layer or facet, a type of model that is not supported, a revision of a folder.
        DataError: the model is not found, not in safetensors, damaged, or has weights of another model.
    """
    folder = _folder(path, revision, pretrained)
    config = _read_config(folder)
    if config.model_type != "resnet" and facet not in ("token", *_FACETS):
        raise ConfigError(f"unknown facet {facet!r}; expected one of: token, {', '.join(_FACETS)}")
    if norm and facet != "token":
        raise ConfigError(f"`norm` applies to tokens, not to the facet {facet!r}; remove it")
    model = _load(folder, config, pretrained)
    own = _read_colours(folder, notice=mean is None or std is None)
    mean, std = (default if value is None else value for value, default in zip((mean, std), own))
    if config.model_type == "resnet":
        if facet != "token" or norm:
            raise ConfigError("a ResNet has neither facets nor a final normalisation; remove `facet` and `norm`")
        if interpolate_offset or concat_class_token:
            raise ConfigError("a ResNet has neither position embeddings nor a class token; remove these options")
        return ResNet(model, layer, mean, std)
    return VisionTransformer(model, layer, facet, norm, mean, std, interpolate_offset, concat_class_token)


class VisionTransformer(Backbone):
    """The patch tokens, or a facet of them, and the class token of one layer of a DINO, DINOv2 or DINOv3 model.

    Register tokens are used by the attention but are not part of the output.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        layer: int | None = None,
        facet: str = "token",
        norm: bool | None = None,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        interpolate_offset: float = 0.0,
        concat_class_token: bool = False,
    ) -> None:
        """Register the modules of a loaded ``model``; see :func:`load_hub` for the arguments."""
        super().__init__(mean, std)
        config = model.config
        names = _TRANSFORMERS[config.model_type]
        blocks = model.get_submodule(names.blocks)
        layer = check_layer(layer, len(blocks), f"this model ({config.model_type})")
        norm = norm if norm is not None else layer == len(blocks) and facet == "token"
        if interpolate_offset and config.model_type not in _LEARNT_POSITIONS:
            raise ConfigError(
                f"`interpolate_offset` is supported for {' and '.join(_LEARNT_POSITIONS)} models, found the model type "
                f"{config.model_type!r}; remove it"
            )
        if concat_class_token and facet != "token":
            raise ConfigError(f"`concat_class_token` applies to tokens, not to the facet {facet!r}; remove it")
        self.token_dim, self.stride = config.hidden_size, config.patch_size
        self.interpolate_offset, self.concat_class_token = interpolate_offset, concat_class_token
        self.dim = self.token_dim * (2 if concat_class_token else 1)
        self.blocks = blocks[:layer]
        if facet != "token":
            last = self.blocks[-1]
            self.blocks[-1] = _Facet(getattr(last, names.block_norm), getattr(last.attention, _FACETS[facet]))
        self.norm = model.get_submodule(names.norm) if norm else nn.Identity()
        self.embeddings = model.embeddings
        self.embeddings.mask_token = None  # only for pretraining; otherwise a parameter without gradient
        self.rotary = getattr(model, "rope_embeddings", None)
        self._resizes = {"interpolate_pos_encoding": True} if config.model_type == "vit" else {}
        self._extra_tokens = 1 + getattr(config, "num_register_tokens", 0)

    @property
    def embedding(self) -> list[nn.Module]:
        return [module for module in (self.embeddings, self.rotary) if module is not None]

    def forward(self, images: Tensor) -> Encoding:
        tokens = self._tokens(self.normalised(images))
        height, width = (side // self.stride for side in images.shape[2:])
        maps, token = to_grid(tokens[:, self._extra_tokens :], height, width), tokens[:, 0]
        if self.concat_class_token:
            maps = torch.cat([token[:, :, None, None].expand(-1, -1, height, width), maps], dim=1)
        return Encoding(maps, token)

    def _tokens(self, images: Tensor) -> Tensor:
        """Return all tokens (b, n, dim) of normalised images: class token, registers, patches in row-major order."""
        tokens = self._embedded(images) if self.interpolate_offset else self.embeddings(images, **self._resizes)
        positions = {"position_embeddings": self.rotary(images)} if self.rotary is not None else {}
        for block in self.blocks:
            tokens = block(tokens, **positions)
        return self.norm(tokens)

    def _embedded(self, images: Tensor) -> Tensor:
        """Return the input of the first block; positions are interpolated by (cells + offset) / cells, as in DINO."""
        own, table = self.embeddings, self.embeddings.position_embeddings
        patches = own.patch_embeddings(images)
        tokens = torch.cat([own.cls_token.expand(len(images), -1, -1), patches], dim=1)
        cells = [side // self.stride for side in images.shape[2:]]
        trained = math.isqrt(table.shape[1] - 1)
        if cells != [trained, trained]:
            grid = to_grid(table[:, 1:], trained, trained)
            ratio = [(count + self.interpolate_offset) / trained for count in cells]
            stretched = F.interpolate(grid, scale_factor=ratio, mode="bicubic", align_corners=False)
            table = torch.cat([table[:, :1], stretched.flatten(2).mT], dim=1)
        return own.dropout(tokens + table)


class _Facet(nn.Module):
    """The part of the last block that computes its query, key or value."""

    def __init__(self, norm: nn.Module, projection: nn.Linear) -> None:
        super().__init__()
        self.norm, self.projection = norm, projection

    def forward(self, tokens: Tensor, **_: Any) -> Tensor:
        return self.projection(self.norm(tokens))


class ResNet(Backbone):
    """A stage of a ResNet, its cells centred on their patches.

    An unmodified ResNet centres its cell r at pixel ``r stride``, the corner of the patch. The image is therefore
    padded by half a patch above and on the left with its first pixels, and the first row and column of cells, which
    belong to the padding, are dropped: the centres are then half a pixel from those of the patches.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        layer: int | None = None,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        """See :func:`load_hub`; ``layer`` is the stage; modules of ``model`` become modules of this one."""
        super().__init__(mean, std)
        config = model.config
        layer = check_layer(layer, len(config.hidden_sizes), "this model (resnet)")
        self.dim = config.hidden_sizes[layer - 1]
        self.stride = 2 ** (layer + 1 + bool(config.downsample_in_first_stage))
        self.embedder, self.stages = model.embedder, model.encoder.stages[:layer]

    @property
    def embedding(self) -> list[nn.Module]:
        return [self.embedder, self.stages]

    def forward(self, images: Tensor) -> Encoding:
        x = self.normalised(images)
        x = self.embedder(F.pad(x, (self.stride // 2, 0, self.stride // 2, 0), mode="replicate"))
        for stage in self.stages:
            x = stage(x)
        return Encoding(x[:, :, 1:, 1:])


def _folder(path: str, revision: str | None, weights: bool) -> Path:
    """Return the folder of a model: the path itself, or its folder in the hub's cache, downloaded if missing."""
    name = KNOWN[path].hub if path in KNOWN else hub_name(path)
    if name is None:
        return _local_folder(path, revision)
    files = [*_FILES, *(["model*.safetensors", "model.safetensors.index.json"] if weights else [])]
    for offline in (True, False):
        try:
            place = snapshot_download(name, revision=revision, allow_patterns=files, local_files_only=offline)
            folder = Path(place)
        except GatedRepoError as error:
            raise DataError(
                f"backbone {name!r} can be downloaded only after accepting its licence",
                remedy=f"accept the licence at https://huggingface.co/{name}, then run `hf auth login`",
            ) from error
        except (OSError, ValueError, HfHubHTTPError) as error:
            problem = error
            continue
        if not offline or ((folder / "config.json").is_file() and (any(folder.glob("*.safetensors")) or not weights)):
            return folder
    pinned = f" --revision {revision}" if revision else ""
    raise DataError(
        f"backbone {name!r} is not in the cache of the Hugging Face hub and cannot be downloaded",
        expected=f"a folder, a name on the hub ({HUB}owner/name), or one of {', '.join(KNOWN)}",
        found=str(problem).partition("\n")[0],
        remedy=f"on a machine with network access, run `hf download {name}{pinned} --include '*.json' "
        "'model*.safetensors'`; or set "
        f"the path to a folder with config.json and model.safetensors ({HERE})",
    ) from problem


def _local_folder(path: str, revision: str | None) -> Path:
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise DataError(
            f"backbone {path!r} is not a folder",
            expected=f"a folder, a name on the hub ({HUB}owner/name), or one of {', '.join(KNOWN)}",
            remedy=f"{_nearest(path)}correct its path ({HERE}); write a model on the hub as {HUB}owner/name",
        )
    if revision is not None:
        raise ConfigError(
            f"backbone {path!r} is a folder, but `revision` applies to models on the hub; remove `revision`"
        )
    if problem := adapter_problem(folder):
        raise DataError(problem)
    return folder


def _nearest(name: str) -> str:
    near = get_close_matches(name, KNOWN, n=1)
    return f"did you mean {near[0]}? Otherwise " if near else ""


def _read_json(file: Path) -> dict[str, Any]:
    """Return the content of a JSON document, which must be an object.

    Raises:
        OSError: it cannot be opened.
        ValueError: it is larger than :data:`_LARGEST_JSON`, not JSON, nested too deeply, or not an object.
    """
    with open_regular(file) as opened:
        data = opened.read(_LARGEST_JSON + 1)
    if len(data) > _LARGEST_JSON:
        raise ValueError(f"it has more than {_LARGEST_JSON} bytes")
    try:
        settings = json.loads(data)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(settings, dict):
        raise ValueError(f"it must be an object in braces, found {type(settings).__name__}")
    return settings


def _read_config(folder: Path) -> PreTrainedConfig:
    file = folder / "config.json"
    try:
        settings = _read_json(file)
        kind = settings.get("model_type")
        if kind not in _TYPES:
            raise ConfigError(f"{file}: model type {kind!r} is not supported; supported are: {', '.join(_TYPES)}")
        if settings.get("quantization_config") is not None:
            raise ConfigError(f"{file}: quantised weights are not supported; use the folder of the original weights")
        config = transformers.AutoConfig.for_model(kind).from_dict(settings)
        if config.hidden_act not in ACT2FN:
            raise ValueError(f"unknown activation `hidden_act` {config.hidden_act!r}")
        blocks = sum(config.depths) if kind == "resnet" else config.num_hidden_layers
        if not 1 <= blocks <= _MAX_BLOCKS:
            raise ValueError(f"it must have 1 to {_MAX_BLOCKS} blocks, found {blocks}")
    except (AttributeError, *_UNREADABLE) as error:
        raise DataError(
            f"the file cannot be read as the configuration of a model: {error}",
            file=file,
            remedy="use a folder written by `save_pretrained` of transformers",
        ) from error
    if hasattr(config, "patch_size"):
        config.patch_size = _square(config.patch_size, file)
    # Disable random shifts of the positions in training: a step must depend only on its batch and seed.
    for name in ("pos_embed_shift", "pos_embed_jitter", "pos_embed_rescale"):
        if hasattr(config, name):
            setattr(config, name, None)
    return config


def _square(patch: int | Sequence[int], file: Path) -> int:
    """Return the side of a square patch, which may be stated as a number or as height and width."""
    sides = set(patch) if isinstance(patch, list | tuple) else {patch}
    side = sides.pop() if sides else None
    if sides or not isinstance(side, int) or isinstance(side, bool) or side < 1:
        raise ConfigError(f"{file}: `patch_size` must be a single number (square patches), found {patch}")
    return side


def _read_colours(folder: Path, notice: bool) -> tuple[Sequence[float], Sequence[float]]:
    """Return the mean and standard deviation with which the model normalises colours in [0, 1].

    A preprocessor multiplies 8-bit colours by ``rescale_factor`` (1 / 255 unless stated; not at all without
    ``do_rescale``) before it normalises them, so its mean and standard deviation apply to colours from 0 to 255 times
    that factor.
    """
    file, settings = _read_preprocessor(folder)
    if settings is None:
        if notice:
            _report_default_colours(folder)
        return IMAGENET_MEAN, IMAGENET_STD
    for name, what in (("do_flip_channel_order", "colours in the order BGR"), ("rescale_offset", "colours from -1")):
        if settings.get(name):
            raise ConfigError(f"{file}: `{name}` ({what}) is not supported")
    try:
        mean, std = settings.get("image_mean", IMAGENET_MEAN), settings.get("image_std", IMAGENET_STD)
        if not settings.get("do_normalize", True):
            mean, std = (0.0,) * 3, (1.0,) * 3
        scale = 255 * (settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale", True) else 1)
        finite = all(map(math.isfinite, [*mean, *std, scale]))
        if not (finite and len(mean) == len(std) == 3 and min(std) > 0 and scale > 0):
            raise ValueError(f"image_mean {mean}, image_std {std}, rescale_factor {settings.get('rescale_factor')}")
        return tuple(value / scale for value in mean), tuple(value / scale for value in std)
    except (OverflowError, TypeError, ValueError) as error:
        raise _no_preprocessor(file, error) from error


def _read_preprocessor(folder: Path) -> tuple[Path, dict[str, Any] | None]:
    """Return the file and the settings of the image preprocessor, searched as in transformers; None without settings.

    Settings in ``processor_config.json``, under ``image_processor``, take precedence over ``preprocessor_config.json``.
    """
    file = folder / "processor_config.json"
    for name in (file.name, "preprocessor_config.json"):
        file = folder / name
        if not file.is_file():
            continue
        try:
            settings = _read_json(file)
            nested = settings.get("image_processor")
            if nested is not None and not isinstance(nested, dict):
                raise ValueError(f"`image_processor` must be an object in braces, found {nested!r:.100}")
        except (OSError, ValueError) as error:
            raise _no_preprocessor(file, error) from error
        if nested is not None or name == "preprocessor_config.json":
            return file, settings if nested is None else nested
    return file, None


def _no_preprocessor(file: Path, error: Exception) -> DataError:
    return DataError(
        f"the file cannot be read as settings of the preprocessing: {error}",
        file=file,
        expected="three means, three positive standard deviations and a positive rescale_factor, all finite",
    )


@cache
def _report_default_colours(folder: Path) -> None:
    """Warn, once per folder, that the model does not state the normalisation of its inputs."""
    logger.warning(
        "%s has no preprocessor_config.json: its inputs are normalised with the mean and standard deviation of "
        "ImageNet; set "
        "`mean` and `std` of the backbone if the model was trained with others",
        folder,
    )


def _load(folder: Path, config: PreTrainedConfig, pretrained: bool) -> PreTrainedModel:
    """Load the model in single precision, with all used weights from the file, or with random weights."""
    settings: dict[str, Any] = {
        "dtype": torch.float32,
        "attn_implementation": "sdpa" if config.model_type in _TRANSFORMERS else None,
    }
    size = _implied_size(folder, config, settings)
    if not pretrained:
        return AutoModel.from_config(config, **settings)
    if not any(is_data(file.name) for file in folder.glob("*.safetensors")):
        pickled = sorted(file.name for pattern in ("*.bin", "*.pt", "*.pth") for file in folder.glob(pattern))
        raise DataError(
            "the folder contains no weights as safetensors; pickles are not read because they can execute code",
            file=folder,
            expected="model.safetensors",
            found=", ".join(pickled) or "no weights",
            remedy="download model.safetensors (from the hub: `hf download`); if only a pickle exists, convert it: "
            'python -c "import torch, safetensors.torch as s; s.save_file({k: v.clone() for k, v in '
            "torch.load('pytorch_model.bin', weights_only=True).items()}, 'model.safetensors', {'format': 'pt'})\"",
        )
    try:
        _check_header(folder, size)
        with _quiet():
            settings |= {"config": config, "use_safetensors": True, "local_files_only": True}
            model, report = AutoModel.from_pretrained(
                folder, ignore_mismatched_sizes=True, output_loading_info=True, **settings
            )
    except (RuntimeError, *_UNREADABLE) as error:
        raise DataError(
            f"the weights cannot be read: {error}",
            file=folder,
            remedy="download the folder again, or check the program that wrote it",
        ) from error
    _require_shapes(report["mismatched_keys"], folder)
    own = {name for name, _ in model.named_children()} | {model.base_model_prefix, *_PARTS}
    unexpected = [key for key in report["unexpected_keys"] if key.partition(".")[0] in own]
    _require_known(unexpected, report["missing_keys"], folder)
    missing = sorted(key for key in report["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise DataError(
            f"the weights belong to another model: {len(missing)} are missing",
            file=folder,
            expected=", ".join(missing[:5]) + (", ..." if missing[5:] else ""),
            found=", ".join(sorted(report["unexpected_keys"])[:5]) or None,
            remedy="use a folder whose config.json and model.safetensors belong together",
        )
    require_finite({key: value for key, value in model.state_dict().items() if not key.startswith("pooler.")}, folder)
    return model


def _implied_size(folder: Path, config: PreTrainedConfig, settings: dict[str, Any]) -> int:
    """Return the number of weights implied by a configuration, without allocating them."""
    try:
        with _quiet(), torch.device("meta"):
            return sum(tensor.numel() for tensor in AutoModel.from_config(config, **settings).state_dict().values())
    except Exception as error:  # its type depends on the setting that is wrong
        raise DataError(
            f"the model cannot be built with these settings: {type(error).__name__}: {error}",
            file=folder / "config.json",
            remedy="use a folder written by `save_pretrained` of transformers",
        ) from error


def _check_header(folder: Path, size: int) -> None:
    """Check the types and number of the weights in the headers of their files, before allocating memory.

    Args:
        folder: folder of the model.
        size: number of weights that the configuration implies.

    Raises:
        DataError: weights are not floating-point numbers, or are many fewer than the configuration implies.
        OSError, SafetensorError: a file cannot be read.
    """
    single = folder / "model.safetensors"
    files = [single] if single.is_file() else sorted(f for f in folder.glob("*.safetensors") if is_data(f.name))
    found, total = {}, 0
    for file in files:
        with open_regular(file):
            pass
        with safe_open(file, "pt") as opened:
            for key in opened.keys():  # noqa: SIM118 (not a mapping)
                part = opened.get_slice(key)
                total += math.prod(part.get_shape())
                if part.get_dtype() not in _FLOATS and not key.endswith("num_batches_tracked"):
                    found[key] = part.get_dtype()
    if found:
        raise DataError(
            f"{len(found)} weights are not floating-point tensors; they may be quantised",
            file=folder,
            expected=f"weights of the types {', '.join(_FLOATS)}",
            found=", ".join(f"{key} {kind}" for key, kind in sorted(found.items())[:5]),
            remedy="use the folder of the original weights",
        )
    if size > _LARGEST_RATIO * total and size - total > _LARGEST_EXCESS:
        raise DataError(
            "config.json implies far more weights than the file contains",
            file=folder,
            expected=f"{size} weights",
            found=f"{total} weights",
            remedy="use a folder whose config.json and model.safetensors belong together",
        )


def _require_known(unexpected: Iterable[str], missing: Iterable[str], folder: Path) -> None:
    """Reject weights of blocks, biases and embeddings that the configured network does not have.

    Heads, decoders and parts for pretraining only have other names and are ignored.
    """
    left = sorted(key for key in unexpected if not _UNUSED.fullmatch(key))
    if left and not any(not _UNUSED.fullmatch(key) for key in missing):  # otherwise report the missing weights
        raise DataError(
            f"{len(left)} weights do not belong to the network that config.json describes",
            file=folder,
            expected="a network with the same blocks and biases as the file (`num_hidden_layers`, `qkv_bias`)",
            found=", ".join(left[:5]) + (", ..." if left[5:] else ""),
            remedy="use a folder whose config.json and model.safetensors belong together",
        )


def _require_shapes(mismatched: Iterable[tuple[str, Sequence[int], Sequence[int]]], folder: Path) -> None:
    """Reject weights whose shapes do not match the configuration: (name, shape in the file, expected shape)."""
    shapes = {name: (tuple(found), tuple(want)) for name, found, want in mismatched if not name.startswith("pooler.")}
    if not shapes:
        return
    positions = any("position_embeddings" in name for name in shapes)
    raise DataError(
        f"{len(shapes)} weights have other shapes than config.json implies",
        file=folder,
        expected=", ".join(f"{name} {want}" for name, (_, want) in sorted(shapes.items())[:5]),
        found=", ".join(f"{name} {found}" for name, (found, _) in sorted(shapes.items())[:5]),
        remedy="set `image_size` in config.json to that of the training; input images can have any size"
        if positions
        else "use a folder whose config.json and model.safetensors belong together",
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress transformers' progress bar and report of keys, which are checked here."""
    verbosity, bar = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bar:
            transformers_logging.enable_progress_bar()
