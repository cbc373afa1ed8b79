"""Code shared by datasets of posed RGB-D images: cameras and poses in text files, images in folders, their check.

A layout is a subclass of :class:`PosedImages` that assigns depth and pose to each image. In all layouts:

- Poses are camera-to-world, in OpenCV axes and metres. A pose with a non-finite number means that tracking was lost.
- Depth images are 16-bit PNG of z-depth. 0 and 65535, the largest value, denote missing depth.
- ``K.txt`` is the 3 x 3 matrix of the colour camera, ``K_depth.txt`` that of the depth camera
  (:mod:`loco.datasets.calibration`). Both put the centre of the top-left pixel at (0, 0), as OpenCV's calibration, ROS
  and the drivers of RGB-D cameras do: half a pixel is added when they are read, because :mod:`loco` puts it at
  (0.5, 0.5).
- ``distortion.txt`` and ``distortion_depth.txt`` state the distortion of the two lenses, which is removed
  (:mod:`loco.datasets.distortion`). If such a file is missing, a camera with a K file has no distortion.
- Without ``K_depth.txt``, depth is registered to colour: it has the same size, or is scaled as a whole, and has the
  same distortion.
- ``depth_scale.txt``, or ``depth_scale`` of the dataset's configuration, is the number of units of depth per metre.
- ``depth_to_color.txt`` is the 4 x 4 matrix that transforms points from the frame of the depth camera to that of the
  colour camera, metres.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from loco.datasets.calibration import Lens, Size, distortion_file, odd_centre, read_lens, require_size
from loco.datasets.checklist import Checklist, few
from loco.datasets.distortion import Undistortion, empty_note
from loco.datasets.files import read_bytes
from loco.datasets.images import (
    CONVERT,
    LARGEST_FILE,
    decode_color,
    decode_depth,
    depth_in_metres,
    unread_images,
)
from loco.datasets.layouts import natural
from loco.datasets.pose_files import read_matrix
from loco.datasets.raw import Images, RawFrame
from loco.datasets.scene_folder import SceneFolder
from loco.errors import DataError
from loco.files import is_data
from loco.geometry.cameras import Camera, scale_intrinsics
from loco.geometry.mesh import Mesh

Sizes = tuple[Size, Size]  # of colour and of depth images
COLOR_CAMERA, DEPTH_CAMERA, SCALE = "K.txt", "K_depth.txt", "depth_scale.txt"


class DepthScale(NamedTuple):
    """``units`` of depth per metre, and ``stated_by``, their source."""

    units: float
    stated_by: str


class Rig(NamedTuple):
    """The cameras of a scene (without ``depth`` if depth is registered to colour), and the ``scale`` of its depth."""

    color: Lens
    depth: Lens | None
    scale: DepthScale


@dataclass(frozen=True)
class Shot:
    """A frame: its image files, and the poses of the colour and of the depth camera when each image was taken.

    Poses are (4, 4), camera-to-world, metres.
    """

    name: str
    color: Path
    depth: Path
    pose: NDArray[np.float64]
    depth_pose: NDArray[np.float64]


class Listing(NamedTuple):
    """The frames of a scene in order, and the frames that cannot be used (name -> reason).

    ``absent`` are images that a list of the scene contains but that do not exist; their frames are skipped.
    """

    shots: list[Shot]
    skipped: dict[str, str]
    absent: Sequence[Path] = ()


class PosedImages(SceneFolder):
    """A scene of posed RGB-D images (:class:`loco.datasets.raw.RawScene`). No layout of them has labels."""

    def __init__(self, raw: Path, scene: str, depth_scale: float | None = None) -> None:
        """
        Args:
            raw: folder of the scenes.
            scene: name of the scene.
            depth_scale: units of depth per metre, if the configuration states them.

        Raises:
            DataError: a file is missing or broken, or states another scale.
        """
        super().__init__(raw, scene)
        self.rig = self.cameras(self.folder, scene, depth_scale)
        self.depth_units = self.rig.scale.units
        self.shots, self._skipped, _ = self.listing(self.folder, scene)

    # Defined by a layout ---------------------------------------------------------------------------------------------

    @staticmethod
    def cameras(folder: Path, scene: str, depth_scale: float | None = None) -> Rig:
        """Return the cameras and the depth scale; raise DataError if a file that states them is missing or broken."""
        raise NotImplementedError

    @staticmethod
    def listing(folder: Path, scene: str) -> Listing:
        """Return the frames; raise DataError if a file of poses or a list of images is broken."""
        raise NotImplementedError

    @staticmethod
    def read_mesh(folder: Path, scene: str) -> Mesh | None:
        """Return the mesh, in the frame of the poses; None if the scene has none. Raise DataError if it is broken."""
        return None

    # Derived ---------------------------------------------------------------------------------------------------------

    @property
    def skipped(self) -> Mapping[str, str]:
        return self._skipped

    @classmethod
    def inspect(cls, raw: Path, scene: str, found: Checklist, depth_scale: float | None = None) -> dict[str, Any]:
        folder = raw / scene
        missing = cls.note_missing(folder, scene, found)
        # Missing files have been reported, and without them there may be no cameras and no list of frames.
        rig = None if COLOR_CAMERA in missing else found.attempt(lambda: cls.cameras(folder, scene, depth_scale))
        listing = None if missing else found.attempt(lambda: cls.listing(folder, scene))
        shots, skipped, absent = listing or Listing([], {})
        if absent:
            _report_absent(found, absent, shots, cls.remedy_of(scene))
        if listing and not shots:
            reason = f"; reason for the first: {next(iter(skipped.values()))}" if skipped else ""
            found.add(
                "no frame can be used",
                file=folder,
                found=f"skipped frames: {len(skipped)}{reason}",
                remedy=cls.remedy_of(scene),
            )
        _check_images(found, shots, rig, cls.remedy_of(scene))
        found.attempt(lambda: cls.read_mesh(folder, scene))
        scale = {} if rig is None else {"depth_scale": rig.scale.units, "depth_scale_from": rig.scale.stated_by}
        return {"images": len(shots), "lost": len(skipped), **scale}

    def names(self, images: Images) -> list[str]:
        """Return all images, because none is horizontal by design with a handheld camera."""
        return [shot.name for shot in self.shots]

    def poses(self) -> NDArray[np.float64]:
        return np.array([shot.pose for shot in self.shots]).reshape(-1, 4, 4)

    def frames(self, names: Sequence[str]) -> Iterator[RawFrame]:
        shots = {shot.name: shot for shot in self.shots}
        sizes = undistortions = None
        for shot in (shots[name] for name in names):
            rgb, numbers = _read_color(shot.color, self.scene), _read_depth(shot.depth, self.scene)
            sizes = _fit(self.rig, shot, (rgb.shape[:2], numbers.shape), sizes, self.scene)
            of_color, of_depth = undistortions = undistortions or _undistortions(self.rig, sizes, self.scene)
            depth = depth_in_metres(numbers, self.rig.scale.units)
            rgb, depth = of_color.color(rgb) if of_color else rgb, of_depth.depth(depth) if of_depth else depth
            yield self._frame(shot, rgb, depth)

    def mesh(self) -> Mesh | None:
        return self.read_mesh(self.folder, self.scene)

    def _frame(self, shot: Shot, rgb: NDArray, depth: NDArray) -> RawFrame:
        frame = RawFrame(shot.name, rgb, depth, self.rig.color.intrinsics, shot.pose)
        if self.rig.depth is not None:
            return replace(frame, depth_camera=Camera(self.rig.depth.intrinsics, shot.depth_pose))
        if rgb.shape[:2] == depth.shape and np.array_equal(shot.pose, shot.depth_pose):
            return frame
        return replace(frame, depth_camera=frame.camera_of_depth._replace(pose=shot.depth_pose))


def read_rig(folder: Path, scene: str, scale: DepthScale, color: Lens | None = None, depth: Lens | None = None) -> Rig:
    """Read the cameras from ``K.txt`` and ``K_depth.txt`` of a folder, with ``color`` and ``depth`` as defaults.

    Raises:
        DataError: there is no calibration of the colour camera, or a file is broken.
    """
    color = read_lens(folder / COLOR_CAMERA, scene) or color
    if color is None:
        raise DataError(
            f"{COLOR_CAMERA} is missing",
            file=folder / COLOR_CAMERA,
            scene=scene,
            expected="the intrinsics of the colour camera (3 x 3, in pixels)",
            remedy="write the intrinsics from the documentation of the camera or from a calibration",
        )
    return Rig(color, read_lens(folder / DEPTH_CAMERA, scene) or depth, scale)


def read_depth_scale(folder: Path, scene: str, setting: float | None, default: float) -> DepthScale:
    """Return the units of depth per metre from ``depth_scale.txt`` or the configuration, or else the ``default``.

    Raises:
        DataError: the file is broken, or states another scale than the configuration.
    """
    file = folder / SCALE
    if not file.exists():
        if setting is not None:
            return DepthScale(float(setting), "configuration")
        return DepthScale(float(default), "default of the format")
    units = read_matrix(file, (1, 1), scene).item()
    if not 0 < units < np.inf:
        raise DataError(
            "the value is not a valid scale",
            file=file,
            scene=scene,
            expected="a positive number of units per metre",
            found=units,
            remedy="write the number of units per metre, such as 1000",
        )
    if setting not in (None, units):
        raise DataError(
            "the file states another scale than the configuration",
            file=file,
            scene=scene,
            expected=f"{setting:g} units per metre, as `depth_scale` of the dataset",
            found=f"{units:g}",
            remedy="correct or delete the wrong one of the two",
        )
    return DepthScale(units, SCALE)


def _undistortions(rig: Rig, sizes: Sizes, scene: str) -> tuple[Undistortion | None, Undistortion | None]:
    """Return the undistortions of colour and depth images; None for a lens without distortion.

    Depth that is registered to colour has the distortion of the colour camera.
    """
    color, depth = sizes
    registered = rig.color._replace(intrinsics=scale_intrinsics(rig.color.intrinsics, color, depth))
    return _undistortion(rig.color, color, scene), _undistortion(rig.depth or registered, depth, scene)


def _undistortion(lens: Lens, size: Size, scene: str) -> Undistortion | None:
    if lens.distortion is None:
        return None
    file = distortion_file(lens.file) if lens.file else None
    return Undistortion(lens.distortion, lens.intrinsics, size, file, scene)


# --- images ----------------------------------------------------------------------------------------------------------


def images_in(folder: Path, suffixes: Sequence[str], scene: str) -> dict[str, Path]:
    """Return the images of a folder by their names without suffix, in natural order (2 before 10)."""
    files = [file for file in folder.iterdir() if file.suffix.lower() in suffixes and is_data(file.name)]
    if not files and (unread := unread_images(sorted(file.name for file in folder.iterdir() if is_data(file.name)))):
        raise DataError(
            "the folder contains only images with unsupported formats",
            file=folder,
            scene=scene,
            expected=f"files that end in {', '.join(suffixes)}",
            found=few(unread),
            remedy=CONVERT,
        )
    images: dict[str, Path] = {}
    for file in sorted(files, key=lambda file: natural(file.name)):
        if file.stem in images:
            raise DataError(
                f"two images have the name {file.stem!r}",
                file=folder,
                scene=scene,
                found=f"{images[file.stem].name} and {file.name}",
                remedy="delete one of them",
            )
        images[file.stem] = file
    return images


def _read_color(file: Path, scene: str) -> NDArray[np.uint8]:
    return decode_color(read_bytes(file, scene, limit=LARGEST_FILE), file=file, scene=scene)


def _read_depth(file: Path, scene: str) -> NDArray[np.uint16]:
    data = read_bytes(file, scene, limit=LARGEST_FILE)
    return decode_depth(data, file=file, scene=scene, remedy="write 16-bit PNGs with one channel of z-depth")


def _fit(rig: Rig, shot: Shot, sizes: Sizes, before: Sizes | None, scene: str) -> Sizes:
    """Return the sizes of a frame's images; raise DataError if its cameras or frames ``before`` have other sizes."""
    color, depth = sizes
    for file, lens, size, last in zip((shot.color, shot.depth), (rig.color, rig.depth), sizes, before or (None, None)):
        expected = None
        if last not in (None, size):
            expected = f"{last}, as in the previous frames"
        elif lens is None and not _is_scaled(depth, color):
            expected = f"{color}, or a scaled version of it, because depth is registered to colour"
        elif lens is not None and lens.size not in (None, size):
            stated = f"{lens.file.name} states" if lens.file else "the published camera requires"
            expected = f"{lens.size}, which {stated}"
        if expected:
            raise DataError(
                "the image has an unexpected size (height, width)",
                file=file,
                scene=scene,
                expected=expected,
                found=size,
                remedy=f"restore the image, or write {COLOR_CAMERA} and {DEPTH_CAMERA} for the current images",
            )
        if lens is not None and lens.size is None:
            name = lens.file.name
            remedy = (
                f"scale {name} with the images; if it is correct because the images were cropped, append their width "
                f"and height to it: {size[1]} {size[0]}"
            )
            require_size(lens.intrinsics, size, f"the camera in {name}", file=lens.file, scene=scene, remedy=remedy)
    return sizes


def _is_scaled(size: tuple[int, int], original: tuple[int, int]) -> bool:
    """Return whether a size is another size scaled by one factor, up to rounding."""
    (h, w), (height, width) = size, original
    return round(height * w / width) == h or round(width * h / height) == w


# --- check -----------------------------------------------------------------------------------------------------------


def _check_images(found: Checklist, shots: list[Shot], rig: Rig | None, remedy: str) -> None:
    """Report images that are missing, empty, cannot be decoded, or do not have their camera's size."""
    files = [file for shot in shots for file in (shot.color, shot.depth)]
    missing = [file for file in files if not os.path.lexists(file)]
    empty = [file for file in files if os.path.isfile(file) and not os.path.getsize(file)]
    for which, fault in ((missing, "images are missing"), (empty, "images have 0 bytes")):
        if which:
            names = [file.name for file in which]
            found.add(f"{fault} ({len(which)} of {len(files)}): {few(names)}", file=which[0].parent, remedy=remedy)
    broken = {*missing, *empty}
    sizes = None
    for shot in found.chosen(shots):
        color, depth = (
            None if file in broken else found.attempt(_bind(read, file, found.scene))
            for read, file in ((_read_color, shot.color), (_read_depth, shot.depth))
        )
        if rig is not None and color is not None and depth is not None:
            fitted = found.attempt(_bind(_fit, rig, shot, (color.shape[:2], depth.shape), sizes, found.scene))
            if fitted and not sizes:
                found.notes += found.attempt(_bind(_lens_notes, rig, fitted, found.scene)) or []
            sizes = fitted or sizes


def _lens_notes(rig: Rig, sizes: Sizes, scene: str) -> list[str]:
    """Return notes on unusual cameras for images of these sizes; raise DataError if a distortion is impossible."""
    of_color, _ = _undistortions(rig, sizes, scene)
    odd = [odd_centre(lens, size) for lens, size in zip((rig.color, rig.depth), sizes) if lens]
    return [note for note in (*odd, of_color and empty_note(of_color)) if note]


def _report_absent(found: Checklist, absent: Sequence[Path], shots: Sequence[Shot], remedy: str) -> None:
    """Note the listed images that are missing; add a problem if most are missing."""
    text = f"listed images are missing ({len(absent)}): {few([file.name for file in absent])}"
    if len(absent) > len(shots):
        found.add(text, file=absent[0].parent, found=f"{len(shots)} frames with both images", remedy=remedy)
    else:
        found.note(f"{text}; their frames are skipped")


def _bind(function: Callable, *arguments: Any) -> Callable[[], Any]:
    return lambda: function(*arguments)
