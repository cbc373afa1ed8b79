"""Read and write model files.

A model file is a safetensors file: it contains numbers and no executable code. Its metadata contain a content id
(:mod:`loco.storage.content_id`), the configuration of the model, facts about how it was made, and its provenance
record (:mod:`loco.records`). For a model on a backbone, the file contains only the weights that the backbone's own
files do not contain, and the SHA-256 of the frozen weights of the backbone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from h5py import is_hdf5
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from loco.errors import ConfigError, DataError
from loco.files import open_regular
from loco.fingerprints import file_fingerprint
from loco.models.build import build_extractor
from loco.models.catalogue import STORABLE, parts_of
from loco.models.extractor import Extractor
from loco.models.finite import require_finite
from loco.records import Recipe, Record, require_recipe
from loco.storage import atomic_path
from loco.storage.content_id import BLANK, seal, verify_content_id

_FORMAT = "loco-model"
_REMEDY = "use a `model.safetensors` written by the training step"
_DEEPEST = 8  # maximum nesting of `concat`
# Errors other than those of this project that building a model from an arbitrary configuration can raise.
_UNBUILDABLE = (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True)
class StoredModel:
    """Content of a model file: its configuration, facts about its training, its content id and its record, if any."""

    model: Mapping[str, Any]
    facts: Mapping[str, Any]
    content_id: str
    record: Record | None


def save_extractor(
    extractor: Extractor,
    config: Mapping[str, Any],
    path: Path,
    facts: Mapping[str, Any] | None = None,
    record: Record | None = None,
) -> None:
    """Write an extractor's weights, its configuration, facts and record to a safetensors file, atomically.

    Raises:
        ConfigError: the configuration cannot be stored, for example because it refers to another model file.
        DataError: the disk is full.
    """
    if problem := _config_problem(config):
        raise ConfigError(f"this model cannot be stored: {problem}")
    content: dict[str, Any] = {"model": dict(config), "facts": facts or {}}
    if backbones := _fingerprints(extractor):
        content["backbones"] = backbones
    if record:
        content["record"] = record.to_json()
    # A single key: safetensors writes several keys in a random order. The content id comes first in it.
    text = f'{{"content_id": "{BLANK}", {json.dumps(content, sort_keys=True)[1:]}'
    with atomic_path(path) as temporary:
        save_file({k: v.contiguous() for k, v in _stored(extractor).items()}, temporary, metadata={_FORMAT: text})
        seal(temporary)


def require_model(path: str | Path, expected: Recipe | None = None) -> StoredModel:
    """Check a model file against its content id and return its metadata; the weights are not loaded.

    Args:
        path: the file.
        expected: the recipe by which it must have been made; None to accept any.

    Returns:
        Its configuration, facts, content id and provenance record.

    Raises:
        DataError: the file is missing, not a model file, damaged, or was not made as expected.
    """
    content = _content(path)
    record = content.get("record")
    stored = StoredModel(
        content["model"],
        content["facts"],
        content["content_id"],
        Record.from_json(record) if record else None,
    )
    if expected is not None:
        require_recipe(stored.record, expected, file=path)
    return stored


def load(
    path: str | Path,
    device: str | torch.device = "cpu",
    backbone: str | Path | None = None,
    expected: Recipe | None = None,
) -> Extractor:
    """Load the extractor of a model file, in evaluation mode.

    Args:
        path: the file.
        device: device of the extractor.
        backbone: path of its backbone; None if the backbone is beside the file or at the path used during training.
        expected: the recipe by which the file must have been made; None to accept any.

    Raises:
        ConfigError: a backbone is passed, but the model has none.
        DataError: the file is missing, not a model file, damaged, or was not made as expected; no model can be built
            from its configuration; its weights do not fit or are not finite; the backbone is missing, or is not the one
            used during training.
    """
    content = _content(path)
    if expected is not None:
        require_recipe(Record.from_json(content["record"]) if "record" in content else None, expected, file=path)
    if backbone and "backbones" not in content:
        raise ConfigError(f"{path} requires no backbone, but one is specified: {backbone}; remove it")
    extractor = _build(_located(content["model"], Path(path).parent, backbone), path)
    extractor.facts = content["facts"]
    _load_weights(extractor, path, content)
    return extractor.to(device).eval()


def load_weights(extractor: Extractor, path: str | Path) -> None:
    """Load the weights of a model file into an extractor with the same configuration, on the same backbone.

    Raises:
        DataError: the file is not a model file or is damaged; its weights belong to another model (names, shapes or
            dtypes), are not finite, or require another backbone.
    """
    _load_weights(extractor, path, _content(path))


def _load_weights(extractor: Extractor, path: str | Path, content: Mapping[str, Any]) -> None:
    try:
        weights = load_file(path, device="cpu")
    except (SafetensorError, OSError) as error:
        raise _broken(path, error) from error
    _check_backbones(extractor, content.get("backbones", {}), path)
    _check_weights(extractor, weights, path)
    extractor.load_state_dict(weights, strict=False)


def read_content(path: str | Path) -> dict[str, Any] | None:
    """Return the metadata of a model file, such as ``model``, ``facts`` and ``backbones``, without reading its weights.

    Returns:
        The metadata, with ``model`` (configuration), ``facts``, ``content_id``, and if present, ``backbones`` (SHA-256)
        and ``record``; None for a safetensors file that is not a model of this project.

    Raises:
        DataError: the file cannot be read, is not a safetensors file, or its configuration is not that of a model.
    """
    try:
        with open_regular(path), safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        if _FORMAT not in metadata:
            return None
        content = json.loads(metadata[_FORMAT])
        content = {**content, "model": dict(content["model"]), "facts": dict(content["facts"])}
        backbones = dict(content.get("backbones", {}))
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise _broken(path, error) from error
    if problem := _config_problem(content["model"]):
        raise DataError(f"the configuration in the file is invalid: {problem}", file=path, remedy=_REMEDY)
    return {**content, "backbones": backbones} if backbones else content


def describe(extractor: Extractor) -> dict[str, int]:
    """Return the numbers of ``parameters``, of ``trainable`` parameters, and of values ``stored`` in its model file."""
    return {
        "parameters": sum(p.numel() for p in extractor.parameters()),
        "trainable": extractor.trainable_parameters,
        "stored": sum(tensor.numel() for tensor in _stored(extractor).values()),
    }


def backbones_of(extractor: Extractor, config: Mapping[str, Any]) -> dict[str, str]:
    """Return the SHA-256 of each backbone of an extractor, by its path in ``config``."""
    paths = [part["backbone"]["path"] for part in parts_of(config) if part["name"] == "backbone"]
    return dict(zip(paths, _fingerprints(extractor).values(), strict=True))


def frozen_weights(extractor: Extractor) -> dict[str, Tensor]:
    """Return the entries of the ``state_dict`` of an extractor on a backbone that the backbone's own files contain.

    The result is empty if the backbone's weights were drawn at random.
    """
    if not extractor.config["backbone"].get("pretrained", True):
        return {}
    trained = {
        f"{name}." if name else ""
        for name, module in extractor.encoder.named_modules()
        if any(p.requires_grad for p in module.parameters(recurse=False))
    }
    return {
        f"encoder.{key}": value
        for key, value in extractor.encoder.state_dict().items()
        if key.removesuffix(key.rpartition(".")[2]) not in trained
    }


def _stored(extractor: Extractor) -> dict[str, Tensor]:
    """Return the state of an extractor without the content of the files of its backbones."""
    elsewhere = {prefix + key for prefix, part in _on_backbones(extractor) for key in frozen_weights(part)}
    return {key: value for key, value in extractor.state_dict().items() if key not in elsewhere}


def _on_backbones(extractor: Extractor) -> Iterator[tuple[str, Extractor]]:
    """Yield the extractors with a backbone within an extractor (or itself), each with the prefix of its keys."""
    for name, module in extractor.named_modules():
        if isinstance(module, Extractor) and "backbone" in module.config:
            yield f"{name}." if name else "", module


def _fingerprints(extractor: Extractor) -> dict[str, str]:
    return {prefix: _fingerprint(part) for prefix, part in _on_backbones(extractor)}


def _fingerprint(extractor: Extractor) -> str:
    """Return the SHA-256 of the frozen weights of the backbone, or of its file if it has no parameters (ONNX)."""
    if not any(True for _ in extractor.encoder.parameters()):
        return file_fingerprint(extractor.config["backbone"]["path"])
    digest = hashlib.sha256()
    for name, tensor in sorted(frozen_weights(extractor).items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _content(path: str | Path) -> dict[str, Any]:
    """Read the content of a model file, after checking the whole file against its content id."""
    if content := read_content(path):
        verify_content_id(path)
        return content
    raise DataError(
        "the file is not a model of this project", file=path, expected=f"metadata `{_FORMAT}`", remedy=_REMEDY
    )


def _config_problem(model: Any) -> str | None:
    """Return why a model file cannot contain this configuration; None if it can.

    A stored model refers to no other model file, so loading one cannot lead back to itself.
    """
    waiting = [(model, 1)]
    while waiting:
        part, depth = waiting.pop()
        name = part.get("name") if isinstance(part, Mapping) else None
        if name not in STORABLE:
            found = str(name if name is not None else part)[:80]
            return f"the model must be one of {', '.join(STORABLE)}, found {found!r}"
        if depth > _DEEPEST:
            return f"`concat` is nested more than {_DEEPEST} levels deep"
        if name == "concat":
            if not isinstance(part.get("models"), list | tuple):
                return "`concat` has no list `models`"
            waiting += [(member, depth + 1) for member in part["models"]]
        if name == "backbone":
            backbone = part.get("backbone")
            if not isinstance(backbone, Mapping) or not isinstance(backbone.get("path"), str):
                return "`backbone` has no `path`"
    return None


def _build(model: Mapping[str, Any], path: str | Path) -> Extractor:
    """Build the extractor of the configuration in the file ``path``."""
    try:
        return build_extractor(model)
    except (ConfigError, *_UNBUILDABLE) as error:
        raise DataError(
            f"the model cannot be built from the configuration in the file: {error or type(error).__name__}",
            file=path,
            remedy=_REMEDY,
        ) from error


def _located(model: Mapping[str, Any], folder: Path, backbone: str | Path | None) -> dict[str, Any]:
    """Return a model's configuration with the current path of its backbone: ``backbone``, or a path beside the file."""
    if model["name"] == "concat":
        return {**model, "models": [_located(member, folder, backbone) for member in model["models"]]}
    if model["name"] != "backbone":
        return dict(model)
    stored = model["backbone"]
    beside = folder / stored["path"]
    path = backbone or (beside if beside.exists() else None)
    if path is None:
        return dict(model)
    # A revision belongs to the path used during training.
    return {**model, "backbone": {**{key: stored[key] for key in stored.keys() - {"revision"}}, "path": str(path)}}


def _check_backbones(extractor: Extractor, wanted: Mapping[str, str], path: str | Path) -> None:
    for prefix, part in _on_backbones(extractor):
        found = _fingerprint(part)
        if found != wanted.get(prefix):
            raise DataError(
                f"the model was trained on another backbone than {part.config['backbone']['path']}",
                file=path,
                expected=f"a backbone whose frozen weights have the SHA-256 {wanted.get(prefix)}",
                found=f"weights with the SHA-256 {found}",
                remedy="restore the weights that the backbone had during training, or train again on the current ones",
            )


def _check_weights(extractor: Extractor, weights: Mapping[str, Tensor], path: str | Path) -> None:
    own, stored = extractor.state_dict(), _stored(extractor)
    problems = [f"missing: {key}" for key in sorted(stored.keys() - weights.keys())]
    problems += [f"unknown: {key}" for key in sorted(weights.keys() - own.keys())]
    for key in sorted(own.keys() & weights.keys()):
        wanted, found = (f"{str(t.dtype).removeprefix('torch.')} {tuple(t.shape)}" for t in (own[key], weights[key]))
        if wanted != found:
            problems.append(f"{key}: {found} instead of {wanted}")
    if problems:
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise DataError(
            "the file contains weights of another model",
            file=path,
            found="; ".join(problems[:5]) + more,
            remedy=_REMEDY,
        )
    require_finite(weights, path)


def _broken(path: str | Path, error: Exception) -> DataError:
    return DataError(f"the file cannot be read as a model: {_reason(path, error)}", file=path, remedy=_REMEDY)


def _reason(path: str | Path, error: Exception) -> str:
    """Return the text of an error, or the kind of an HDF5 file, which safetensors takes for one with a large header."""
    with suppress(OSError):
        if is_hdf5(path):
            return "it is an HDF5 file (for example of frames or features)"
    return str(error)
