"""What every raw dataset gives, whatever its layout: frames with cameras, a mesh, and a check of its files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from loco.errors import DataError
from loco.geometry.raycast import Mesh

Images = Literal["all", "horizontal"]
Decode = Literal["sample", "all"]
DECODE_SAMPLE = 8  # images of each kind that a sampled check decodes, spread evenly over the scene


@dataclass(frozen=True)
class RawFrame:
    """One posed colour and depth image, converted to the conventions of :mod:`loco`.

    ``rgb`` (H, W, 3) uint8; ``depth`` (H, W) float32 z-depth in metres, 0 = none, registered to the colour image;
    ``intrinsics`` (3, 3) of that size; ``pose`` (4, 4) camera-to-world.
    """

    name: str
    rgb: NDArray[np.uint8]
    depth: NDArray[np.float32]
    intrinsics: NDArray[np.float64]
    pose: NDArray[np.float64]


class RawScene(Protocol):
    """A scene in its raw layout. One class a dataset; :mod:`loco.datasets` lists them."""

    @staticmethod
    def files(raw: Path, scene: str) -> list[Path]:
        """The files that a download of the scene holds, present or not."""
        ...

    @staticmethod
    def check(raw: Path, scene: str, decode: Decode) -> dict[str, Any]:
        """Look at every file of the scene; never raises for broken data (see :func:`loco.datasets.check_scene`)."""
        ...

    def __init__(self, raw: Path, scene: str) -> None: ...

    def names(self, images: Images) -> list[str]:
        """Names of the images, in the order of :meth:`frames`."""
        ...

    def frames(self, images: Images) -> Iterator[RawFrame]:
        """The images one by one; each file is read once."""
        ...

    def mesh(self) -> Mesh | None:
        """The scene's surface, or None where the dataset has none."""
        ...


def decode_image(data: bytes, flags: int, *, file: Path, name: str, scene: str) -> NDArray:
    """Decode an image from memory with OpenCV.

    Raises:
        DataError: the bytes are empty or no image.
    """
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    if image is None:
        what = "is empty" if not data else "cannot be decoded"
        raise DataError(
            f"image {name!r} {what}",
            file=file,
            scene=scene,
            found=f"{len(data)} bytes",
            remedy="download the file again",
        )
    return image
