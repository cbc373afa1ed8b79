"""What every raw dataset gives, whatever its layout: frames with cameras, a mesh, labels, and a check of its files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from loco.errors import DataError
from loco.geometry.cameras import Camera
from loco.geometry.mesh import Mesh

Images = Literal["all", "horizontal"]
Decode = Literal["sample", "all"]
DECODE_SAMPLE = 8  # images of each kind that a sampled check decodes, spread evenly over the scene


class Observations(NamedTuple):
    """Where an image shows points of a sparse model: ``uv`` (m, 2) pixels, ``track`` (m,) the numbers of the points."""

    uv: NDArray[np.float64]
    track: NDArray[np.int64]


@dataclass(frozen=True)
class RawFrame:
    """One posed colour image with its depth, converted to the conventions of :mod:`loco`.

    Attributes:
        name: of the image, unique in its scene.
        rgb: (H, W, 3) uint8.
        depth: (h, w) float32 z-depth in metres, 0 = none; None where the dataset has no depth images.
        intrinsics: (3, 3), pixels of the colour image.
        pose: (4, 4), camera-to-world, of the colour camera.
        depth_camera: that took the depth image; None where depth is registered to the colour image, pixel to pixel.
        observations: of the points of a sparse model (see :meth:`RawScene.tracks`), in pixels of the colour image.
    """

    name: str
    rgb: NDArray[np.uint8]
    depth: NDArray[np.float32] | None
    intrinsics: NDArray[np.float64]
    pose: NDArray[np.float64]
    depth_camera: Camera | None = None
    observations: Observations | None = None


class LabelledMesh(NamedTuple):
    """A mesh whose triangles belong to objects.

    ``object`` (t,) int32, the number of each triangle's object, -1 = none; ``labels``, the raw label of each object.
    Objects are numbered from 0 by one counter over the whole scene; an object may be left without a triangle.
    """

    mesh: Mesh
    object: NDArray[np.int32]
    labels: list[str]


class RawScene(Protocol):
    """A scene in its raw layout. One class a dataset; :mod:`loco.datasets` lists them.

    Opening a scene reads its cameras and no image.
    """

    @staticmethod
    def files(raw: Path, scene: str) -> list[Path]:
        """The files (or folders of images) that the scene is made of, as the layout names them, present or not."""
        ...

    @staticmethod
    def check(raw: Path, scene: str, decode: Decode) -> dict[str, Any]:
        """Look at every file of the scene; never raises for broken data (see :func:`loco.datasets.check_scene`)."""
        ...

    def __init__(self, raw: Path, scene: str) -> None:
        """Raises DataError if a file is missing or broken."""
        ...

    @property
    def skipped(self) -> Mapping[str, str]:
        """Images that cannot be used, and why (the pose was lost, say)."""
        ...

    def names(self, images: Images) -> list[str]:
        """Names of the images that can be used, in their order."""
        ...

    def frames(self, names: Sequence[str]) -> Iterator[RawFrame]:
        """These images, one by one in this order; each file is read once."""
        ...

    def mesh(self) -> Mesh | None:
        """The scene's surface, or None where the dataset has none."""
        ...

    def labelled_mesh(self) -> LabelledMesh | None:
        """The surface with its objects, or None where the dataset has no labels."""
        ...

    def tracks(self) -> NDArray[np.float64] | None:
        """Points (t, 3) of a sparse model, world frame, or None where the dataset has depth images."""
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
