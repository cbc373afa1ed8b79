"""Resolve weight paths without loading anything.

This module imports no heavy library, because the configuration, the workflow and the models use it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from loco.files import is_data
from loco.own_code import class_problem

WEIGHTS = "model.safetensors"  # name of the model file in the folder of a model
COPIED_BACKBONE = "backbone-"  # prefix of the names of backbones that are copied beside a model
RESULTS = "results"  # below the working directory; files that are missing there are outputs of this workflow
# Short names of backbones on the hub, the keys of loco.models.backbones.KNOWN (not imported here: torch is slow).
SHORT_NAMES = (
    *("dino_vits8", "dino_vitb8", "dino_vits16", "dino_vitb16"),
    *("dinov2_vits14", "dinov2_vitb14", "dinov2_vitl14"),
    *("dinov2_vits14_reg", "dinov2_vitb14_reg", "dinov2_vitl14_reg"),
    *("dinov3_vits16", "dinov3_vitb16", "dinov3_vitl16"),
    *("cradiov4_so400m16", "cradiov4_vith16", "siglip2_vitb16", "siglip2_vitl16", "siglip2_so400m16"),
    *("tipsv2_vitb14", "tipsv2_vitl14", "tipsv2_so400m14", "tipsv2_vitg14", "resnet50"),
)
HUGGING_FACE = ("timm", "transformers")  # kinds of backbones whose path is a folder or a name on the hub
HUB = "hub:"  # before the name of a repository on the Hugging Face hub, as in `hub:facebook/dino-vitb8`
_HUB_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9_][A-Za-z0-9_.-]*")


def model_file(path: str | Path) -> Path:
    """Return the model file that a path refers to: the path itself, or ``model.safetensors`` in that folder.

    A path without a suffix that does not exist is taken as a folder that is yet to be written.
    """
    path = Path(os.path.expanduser(path))
    return path / WEIGHTS if os.path.isdir(path) or not path.suffix else path


def weight_files(model: Mapping[str, Any]) -> list[Path]:
    """Return the local weight files of a model; if they change, the model changes.

    Files of the hub are not included. A file may be missing.

    Args:
        model: an experiment's ``model``.
    """
    if "models" in model:
        return [file for part in model["models"] for file in weight_files(part)]
    if model["name"] == "python":
        return [Path(file) for file in model.get("files", ())]
    if model["name"] == "features":
        return []  # its files differ between scenes: :func:`computed_files`
    named = [part for part in (model.get("backbone"), model) if part and "path" in part]
    return [file for part in named for file in _weight_files(part["name"], part["path"])]


def _weight_files(kind: str, path: str) -> list[Path]:
    if kind == "pretrained":
        return [model_file(path)]
    folder = Path(os.path.expanduser(path)) if kind in HUGGING_FACE else Path(path)
    if folder.is_dir():
        found = (sorted(folder.glob(pattern)) for pattern in ("*.safetensors", "*.json"))
        return [file for files in found for file in files if is_data(file.name)]
    return [] if kind in HUGGING_FACE and (path in SHORT_NAMES or hub_name(path)) else [folder]


def computed_files(path: str | Path, dataset: str, scene: str) -> list[Path]:
    """Return the files with the features of a scene that another program computed (``model: {name: features}``).

    This is ``dataset/scene.h5`` below the path if the file exists, else all ``.npy`` files below ``dataset/scene``. If
    there are none either, the path of the missing ``.h5`` file is returned.
    """
    file = Path(path, dataset, f"{scene}.h5")
    folder = Path(path, dataset, scene)
    found = [] if file.exists() else sorted(found for found in folder.rglob("*.npy") if is_data(found.name))
    return found or [file]


def hub_name(path: str) -> str | None:
    """Return the name (owner/name) of a repository on the Hugging Face hub that ``hub:owner/name`` refers to.

    None for everything else: a path without ``hub:`` is never requested from the hub, where anybody may have registered
    the first component of a local path.
    """
    name = path.removeprefix(HUB)
    return name if name != path and _HUB_NAME.fullmatch(name) else None


def is_product(path: str | Path) -> bool:
    """Return whether a path is below ``results/`` of the working directory, so that the workflow may write it."""
    return Path(os.path.abspath(RESULTS)) in Path(os.path.abspath(os.path.expanduser(path))).parents


def weights_problem(kind: str, path: str, pretrained: bool = True) -> str | None:
    """Return why weights cannot be read from ``path``, or None if no problem is known.

    Only the existence of files is checked; nothing is opened and nothing is downloaded.

    Args:
        kind: ``transformers``, ``timm``, ``croco`` or ``onnx`` (backbones), ``pretrained``, ``published``, ``features``
            or ``python`` (models).
        path: as in the configuration; relative paths are relative to the working directory.
        pretrained: for ``transformers`` and ``timm``, False if only the architecture is read from the folder.
    """
    if kind in HUGGING_FACE:
        return _hugging_face_problem(path, pretrained)
    if kind == "pretrained":
        file = model_file(path)
        return None if os.path.isfile(file) or is_product(file) else _absent("model file", file)
    if kind == "features":
        return None if os.path.isdir(path) else _absent("folder", path)
    if kind == "python":
        return class_problem(path)
    # These loaders do not expand `~`.
    if os.path.isfile(path) or (is_product(path) and not os.path.isdir(path)):
        return None
    if os.path.isdir(path):
        return f"{path} is a folder; a file is expected"
    full = os.path.expanduser(path)
    return f"`~` is not expanded in {path}; write {full}" if os.path.isfile(full) else _absent("file", path)


def _absent(kind: str, path: str | Path) -> str:
    where = "" if os.path.isabs(path) else f" (searched in {os.getcwd()})"
    return f"the {kind} {path} does not exist{where}; correct the path or download the missing files"


def _hugging_face_problem(path: str, pretrained: bool) -> str | None:
    folder = os.path.expanduser(path)
    if path.startswith(HUB):
        return None if hub_name(path) else f"expected {HUB}owner/name, found {path}"
    if os.path.isdir(folder):
        if path in SHORT_NAMES:
            return (
                f"`{path}` is the name of a backbone on the hub and of a folder here; write ./{path} for the folder or "
                "rename the folder"
            )
        if is_product(folder):
            return None
        return _folder_problem(folder, pretrained)
    if path in SHORT_NAMES or is_product(folder):
        return None
    if os.path.lexists(folder):
        return f"{path} is not a folder; a folder with config.json and {WEIGHTS} is expected"
    near = get_close_matches(path, SHORT_NAMES, n=1)
    if near and "/" not in path:
        return f"the folder {path} does not exist; did you mean the backbone `{near[0]}`?"
    hub = f"; for a model on the Hugging Face hub, write `{HUB}{path}`" if _HUB_NAME.fullmatch(path) else ""
    return f"{_absent('folder', path)}{hub}"


def _folder_problem(folder: str, pretrained: bool) -> str | None:
    try:
        names = os.listdir(folder)
    except OSError as error:
        return f"the folder {folder} cannot be read: {error.strerror}"
    if "config.json" not in names:
        return adapter_problem(folder) or f"the folder {folder} has no config.json"
    if pretrained and not any(name.endswith(".safetensors") and is_data(name) for name in names):
        return f"the folder {folder} has no weights (*.safetensors)"
    return None


def adapter_problem(folder: str | Path) -> str | None:
    """Return why a folder is not a model if it contains a peft adapter without its base model."""
    if os.path.isfile(os.path.join(folder, "config.json")) or not os.path.isfile(
        os.path.join(folder, "adapter_config.json")
    ):
        return None
    return (
        f"the folder {folder} contains an adapter of peft without its base model; merge the two (`merge_and_unload()` "
        "of peft), save the result with `save_pretrained`, and set the path to that folder"
    )
