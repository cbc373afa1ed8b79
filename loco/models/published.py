"""Published weights of LoCo and LoCUS as extractors of this project.

LoCo (Kloepfer et al., NeurIPS 2024, github.com/dakloepfer/LoCo) publishes Lightning checkpoints, LoCUS (Kloepfer et
al., ICCV 2023, github.com/dakloepfer/locus) ``.pth`` files. Names are mapped as follows (``N`` is a number):

====================================================  =====================================================
published                                             here
====================================================  =====================================================
``state_dict``, ``model`` or ``model_state_dict``     the weights; a file without these keys contains only weights
``model.``, ``module.`` at the start of a name        removed, also if repeated
``layers.N.*`` (LoCo), or ``N.*`` in bare files       ``head.layers.N.*``
``layers.N.filt`` (LoCo)                              nothing: the fixed blur must equal the one here
``trainable_head.N.*`` (LoCUS)                        ``head.layers.N.*``
``pretrained_model.*`` (LoCo), ``dino_model.*``       the vision transformer, ``encoder.*``:
``cls_token``, ``pos_embed``, ``patch_embed.proj``    ``embeddings.cls_token``, ``.position_embeddings``,
                                                      ``.patch_embeddings.projection``
``blocks.N.attn.qkv``, ``blocks.N.attn.proj``         ``blocks.N.attention.{q,k,v}_proj``, ``.attention.o_proj``
``blocks.N.norm1``, ``.norm2``                        ``blocks.N.layernorm_before``, ``.layernorm_after`` (DINOv2: same)
``blocks.N.ls1.gamma``, ``.ls2.gamma`` (DINOv2)       ``blocks.N.layer_scale1.lambda1``, ``.layer_scale2.lambda1``
``blocks.N.mlp.*``                                    ``blocks.N.mlp.*``
``norm.*``, ``mask_token``, ``head.*``                nothing: not used by these models
====================================================  =====================================================

The outputs equal those of the published code if images consist of whole patches: position embeddings are interpolated
to other grids as in DINO's code (``interpolate_offset`` of 0.1). Other images are padded below and on the right by this
project, but on all sides by the published code.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from loco.errors import ConfigError, DataError
from loco.models.backbones import build_backbone
from loco.models.build import build_extractor
from loco.models.extractor import Extractor
from loco.models.finite import require_dense, require_finite
from loco.models.heads import BlurPool
from loco.models.pickled import REFETCH, require_checkpoint
from loco.models.stored import frozen_weights

Weights = dict[str, Tensor]


class _Kind(NamedTuple):
    head: str  # prefixes of the published names
    transformer: str


_KINDS = {"loco": _Kind("layers.", "pretrained_model."), "locus": _Kind("trainable_head.", "dino_model.")}
_BACKBONES = {  # by channels and patch size
    (384, 8): "dino_vits8",
    (768, 8): "dino_vitb8",
    (384, 14): "dinov2_vits14",
    (768, 14): "dinov2_vitb14",
    (1024, 14): "dinov2_vitl14",
}

# Objects that Lightning and its configuration store in a checkpoint beside the weights. None is imported or called:
# they are replaced by inert objects.
_DESCRIPTIONS = re.compile(
    r"(src|omegaconf|yacs|hydra|lightning|lightning_fabric|pytorch_lightning)\..+"
    r"|collections\.(defaultdict|deque)|typing\.\w+|_?operator\.getitem|enum\.\w+|pathlib\.\w*Path"
    r"|datetime\.\w+|argparse\.Namespace|types\.(SimpleNamespace|GenericAlias)|_codecs\.encode|copyreg\._reconstructor"
    r"|numpy\.\w+|numpy\.(_core|core)\.multiarray\.scalar"
    r"|builtins\.(dict|list|tuple|set|frozenset|str|bytes|bytearray|int|float|bool|complex|slice|range|object|type)"
)
# Mappings created by calling their class; PyTorch's unpickler fills only its own containers.
_MAPPINGS = re.compile(r"collections\.defaultdict|.+Dict")
_KEEP_WEIGHTS = (
    "use the file published by the authors; if the model is your own, save only its weights in the training code: "
    "torch.save({'state_dict': model.state_dict()}, 'weights.ckpt')"
)


def load_published(kind: str, path: str | Path, backbone: Mapping[str, Any] | None = None) -> Extractor:
    """Load an extractor with published weights, in evaluation mode, with its configuration as ``config``.

    No code in the file is run. The vision transformer is taken from ``backbone``. If the file contains one as well, the
    two are compared, and blocks that LoCUS fine-tuned are taken from the file.

    Args:
        kind: ``loco``, the residual network on a frozen DINO or DINOv2; ``locus``, the transformer head.
        path: the published file.
        backbone: for :func:`loco.models.backbones.build_backbone`; None for the one on the hub whose size matches the
            weights. Unless it states others, ``norm`` is false, ``interpolate_offset`` is 0.1 (for the type
            ``transformers``), and ``layer`` (for ``locus``) is the number of blocks in the file, or 11 if it has none.

    Raises:
        ConfigError: unknown kind, or a backbone that cannot be built.
        DataError: the file is damaged or contains more than weights; weights are missing, unknown or have other shapes;
            the weights were trained on another backbone.
    """
    if kind not in _KINDS:
        raise ConfigError(f"unknown published weights {kind!r}; expected one of: {', '.join(_KINDS)}")
    head, transformer = _split(read_weights(path), _KINDS[kind], path)
    layout = _locus_layout(head, path) if kind == "locus" else _loco_layout(head, path)
    channels, blocks = layout.pop("channels"), _count(transformer) or 11
    if transformer:
        channels, patch = _transformer_size(transformer, path)
    else:
        patch = build_backbone(backbone).stride if backbone else 8
    config = {
        "name": "backbone",
        "backbone": {
            **({"layer": blocks} if kind == "locus" else {}),
            **({"interpolate_offset": 0.1} if not backbone or backbone.get("name") == "transformers" else {}),
            "norm": False,
            **(backbone or _default_backbone(channels, patch, path)),
        },
        "stride": patch,
        "head": layout,
    }
    extractor = build_extractor(config)
    renamed = rename_transformer(transformer)
    if tuned := _tuned_blocks(extractor, renamed, kind, path):
        extractor = build_extractor({**config, "train": {"last": tuned}})
    _fill(extractor, {f"head.layers.{key}": value for key, value in head.items()} | renamed, path)
    return extractor.eval()


def rename_transformer(weights: Mapping[str, Tensor]) -> Weights:
    """Rename the weights of a vision transformer from the names in DINO's and DINOv2's code to those used here."""
    later = any(".ls1." in key for key in weights)  # DINOv2
    names = [
        (r"^(cls_token|register_tokens)$", r"embeddings.\1"),
        (r"^pos_embed$", "embeddings.position_embeddings"),
        (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
        (r"\.attn\.proj\.", ".attention.o_proj."),
        (r"\.ls([12])\.gamma$", r".layer_scale\1.lambda1"),
        *([] if later else [(r"\.norm1\.", ".layernorm_before."), (r"\.norm2\.", ".layernorm_after.")]),
    ]
    renamed: Weights = {}
    for key, value in weights.items():
        if re.match(r"norm\.|mask_token$|head\.", key):
            continue
        for pattern, name in names:
            key = re.sub(pattern, name, key)
        if ".attn.qkv." in key and value.ndim:
            for letter, part in zip("qkv", value.chunk(3)):
                renamed["encoder." + key.replace("attn.qkv", f"attention.{letter}_proj")] = part
        else:
            renamed[f"encoder.{key}"] = value
    return renamed


def read_weights(path: str | Path) -> Weights:
    """Return the tensors of a checkpoint by name, without ``model.`` and ``module.`` at the start of the names.

    The file contains a dict of tensors, at its top level or as ``state_dict``, ``model`` or ``model_state_dict``. No
    code in the file is run.

    Returns:
        The weights in single precision.

    Raises:
        DataError: the file is damaged, has no weights, or refers to objects that are neither weights nor known
            settings; a weight is not a dense floating-point tensor, or is present twice.
    """
    content = _unpickle(path)
    if isinstance(content, dict):
        content = next((content[k] for k in ("state_dict", "model", "model_state_dict") if k in content), content)
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()) or not content:
        raise DataError(
            "the file contains no weights",
            file=path,
            expected="named tensors at the top level or in `state_dict`, `model` or `model_state_dict`",
            found=f"a {type(content).__name__} of {_shown(content)}"
            if isinstance(content, dict) and content
            else f"an empty or unsupported {type(content).__name__}",
            remedy=_KEEP_WEIGHTS,
        )
    require_dense(content, path)
    require_finite(content, path)
    weights: Weights = {}
    names: dict[str, str] = {}
    for key, value in content.items():
        name = re.sub(r"^(model\.|module\.)+", "", key)
        if name in names:
            raise DataError(
                f"the file contains two weights for `{name}`, which differ in the prefixes `model.` and `module.`",
                file=path,
                expected="each weight once",
                found=f"{names[name]}, {key}",
                remedy="remove one of the two sets of weights from the file",
            )
        names[name] = key
        weights[name] = value.float() if value.is_floating_point() else value
    return weights


def _unpickle(path: str | Path) -> Any:
    try:
        require_checkpoint(path)
        beside = _named_objects(path)
        if foreign := sorted(name for name in beside if not _DESCRIPTIONS.fullmatch(name)):
            raise pickle.UnpicklingError(f"it refers to {_shown(foreign)}")
        with safe_globals([(_stand_in(name), name) for name in beside]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except DataError:
        raise
    except pickle.UnpicklingError as error:
        problem = str(error).partition("WeightsUnpickler error:")[2] or str(error)
        raise DataError(
            "the file contains more than weights and was not opened, because its content could execute code",
            file=path,
            found=problem.strip().partition("\n")[0],
            remedy=_KEEP_WEIGHTS,
        ) from error
    except Exception as error:  # damaged files raise many types of errors
        raise DataError(
            f"the file cannot be read as a PyTorch checkpoint: {error}", file=path, remedy=REFETCH
        ) from error


def _named_objects(path: str | Path) -> set[str]:
    """Return the names of objects in a file other than weights and plain values; none for files before PyTorch 1.6."""
    return set(get_unsafe_globals_in_checkpoint(path)) if zipfile.is_zipfile(path) else set()


def _stand_in(name: str) -> Callable[..., Any]:
    """Return the replacement of an object that a checkpoint refers to; the object itself is not imported."""
    if name == "collections.deque":
        return lambda *_: []
    if _MAPPINGS.fullmatch(name):
        return _Mapping
    return _Inert


class _Mapping:
    """Replacement of a class of mappings: a counter, to which PyTorch's unpickler can add any items and attributes."""

    def __new__(cls, *_: Any, **__: Any) -> Any:
        return Counter()


class _Called(type):
    """Metaclass by which calling a class differs from calling its ``__new__``."""

    def __call__(cls: Any, *_: Any, **__: Any) -> _Inert:
        return object.__new__(cls)


class _Inert(metaclass=_Called):
    """Replacement of any other object. It accepts any arguments and does nothing.

    A pickle either calls the class (an enumeration, a path), or creates an empty instance and then fills it; in the
    latter case it may be a subclass of dict (the configurations of yacs), so it must be a mapping.
    """

    def __new__(cls, *_: Any, **__: Any) -> Any:
        return Counter()

    def __setstate__(self, _: Any) -> None:
        pass


def _split(weights: Weights, kind: _Kind, path: str | Path) -> tuple[Weights, Weights]:
    """Return the weights of the head and of the vision transformer, without the prefixes of their names."""
    if all(re.match(r"\d+\.", key) for key in weights):
        weights = {kind.head + key: value for key, value in weights.items()}
    head, transformer, unknown = {}, {}, []
    for key, value in weights.items():
        if re.match(re.escape(kind.head) + r"\d+\.", key):
            head[key.removeprefix(kind.head)] = value
        elif key.startswith(kind.transformer):
            transformer[key.removeprefix(kind.transformer)] = value
        else:
            unknown.append(key)
    if unknown or not head:
        raise DataError(
            "the file contains weights of another model",
            file=path,
            expected=f"{kind.head}* and {kind.transformer}*",
            found=_shown(unknown) if unknown else f"no {kind.head}*",
            remedy="set `weights` to the kind of the file (loco or locus), or use a file published by their authors",
        )
    return head, transformer


def _loco_layout(head: Weights, path: str | Path) -> dict[str, Any]:
    """Return the options of the residual network in a file; its fixed blur filters are removed from ``head``."""
    for key in [key for key in head if key.endswith(".filt")]:
        taps = BlurPool().taps
        blur = head.pop(key)
        if blur.shape[1:] != taps.shape[1:] or not torch.allclose(blur, taps.expand_as(blur), atol=1e-6):
            raise DataError(
                f"the blur filter `{key}` differs from that of LoCo",
                file=path,
                expected="the 4 x 4 binomial filter",
                remedy="use a checkpoint of LoCo published by its authors",
            )
    convolutions = sorted((int(key.split(".")[0]), len(value)) for key, value in head.items() if value.ndim == 4)
    channels = [count for _, count in convolutions]
    if len(channels) < 4:
        raise DataError(
            f"the file does not contain the residual network of LoCo: it has {len(channels)} convolutions",
            file=path,
            expected="at least 4 convolutions",
            found=_shown(head),
            remedy="use a checkpoint of LoCo published by its authors",
        )
    return {"name": "residual_cnn", "widths": channels[:-1], "aligned": False, "channels": channels[-1]}


def _locus_layout(head: Weights, path: str | Path) -> dict[str, Any]:
    """Return the options of the LoCUS head in a file."""
    last = f"{max(int(key.split('.')[0]) for key in head)}.weight"
    if "0.weight" not in head or last not in head or head["0.weight"].ndim != 2 or not head[last].ndim:
        raise DataError(
            "the file does not contain the head of LoCUS",
            file=path,
            expected=f"linear layers 0.weight and {last}",
            found=_shown(head),
            remedy="use weights of LoCUS published by its authors",
        )
    width, channels = head["0.weight"].shape
    blocks = sum(key.endswith(".norm1.weight") for key in head)
    layout = {"dim": len(head[last]), "width": width, "blocks": blocks}
    return {"name": "locus", **layout, "class_token": True, "channels": channels}


def _transformer_size(weights: Weights, path: str | Path) -> tuple[int, int]:
    """Return the (channels, patch size) of a vision transformer."""
    embedding = weights.get("patch_embed.proj.weight")
    if embedding is None or embedding.ndim != 4:
        raise DataError(
            "the vision transformer in the file has no `patch_embed.proj.weight` of four dimensions",
            file=path,
            found=_shown(weights),
            remedy="use weights published by the authors of LoCo or LoCUS",
        )
    return embedding.shape[0], embedding.shape[3]


def _default_backbone(channels: int, patch: int, path: str | Path) -> dict[str, str]:
    if (channels, patch) not in _BACKBONES:
        raise DataError(
            "no known backbone has the size that the weights require",
            file=path,
            expected=", ".join(f"{c} channels, patch {p} ({name})" for (c, p), name in _BACKBONES.items()),
            found=f"{channels} channels, patch {patch}",
            remedy="set `backbone` to the one on which the weights were trained",
        )
    return {"name": "transformers", "path": _BACKBONES[channels, patch]}


def _count(transformer: Weights) -> int:
    """Return the number of blocks of a vision transformer."""
    return len({key.split(".")[1] for key in transformer if key.startswith("blocks.")})


def _tuned_blocks(extractor: Extractor, published: Weights, kind: str, path: str | Path) -> int:
    """Return the number of last blocks whose weights in the file differ from the backbone.

    Raises:
        DataError: weights differ that the authors do not train.
    """
    own = extractor.state_dict()
    other = {
        key
        for key, value in published.items()
        if key in own and own[key].shape == value.shape and not torch.allclose(own[key], value, rtol=1e-4, atol=1e-6)
    }
    blocks = [int(key.split(".")[2]) for key in other if key.startswith("encoder.blocks.")]
    if len(blocks) < len(other) or (other and kind == "loco"):
        raise DataError(
            "the head was trained on another backbone than the specified one",
            file=path,
            expected="a backbone with the weights in the file",
            found=f"{extractor.config['backbone'].get('path')}, with other weights for {_shown(other)}",
            remedy="set the backbone on which the weights were trained, with the same layer",
        )
    return len(list(extractor.encoder.get_submodule("blocks").children())) - min(blocks) if blocks else 0


def _fill(extractor: Extractor, weights: Weights, path: str | Path) -> None:
    """Load published weights; the weights of the backbone and the counters of batch norms may be missing.

    Raises:
        DataError: weights are missing, unknown or have another shape.
    """
    own = extractor.state_dict()
    lacking = [
        key
        for key in own.keys() - weights.keys() - frozen_weights(extractor).keys()
        if not key.endswith(".num_batches_tracked")
    ]
    shapes = {key: (tuple(own[key].shape), tuple(weights[key].shape)) for key in own.keys() & weights.keys()}
    problems = {
        "lacking": lacking,
        "unknown": weights.keys() - own.keys(),
        "of another shape": [f"{key} {got} for {want}" for key, (want, got) in shapes.items() if want != got],
    }
    if any(problems.values()):
        raise DataError(
            "the weights do not match the model",
            file=path,
            found="; ".join(f"{what}: {_shown(keys)}" for what, keys in problems.items() if keys),
            remedy="set the backbone on which they were trained",
        )
    extractor.load_state_dict(weights, strict=False)


def _shown(names: Iterable[str], count: int = 8) -> str:
    names = sorted(map(str, names))
    return ", ".join(names[:count]) + (f", ... ({len(names)} in all)" if len(names) > count else "")
