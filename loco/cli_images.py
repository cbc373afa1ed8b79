"""Options, checks and readers that several commands of ``loco`` share."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from loco.errors import ConfigError, DataError

if TYPE_CHECKING:
    from loco.models.extractor import Extractor


class Photo(NamedTuple):
    """A photograph, RGB (H, W, 3), and its scale (vertical, horizontal): pixels of the file per pixel of ``rgb``."""

    rgb: NDArray[np.uint8]
    scale: NDArray[np.float64]


def read_photo(path: Path, max_size: int | None) -> Photo:
    """Read a photograph, and downscale it such that its longer side is at most ``max_size`` pixels (None: any size).

    Pixels are read as they are stored; an EXIF orientation is ignored.

    Raises:
        DataError: the file cannot be decoded.
    """
    import cv2

    from loco.datasets.files import read_bytes
    from loco.datasets.images import decode_color

    try:
        rgb = decode_color(read_bytes(path), file=path, scene=None)
    except DataError as error:
        raise DataError(
            error.problem, file=path, remedy="pass a JPEG, or a PNG or TIFF with 8 or 16 bits per channel"
        ) from error
    height, width = rgb.shape[:2]
    shrink = min(1.0, max_size / max(height, width)) if max_size else 1.0
    if shrink < 1:
        size = max(1, round(width * shrink)), max(1, round(height * shrink))
        rgb = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    return Photo(rgb, np.array([height, width]) / rgb.shape[:2])


def refuse_options(arguments: argparse.Namespace, names: Iterable[str], setting: str) -> None:
    """Refuse options without effect that are set to another value than their default.

    Args:
        arguments: arguments of the command; ``arguments.default_of`` returns the default of an option.
        names: the options without effect, as attributes of ``arguments``.
        setting: the option or argument because of which they have no effect.

    Raises:
        ConfigError: one of them is set to another value.
    """
    for name in names:
        if getattr(arguments, name) != arguments.default_of(name):
            raise ConfigError(f"--{name.replace('_', '-')} has no effect with {setting}: remove it")


def require_files(paths: Sequence[Path]) -> None:
    """Refuse folders, and images that do not exist.

    Raises:
        DataError: a path is a folder or does not exist.
    """
    for path in paths:
        if path.is_dir():
            raise DataError("this is a folder, not an image", file=path, remedy=f"pass its images: {path}/*")
        if not path.is_file():
            raise DataError("the image does not exist", file=path, remedy="correct the path")


def require_folder(path: Path, option: str) -> None:
    """Refuse an output folder that cannot be created because it is a file, or because a folder above it is one.

    Raises:
        ConfigError: the folder cannot be created; the message names ``option``.
    """
    existing = next((part for part in (path, *path.parents) if part.exists()), None)
    if existing and not existing.is_dir():
        raise ConfigError(f"{option} expects a folder, and {existing} is a file: pass another path")


def size_option(add: Callable[..., Any], default: int | None, others: str = "") -> None:
    words = f"downscale images to N pixels along the longer side (default: {default or 'original size'}{others})"
    add("--max-size", type=positive, default=default, metavar="N", help=words)


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def model_option(add: Callable[..., Any], name: str = "--model") -> None:
    required = {"required": True} if name.startswith("-") else {}
    add(name, metavar="MODEL", help="a model file, a folder that contains one, or a known backbone", **required)
    add("--backbone", metavar="PATH", help="path of the backbone, if it differs from the path used during training")
    add(
        "--upsample",
        type=upsampling,
        metavar="NAME:STRIDE",
        help="upsample the features to a stride in pixels: bilinear:4 or joint_bilateral:4 (default: as in the model)",
    )


def upsampling(text: str) -> dict[str, Any]:
    """Parse the upsampling of a model, such as ``bilinear:4``."""
    name, _, stride = text.partition(":")
    if not stride.isdecimal():
        raise argparse.ArgumentTypeError(f"expected NAME:STRIDE, such as bilinear:4, found {text!r}")
    return {"name": name, "stride": int(stride)}


def require_other_files(outputs: Sequence[Path], inputs: Sequence[Path]) -> None:
    """Refuse outputs that would overwrite an input.

    Raises:
        ConfigError: an output is an input.
    """
    taken = {path.resolve() for path in inputs}
    for path in outputs:
        if path.resolve() in taken:
            raise ConfigError(f"{path} is an input image and would be overwritten: pass another output path")


def load_model(model: str, backbone: str | None = None, upsample: Mapping[str, Any] | None = None) -> Extractor:
    """Load a model by its name or path, to the GPU if there is one (:func:`loco.models.pretrained.load`)."""
    import torch

    from loco.models.pretrained import load

    return load(model, "cuda" if torch.cuda.is_available() else "cpu", backbone, upsample)
