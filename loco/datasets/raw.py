"""Interface of all raw datasets: frames with cameras, a mesh, labels, and a check of the files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISDIR
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from loco.datasets.catalogue import FORMATS
from loco.datasets.checklist import Checklist, Decode, few
from loco.datasets.identity import Source
from loco.datasets.orientation import count_orientations, orientations_note
from loco.errors import DataError
from loco.geometry.cameras import Camera, scale_intrinsics
from loco.geometry.consistency import Sightings
from loco.geometry.mesh import Mesh

Images = Literal["all", "horizontal"]
MAX_DEPTH = 20.0  # metres, default of `frames.max_depth`: sensor depths beyond it are not used
NOTED_BEYOND = 0.01  # a note is written if more than this fraction of the measured depth is beyond the limit


class Observations(NamedTuple):
    """Observations of a sparse model in an image: ``uv`` (m, 2), pixels; ``track`` (m,), indices of the points."""

    uv: NDArray[np.float64]
    track: NDArray[np.int64]


@dataclass(frozen=True)
class RawFrame:
    """One posed colour image with its depth, converted to the conventions of :mod:`loco`.

    Attributes:
        name: name of the image, unique in its scene.
        rgb: (H, W, 3) uint8.
        depth: (h, w) float32 z-depth in metres, 0 = none; None if the dataset has no depth images.
        intrinsics: (3, 3), pixels of the colour image.
        pose: (4, 4), camera-to-world, of the colour camera.
        depth_camera: camera of the depth image; None if depth is registered to the colour image.
        observations: observations of a sparse model (see :meth:`RawScene.tracks`), in pixels of the colour image.
    """

    name: str
    rgb: NDArray[np.uint8]
    depth: NDArray[np.float32] | None
    intrinsics: NDArray[np.float64]
    pose: NDArray[np.floating]
    depth_camera: Camera | None = None
    observations: Observations | None = None

    @property
    def camera_of_depth(self) -> Camera:
        """Camera of the depth image: ``depth_camera``, or the colour camera scaled to its size if it is registered."""
        registered = Camera(scale_intrinsics(self.intrinsics, self.rgb.shape[:2], self.depth.shape), self.pose)
        return self.depth_camera or registered


class LabelledMesh(NamedTuple):
    """A mesh whose triangles belong to objects.

    ``object`` (t,) int32 is the index of each triangle's object, -1 = none; ``labels`` are the objects' raw labels.
    Objects are numbered from 0 over the whole scene; an object may have no triangle.
    """

    mesh: Mesh
    object: NDArray[np.int32]
    labels: list[str]


def measured_depth(depth: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the measured values (k,) of a depth image (h, w), metres."""
    return depth[np.isfinite(depth) & (depth > 0)]


def depth_beyond(depth: NDArray[np.floating], limit: float) -> float | None:
    """Return the fraction of the measured depth (h, w) that is beyond a limit in metres; None if there is none."""
    measured = measured_depth(depth)
    return float(np.mean(measured > limit)) if len(measured) else None


class RawScene(ABC):
    """A scene in its raw layout. One subclass per format; :mod:`loco.datasets.catalogue` lists them.

    Opening a scene reads its cameras and no image.

    Attributes:
        format: key of :data:`loco.datasets.catalogue.FORMATS`.
        scene: name of the scene.
        folder: folder of its files.
        metric: whether the unit of its coordinates is the metre.
        opengl: whether its files follow OpenGL: camera axes with y up and z backward, rows counted from the bottom.
        origin: (3,), origin of its coordinates, in the world frame of its files; zero unless the scene is opened in
            local coordinates (:mod:`loco.datasets.local`).
        depth_units: units of the depth images per metre, for formats with the key ``depth_scale``; None for others.
    """

    format: ClassVar[str]
    metric: ClassVar[bool] = True
    opengl: ClassVar[bool] = False
    origin: NDArray[np.float64] = np.zeros(3)
    depth_units: float | None = None

    def __init__(self, raw: Path, scene: str) -> None:
        """Open a scene. Subclasses raise DataError if a file is missing or broken."""
        self.scene, self.folder = scene, raw / scene

    @classmethod
    def sources(cls, folder: Path, scene: str) -> list[Source]:
        """Return the input files of the frames, whether or not they exist."""
        return FORMATS[cls.format].sources(folder, scene)

    @classmethod
    def remedy_of(cls, scene: str) -> str:
        """Return the remedy for missing files of a scene."""
        return "copy the scene to this folder (docs/datasets.md lists its files)"

    @classmethod
    def existing_folder(cls, raw: Path, scene: str) -> Path:
        """Return the folder of a scene. If it is missing, raise one error instead of one for each of its files.

        Raises:
            DataError: there is no such folder; the message lists folders in ``raw``.
            OSError: the system refuses to read it.
        """
        folder = raw / scene
        with suppress(FileNotFoundError, NotADirectoryError):
            if S_ISDIR(folder.stat().st_mode):
                return folder
        others = sorted(path.name for path in raw.iterdir() if path.is_dir()) if raw.is_dir() else None
        raise DataError(
            "the folder of the scene does not exist",
            file=folder,
            scene=scene,
            found=f"{raw} does not exist either" if others is None else f"{raw} contains {few(others) or 'no folder'}",
            remedy="correct `raw` or `scenes` of the dataset in the configuration. If the scene is not on this "
            f"machine: {cls.remedy_of(scene)}",
        )

    # Check -----------------------------------------------------------------------------------------------------------

    @classmethod
    def check(
        cls,
        raw: Path,
        scene: str,
        decode: Decode,
        opened: Callable[[RawScene, Checklist], dict[str, Any]] | None = None,
        **conventions: Any,
    ) -> dict[str, Any]:
        """Check the input files of the frames and return the manifest (:func:`loco.datasets.check_scene`); never raise.

        If the files have no problem, the scene is opened and passed to ``opened``, which adds problems and notes to the
        checklist and returns further entries of the manifest.
        """
        found = Checklist(cls.format, scene, decode)
        if found.attempt(lambda: cls.existing_folder(raw, scene)) is None:
            return found.manifest(raw / scene, [], {"images": 0})
        with count_orientations() as counted:
            counts = found.attempt(lambda: cls.inspect(raw, scene, found, **conventions)) or {}
        if note := orientations_note(counted):
            found.note(note)
        facts = {"images": 0, **counts}
        if opened is not None and not found.problems:
            facts |= found.attempt(lambda: opened(cls(raw, scene, **conventions), found)) or {}
        return found.manifest(raw / scene, cls.sources(raw / scene, scene), facts)

    @classmethod
    def check_labels(cls, raw: Path, scene: str, decode: Decode) -> dict[str, Any]:
        """Check the label files and return the manifest of :func:`loco.datasets.check_labels`; never raise."""
        found, layout = Checklist(cls.format, scene, decode), FORMATS[cls.format].labels
        if found.attempt(lambda: cls.existing_folder(raw, scene)) is None:
            return found.manifest(raw / scene, [], {})
        counts = found.attempt(lambda: cls.inspect_labels(raw, scene, found)) or {}
        return found.manifest(raw / scene, layout(raw / scene, scene) if layout else [], counts)

    @classmethod
    @abstractmethod
    def inspect(cls, raw: Path, scene: str, found: Checklist) -> dict[str, Any]:
        """Add the problems of a scene's files to ``found``, and return counts: ``images`` (usable ones) and others.

        For formats with ``conventions`` (:class:`loco.datasets.catalogue.Format`), this method and the constructor
        accept them as keyword arguments.
        """

    @classmethod
    def inspect_labels(cls, raw: Path, scene: str, found: Checklist) -> dict[str, int]:
        """Add the problems of a scene's label files to ``found``, and return counts."""
        found.add(
            f"the format {cls.format} has no labels",
            remedy="remove `labels` from the configuration of the dataset",
        )
        return {}

    # Content ---------------------------------------------------------------------------------------------------------

    @property
    def skipped(self) -> Mapping[str, str]:
        """Images that cannot be used -> reason (such as a lost pose)."""
        return {}

    @abstractmethod
    def names(self, images: Images) -> list[str]:
        """Return the names of the usable images, in order.

        Args:
            images: "all", or "horizontal" for only the images that the recording device takes with a level camera.
                Formats without such a camera return all images.
        """

    @abstractmethod
    def frames(self, names: Sequence[str]) -> Iterator[RawFrame]:
        """Yield the frames with these names, in this order; each file is read once.

        Raises:
            DataError: a file is missing or broken.
        """

    def poses(self) -> NDArray[np.float64] | None:
        """Return the poses (n, 4, 4) of the colour cameras of ``names("all")``, or None if images share no world frame.

        Poses are camera-to-world, in OpenCV axes and double precision. No image is read.
        """
        return None

    def mesh(self) -> Mesh | None:
        """Return the surface of the scene in the frame of the poses, or None if the dataset has none."""
        return None

    def labelled_mesh(self) -> LabelledMesh | None:
        """Return the surface with its objects, or None if the dataset has no labels."""
        return None

    def tracks(self) -> NDArray[np.float64] | None:
        """Return the usable points (t, 3) of a sparse model, in the frame of the poses; None if there is no model."""
        return None

    def sightings(self, names: Sequence[str]) -> Sightings | None:
        """Return all observations of a sparse model in these images; None if there is no such model.

        Inaccurate observations and points are included. The points are in the frame of the poses.
        """
        return None

    def ground_truth(self) -> dict[str, Any] | None:
        """Return the ground truth in files of the dataset (such as image pairs), JSON-serialisable, or None."""
        return None
