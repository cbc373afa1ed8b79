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
from loco.geometry.cameras import Camera, scale_intrinsics
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

    @property
    def camera_of_depth(self) -> Camera:
        """``depth_camera``, or else the colour camera at the size of the depth image."""
        registered = Camera(scale_intrinsics(self.intrinsics, self.rgb.shape[:2], self.depth.shape), self.pose)
        return self.depth_camera or registered


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
        """Points (t, 3) of a sparse model, world frame, or None where the dataset has depth images or photographs."""
        ...

    def ground_truth(self) -> dict[str, Any] | None:
        """What the dataset's own files say that a benchmark is judged by (image pairs, say), JSON-able; else None."""
        ...


def decode_color(
    data: bytes, *, file: Path, scene: str | None, name: str | None = None, flags: int = cv2.IMREAD_COLOR
) -> NDArray[np.uint8]:
    """Decode a colour image from memory: (H, W, 3), RGB.

    Args:
        data: its bytes.
        file: where they come from, for errors.
        scene: likewise.
        name: of the image, where ``file`` holds many.
        flags: of OpenCV.

    Raises:
        DataError: the bytes are empty or no image.
    """
    return cv2.cvtColor(_decode(data, flags, file, scene, name or file.name), cv2.COLOR_BGR2RGB)


def decode_depth(data: bytes, *, file: Path, scene: str, remedy: str, name: str | None = None) -> NDArray[np.uint16]:
    """Decode a depth image from memory: (h, w), in the dataset's own unit. Arguments as for :func:`decode_color`.

    ``remedy`` is for an image that holds no depth.

    Raises:
        DataError: the bytes are empty, or no 16-bit image of one channel.
    """
    image = _decode(data, cv2.IMREAD_UNCHANGED, file, scene, name or file.name)
    if image.dtype != np.uint16 or image.ndim != 2:
        what = f"depth image {name!r} is" if name else "is"
        raise DataError(
            f"{what} not a 16-bit image of one channel",
            file=file,
            scene=scene,
            found=f"{image.dtype} {image.shape}",
            remedy=remedy,
        )
    return image


def _decode(data: bytes, flags: int, file: Path, scene: str | None, name: str) -> NDArray:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    except cv2.error:  # it claims more pixels than OpenCV takes
        image = None
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
