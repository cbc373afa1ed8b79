"""Model files.

A model file is a safetensors file: plain numbers, nothing in it can run. Its metadata hold the model's configuration
and what made it. Of a model on a backbone it holds what is not in the backbone's own files, and a fingerprint of those.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from loco.errors import ConfigError, DataError
from loco.models.adapted import AdaptedBackbone
from loco.models.build import build_extractor
from loco.models.concat import Concat
from loco.models.extractor import FeatureExtractor
from loco.storage import atomic_path

_FORMAT = "loco-model"
_REMEDY = "give a `model.safetensors` that the training step wrote"


def save_extractor(
    extractor: FeatureExtractor, config: Mapping[str, Any], path: Path, facts: Mapping[str, Any] | None = None
) -> None:
    """Write an extractor's weights, its configuration and further facts to a safetensors file, atomically."""
    content: dict[str, Any] = {"model": dict(config), "facts": facts or {}}
    if backbones := _fingerprints(extractor):
        content["backbones"] = backbones
    # One key: safetensors writes several in an order that changes from run to run.
    metadata = {_FORMAT: json.dumps(content, sort_keys=True)}
    with atomic_path(path) as temporary:
        save_file({k: v.contiguous() for k, v in _stored(extractor).items()}, temporary, metadata=metadata)


def load(path: str | Path, device: str | torch.device = "cpu", backbone: str | Path | None = None) -> FeatureExtractor:
    """The extractor of a model file, in evaluation mode.

    Args:
        path: the file.
        device: where to put the extractor.
        backbone: where the backbone that it stands on lies, if not beside the file or where it lay in the training.

    Raises:
        ConfigError, DataError: the backbone that it stands on is not there, or it stands on none and one is given.
        DataError: not a model file, truncated, its weights do not fit its configuration, or another backbone than that
            of the training is found under its name.
    """
    content = _content(path)
    if backbone and "backbones" not in content:
        raise ConfigError(f"{path} stands on no backbone, but one is given: {backbone}")
    extractor = build_extractor(_located(content["model"], Path(path).parent, backbone))
    extractor.facts = content["facts"]
    load_weights(extractor, path)
    return extractor.to(device).eval()


def load_weights(extractor: FeatureExtractor, path: str | Path) -> None:
    """Give an extractor the weights of a model file: one of the same kind, on the same backbone.

    Raises:
        DataError: not a model file, truncated, of another model, or on another backbone.
    """
    content = _content(path)
    try:
        weights = load_file(path, device="cpu")
    except (SafetensorError, OSError) as error:
        raise _broken(path, error) from error
    _check_backbones(extractor, content.get("backbones", {}), path)
    lacking = sorted(_stored(extractor).keys() - weights.keys())
    try:
        foreign = extractor.load_state_dict(weights, strict=False).unexpected_keys
    except RuntimeError as error:  # names each tensor of another shape
        raise DataError(f"holds weights of another model: {error}", file=path, remedy=_REMEDY) from error
    if lacking or foreign:
        raise DataError(
            "holds weights of another model",
            file=path,
            expected=f"also {', '.join(lacking)}" if lacking else None,
            found=f"also {', '.join(sorted(foreign))}" if foreign else None,
            remedy=_REMEDY,
        )


def _content(path: str | Path) -> dict[str, Any]:
    if content := read_content(path):
        return content
    raise DataError("is not a model of this project", file=path, expected=f"metadata `{_FORMAT}`", remedy=_REMEDY)


def read_content(path: str | Path) -> dict[str, Any] | None:
    """What a model file says of itself: ``model``, ``facts`` and perhaps ``backbones``. None of other safetensors.

    Raises:
        DataError: it is broken, or no safetensors.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        if _FORMAT not in metadata:
            return None
        content = json.loads(metadata[_FORMAT])
        return {**content, "model": dict(content["model"]), "facts": dict(content["facts"])}
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise _broken(path, error) from error


def describe(extractor: FeatureExtractor) -> dict[str, int]:
    """Sizes of an extractor: its ``parameters``, the ``trainable`` ones, and the numbers ``stored`` in its file."""
    return {
        "parameters": sum(p.numel() for p in extractor.parameters()),
        "trainable": extractor.trainable_parameters,
        "stored": sum(tensor.numel() for tensor in _stored(extractor).values()),
    }


def backbones_of(extractor: FeatureExtractor, config: Mapping[str, Any]) -> dict[str, str]:
    """Where its configuration says the backbones of an extractor are -> their fingerprints, SHA-256."""
    if isinstance(extractor, Concat):
        members = zip(extractor.models, config["models"])
        return {path: digest for member in members for path, digest in backbones_of(*member).items()}
    return {config["backbone"]["path"]: extractor.fingerprint()} if isinstance(extractor, AdaptedBackbone) else {}


def _stored(extractor: FeatureExtractor) -> dict[str, Tensor]:
    """The state of an extractor without what its backbones' own files hold."""
    elsewhere = {prefix + key for prefix, part in _backbones(extractor) for key in part.frozen_weights()}
    return {key: value for key, value in extractor.state_dict().items() if key not in elsewhere}


def _fingerprints(extractor: FeatureExtractor) -> dict[str, str]:
    return {prefix: part.fingerprint() for prefix, part in _backbones(extractor)}


def _located(model: Mapping[str, Any], folder: Path, backbone: str | Path | None) -> dict[str, Any]:
    """A model's configuration with its backbone where it is: the one given, or one beside the file in ``folder``."""
    if "models" in model:
        return {**model, "models": [_located(member, folder, backbone) for member in model["models"]]}
    if "backbone" not in model:
        return dict(model)
    own = model["backbone"]
    path = backbone or (folder / own["path"] if (folder / own["path"]).exists() else own["path"])
    return {**model, "backbone": {**own, "path": str(path)}}


def _backbones(extractor: FeatureExtractor) -> Iterator[tuple[str, AdaptedBackbone]]:
    """The extractors on a backbone that an extractor is or holds, each with the start of its keys."""
    for name, module in extractor.named_modules():
        if isinstance(module, AdaptedBackbone):
            yield f"{name}." if name else "", module


def _broken(path: str | Path, error: Exception) -> DataError:
    return DataError(f"cannot be read as a model: {error}", file=path, remedy=_REMEDY)


def _check_backbones(extractor: FeatureExtractor, wanted: Mapping[str, str], path: str | Path) -> None:
    found = _fingerprints(extractor)
    for prefix, part in _backbones(extractor):
        if found[prefix] != wanted.get(prefix):
            raise DataError(
                "was trained on another backbone than is found under its name here",
                file=path,
                expected=f"weights with the SHA-256 {wanted.get(prefix)}",
                found=f"{found[prefix]} ({part.source})",
                remedy="bring the backbone's weights of then to that place, or train anew on those of now",
            )
