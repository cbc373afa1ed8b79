"""Read the folder of a pretrained model of transformers: its configuration, the colours of its inputs, its weights.

Only safetensors are read: no code of a downloaded folder can run. Everything is checked before memory is allocated.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.activations import ACT2FN
from transformers.models.auto.modeling_auto import MODEL_FOR_BACKBONE_MAPPING, MODEL_MAPPING
from transformers.utils import logging as transformers_logging

from loco.errors import ConfigError, DataError
from loco.files import is_data, open_regular
from loco.models.finite import require_finite
from loco.models.model_types import IMAGENET, PARTS, TYPES, Colours, HierarchyType, VisionTransformerType

_UNREADABLE = (
    *(OSError, ImportError, KeyError, RecursionError, TypeError, ValueError),
    *(SafetensorError, StrictDataclassError),
)
_LARGEST_JSON = 1 << 24  # bytes of a configuration; on the hub they have a few kilobytes
_MAX_BLOCKS = 1000
# A configuration is refused if it implies more weights than the file contains, by both this factor and this difference.
_LARGEST_RATIO, _LARGEST_EXCESS = 10, 1 << 20
_FLOATS = ("F64", "F32", "F16", "BF16")  # safetensors dtypes that are read
_INTEGERS = ("num_batches_tracked", "summary_idxs")  # buffers that are counters or indices
# Weights that do not affect the features, or that belong to other stages than the requested one.
_UNUSED = re.compile(r"(.*\.)?(mask_token|inv_freq|(pooler|hidden_states_norms)\..+)")
# Norms that AutoBackbone adds to a network that was trained without them: they start as 1 and 0, not at random.
_ADDED = "hidden_states_norms."
# Other names of parts of a network in files of other releases and code.
_NAMES = ("blocks", "embedder", "embeddings", "encoder", "layer", "layernorm", "layers", "norm", "patch_embed")
# Types of AutoBackbone whose networks are not those of transformers.
_FOREIGN = ("timm_backbone",)
# Settings that change what the forward method returns or how it computes, not the network.
_OUTPUTS = {"return_dict": True, "output_hidden_states": False, "output_attentions": False}

logger = logging.getLogger(__name__)


class Description(NamedTuple):
    """The network that a folder describes: its type, its configuration, and the prefix of the names of its weights.

    ``type`` is None for a network that is supported by AutoBackbone alone.
    """

    kind: str
    type: VisionTransformerType | HierarchyType | None
    config: PreTrainedConfig
    prefix: str = ""


def read_json(file: Path) -> dict[str, Any]:
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


def read_description(folder: Path) -> Description:
    """Read the configuration of a folder, or that of the image encoder in it (:data:`loco.models.model_types.PARTS`).

    Raises:
        ConfigError: the type of the model is not supported, or the weights are quantised.
        DataError: the configuration cannot be read, or describes no network.
    """
    file = folder / "config.json"
    try:
        settings = read_json(file)
        if settings.get("quantization_config") is not None:
            raise ConfigError(f"{file}: quantised weights are not supported; use the folder of the original weights")
        kind, own, prefix = _image_encoder(settings, file)
        row = TYPES.get(kind)
        own = {key: value for key, value in own.items() if not key.endswith("attn_implementation")}
        config = transformers.AutoConfig.for_model(kind).from_dict({**own, **_OUTPUTS})
        if getattr(config, "hidden_act", "gelu") not in ACT2FN:
            raise ValueError(f"unknown activation `hidden_act` {config.hidden_act!r}")
        if not 1 <= (blocks := _count_blocks(config)) <= _MAX_BLOCKS:
            raise ValueError(f"it must have 1 to {_MAX_BLOCKS} blocks, found {blocks}")
    except (AttributeError, *_UNREADABLE) as error:
        raise DataError(
            f"the file cannot be read as the configuration of a model: {error}",
            file=file,
            remedy="use a folder written by `save_pretrained` of transformers",
        ) from error
    if hasattr(config, "drop_path_rate"):
        config.drop_path_rate = 0.0  # stochastic depth is random, but a training step must depend on its batch and seed
    if row is None:
        return Description(kind, row, config, prefix)
    for name, value in row.requires.items():
        if (stated := getattr(config, name, value)) != value:
            raise ConfigError(
                f"{file}: a model of type {kind!r} is supported only with `{name}`: {value}, found {stated}; use "
                "another model"
            )
    has_fixed_size = isinstance(row, VisionTransformerType) and row.fixed(config)
    for name in (*([row.patch] if row.patch else []), *(["image_size"] if has_fixed_size else [])):
        setattr(config, name, _square(name, getattr(config, name), file))
    for name, value in row.overrides.items():
        setattr(config, name, value)
    return Description(kind, row, config, prefix)


def _image_encoder(settings: Mapping[str, Any], file: Path) -> tuple[str, dict[str, Any], str]:
    """Return the type and the settings of the image encoder in a configuration, and the prefix of its weights."""
    kind = settings.get("model_type")
    if kind not in PARTS:
        if kind not in TYPES and kind not in backbone_types():
            known = ", ".join([*sorted([*TYPES, *PARTS]), *backbone_types()])
            raise ConfigError(f"{file}: model type {kind!r} is not supported; supported are: {known}")
        return kind, dict(settings), ""
    part, own = PARTS[kind], settings
    if part.path[0] not in settings:
        raise ValueError(f"it has no `{part.path[0]}`; it may be that of a model with code of its own")
    for name in part.path:
        own = own.get(name, {})
        if not isinstance(own, dict):
            raise ValueError(f"`{name}` must be an object in braces, found {own!r:.100}")
    if own.get("model_type", part.kind) != part.kind:
        raise ConfigError(
            f"{file}: the image encoder of a model of type {kind!r} must have the type {part.kind!r}, found "
            f"{own['model_type']!r}"
        )
    return part.kind, dict(own), part.prefix


@cache
def backbone_types() -> tuple[str, ...]:
    """Return the types that AutoBackbone supports in addition to :data:`loco.models.model_types.TYPES`."""
    kinds = {config.model_type for config in MODEL_FOR_BACKBONE_MAPPING}
    return tuple(sorted(kinds - TYPES.keys() - PARTS.keys() - set(_FOREIGN)))


def _count_blocks(config: PreTrainedConfig) -> int:
    """Return the number of blocks of a network, of all stages."""
    for name in ("depths", "blocks_per_stage"):
        if hasattr(config, name):
            return sum(getattr(config, name))
    return getattr(config, "num_hidden_layers", 1)


def _square(name: str, size: int | Sequence[int], file: Path) -> int:
    """Return the side of a square, which may be stated as a number or as height and width.

    Raises:
        ConfigError: the side is not a positive integer, or height and width differ.
    """
    sides = set(size) if isinstance(size, list | tuple) else {size}
    side = sides.pop() if sides else None
    if sides or not isinstance(side, int) or isinstance(side, bool) or side < 1:
        raise ConfigError(
            f"{file}: `{name}` must be a positive integer, or equal height and width, found {size}; use a model with "
            "square images and patches"
        )
    return side


def read_colours(folder: Path, default: Colours = IMAGENET, notice: bool = True) -> Colours:
    """Return the mean and standard deviation with which the model normalises colours in [0, 1].

    A preprocessor multiplies 8-bit colours by ``rescale_factor`` (1 / 255 unless stated; not at all without
    ``do_rescale``) before it normalises them, so its mean and standard deviation apply to colours from 0 to 255 times
    that factor.

    Args:
        folder: folder of the model.
        default: usual values of the type of the model, which are used if the folder states none.
        notice: whether to report that the default is used.

    Raises:
        ConfigError: the preprocessor has an option that is not supported.
        DataError: the settings of the preprocessor cannot be read or are invalid.
    """
    file, settings = _read_preprocessor(folder)
    if settings is None:
        if notice:
            _report_default_colours(folder, default)
        return default
    for name, what in (("do_flip_channel_order", "colours in the order BGR"), ("rescale_offset", "colours in [-1, 1]")):
        if settings.get(name):
            raise ConfigError(f"{file}: `{name}` ({what}) is not supported; use a model without this option")
    try:
        mean, std = settings.get("image_mean", default[0]), settings.get("image_std", default[1])
        if not settings.get("do_normalize", True):
            mean, std = (0.0,) * 3, (1.0,) * 3
        scale = 255 * (settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale", True) else 1)
        finite = all(map(math.isfinite, [*mean, *std, scale]))
        if not (finite and len(mean) == len(std) == 3 and min(std) > 0 and scale > 0):
            raise ValueError(f"image_mean {mean}, image_std {std}, rescale_factor {settings.get('rescale_factor')}")
        return _scaled(mean, scale), _scaled(std, scale)
    except (OverflowError, TypeError, ValueError) as error:
        raise _no_preprocessor(file, error) from error


def _scaled(colour: Sequence[float], scale: float) -> tuple[float, float, float]:
    red, green, blue = (value / scale for value in colour)
    return red, green, blue


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
            settings = read_json(file)
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
        remedy="download the file again, or correct it",
    )


@cache
def _report_default_colours(folder: Path, colours: Colours) -> None:
    """Warn, once per folder, that the model does not state the normalisation of its inputs."""
    logger.warning(
        "%s has no preprocessor_config.json: its inputs are normalised with the mean %s and the standard deviation %s; "
        "set `mean` and `std` of the backbone if the model was trained with others",
        folder,
        *colours,
    )


def load_network(folder: Path, found: Description, pretrained: bool = True) -> PreTrainedModel:
    """Load a network in single precision, with all used weights from the files of the folder, or with random weights.

    Args:
        folder: the folder.
        found: result of :func:`read_description` for the folder; a network of AutoBackbone returns the stages that its
            configuration selects.
        pretrained: False for random weights, which requires ``config.json`` only.

    Raises:
        DataError: the network cannot be built; weights are missing, damaged, of another network, or not finite.
    """
    size = _implied_size(folder, found)
    if not pretrained:
        return _build(found)
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
            model, report = _class_of(found).from_pretrained(
                folder,
                config=found.config,
                key_mapping={f"^{re.escape(found.prefix)}": ""} if found.prefix else None,
                use_safetensors=True,
                local_files_only=True,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                **_settings(found),
            )
    except (RuntimeError, *_UNREADABLE) as error:
        raise DataError(
            f"the weights cannot be read: {error}",
            file=folder,
            remedy="download the folder again, or check the program that wrote it",
        ) from error
    unused = ("pooler.", *([f"{name}." for name in found.type.unused] if found.type else [_ADDED]))
    _require_shapes([key for key in report["mismatched_keys"] if not key[0].startswith(unused)], folder)
    own = {name for name, _ in model.named_children()} | {model.base_model_prefix, *_NAMES}
    unexpected = [key for key in report["unexpected_keys"] if key.partition(".")[0] in own]
    _require_known(unexpected, report["missing_keys"], folder)
    missing = sorted(key for key in report["missing_keys"] if not key.startswith(unused))
    if missing:
        raise DataError(
            f"the weights belong to another model: {len(missing)} of the required weights are missing",
            file=folder,
            expected=", ".join(missing[:5]) + (", ..." if missing[5:] else ""),
            found=", ".join(sorted(report["unexpected_keys"])[:5]) or None,
            remedy="use a folder whose config.json and model.safetensors belong together",
        )
    require_finite({key: value for key, value in model.state_dict().items() if not key.startswith(unused)}, folder)
    return model


def _class_of(found: Description) -> Any:
    """Return the class of a network. AutoBackbone would query the hub for a model with the name of the folder."""
    if found.type is None:
        return MODEL_FOR_BACKBONE_MAPPING[type(found.config)]
    if found.type.architecture:
        return getattr(transformers, found.type.architecture)
    return MODEL_MAPPING[type(found.config)]


def _build(found: Description) -> PreTrainedModel:
    """Build a network with random weights."""
    return _class_of(found)._from_config(found.config, **_settings(found))


def _settings(found: Description) -> dict[str, Any]:
    """Return the dtype and the attention implementation of a network: that of PyTorch if the network supports it."""
    sdpa = _class_of(found)._supports_sdpa
    return {"dtype": torch.float32, "attn_implementation": "sdpa" if sdpa else "eager"}


def _implied_size(folder: Path, found: Description) -> int:
    """Return the number of weights implied by a configuration, without allocating them."""
    try:
        with _quiet(), torch.device("meta"):
            return sum(tensor.numel() for tensor in _build(found).state_dict().values())
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
                if part.get_dtype() not in _FLOATS and not key.endswith(_INTEGERS):
                    found[key] = part.get_dtype()
    if found:
        raise DataError(
            f"some weights ({len(found)}) are not floating-point tensors; they may be quantised",
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

    Heads, decoders and parts used only in pretraining are not among ``unexpected``, because their names differ.
    """
    left = sorted(key for key in unexpected if not _UNUSED.fullmatch(key))
    if left and not any(not _UNUSED.fullmatch(key) for key in missing):  # otherwise report the missing weights
        raise DataError(
            f"some weights ({len(left)}) do not belong to the network that config.json describes",
            file=folder,
            expected="a network with the same blocks and biases as the file (`num_hidden_layers`, `qkv_bias`)",
            found=", ".join(left[:5]) + (", ..." if left[5:] else ""),
            remedy="use a folder whose config.json and model.safetensors belong together",
        )


def _require_shapes(mismatched: Iterable[tuple[str, Sequence[int], Sequence[int]]], folder: Path) -> None:
    """Reject weights whose shapes, (name, shape in the file, expected shape), do not match the configuration."""
    shapes = {name: (tuple(found), tuple(want)) for name, found, want in mismatched}
    if not shapes:
        return
    positions = any("position_embedding" in name for name in shapes)
    raise DataError(
        f"some weights ({len(shapes)}) have other shapes than config.json implies",
        file=folder,
        expected=", ".join(f"{name} {want}" for name, (_, want) in sorted(shapes.items())[:5]),
        found=", ".join(f"{name} {found}" for name, (found, _) in sorted(shapes.items())[:5]),
        remedy="set `image_size` in config.json to that of the pretraining; input images can have any size"
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
