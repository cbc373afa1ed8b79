"""COLMAP models: posed photographs without depth, and the sparse points that they observe.

``<raw>/<scene>/images/`` contains the photographs, ``<raw>/<scene>/sparse/0/`` (or ``sparse/``) the model: ``cameras``,
``images`` and ``points3D``, with ``rigs`` and ``frames`` since COLMAP 3.12, as ``.bin`` or ``.txt``
(https://colmap.github.io/format.html). It is read with pycolmap. If ``sparse/`` contains several models, because
photographs could not be connected, the one with the most photographs is read.

COLMAP's conventions are those of :mod:`loco`: OpenCV axes, and the centre of the top-left pixel at (0.5, 0.5), except
that its poses are world-to-camera. Its unit of length is arbitrary; the frames step scales it by ``frames.scale``. It
ignores the EXIF orientation of photographs, as this project does for all images (:mod:`loco.datasets.orientation`).

Photographs with lens distortion, and the observations in them, are undistorted to a pinhole camera of the same size,
focal length and principal point. Pixels of the pinhole image outside the photograph are black; parts of the photograph
outside the pinhole image are lost.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
import pycolmap
from numpy.typing import NDArray

from loco.datasets.checklist import Checklist, few
from loco.datasets.colmap_text import read_text_model
from loco.datasets.files import read_bytes, system_error
from loco.datasets.images import LARGEST_FILE, decode_color, unread_images
from loco.datasets.layouts import MODEL_NEEDED, PHOTOGRAPHS, model_files, model_sizes
from loco.datasets.pose_files import FARTHEST
from loco.datasets.raw import Images, Observations, RawFrame, RawScene
from loco.errors import DataError
from loco.files import is_data, open_regular
from loco.geometry.cameras import pixel_centres
from loco.geometry.consistency import Sightings

LARGEST_MODEL_FILE = 1 << 36  # bytes; the keypoints of 10,000 photographs take about 2 GB
MIN_IMAGES = 3  # smallest number of images that observe a point: two images determine it, a third one verifies it
MAX_ERROR = 2.0  # largest mean reprojection error of a point, pixels of the photographs
TOLERANCE = 0.01  # largest plausible reprojection error relative to the longer side, at least MAX_ERROR
RESTORE = "copy the photographs from which the model was made to `images`, with the names that they have in the model"
REMEDY = (
    "create the model again with COLMAP (`colmap mapper`, `colmap model_converter`), or use the rule `reconstruct` "
    "to create it from photographs: add the block `reconstruct` to the dataset"
)


class ColmapScene(RawScene):
    """A scene reconstructed by COLMAP (:class:`loco.datasets.raw.RawScene`)."""

    format = "colmap"
    metric = False

    def __init__(self, raw: Path, scene: str) -> None:
        """Open a scene. Raise DataError if the model is missing or broken."""
        super().__init__(raw, scene)
        self.model = _read_model(self.folder, scene)
        self.images = {image.name: image for image in _registered(self.model)}
        self._point_ids = _accurate_points(self.model)

    @classmethod
    def inspect(cls, raw: Path, scene: str, found: Checklist) -> dict[str, Any]:
        return _inspect(raw, scene, found)

    @property
    def skipped(self) -> Mapping[str, str]:
        """Photographs that are not registered in the model."""
        folder = self.folder / "images"
        found = {path.relative_to(folder).as_posix() for path in photographs(folder)}
        listed = {image.name for image in self.model.images.values()}
        return dict.fromkeys(sorted((found | listed) - set(self.images)), "not registered")

    def names(self, images: Images) -> list[str]:
        """Return all registered images, because it is unknown which of them are horizontal."""
        return list(self.images)

    def poses(self) -> NDArray[np.float64]:
        return np.array([_pose(image) for image in self.images.values()]).reshape(-1, 4, 4)

    def frames(self, names: Sequence[str]) -> Iterator[RawFrame]:
        lens = None
        for image in (self.images[name] for name in names):
            if lens is None or lens.camera.camera_id != image.camera_id:
                lens = _Lens(image.camera)
            uv, track = self._observed(image)
            uv, inside = lens.straighten_points(uv)
            yield RawFrame(
                name=image.name,
                rgb=lens.straighten_image(_read_photograph(self.folder, self.scene, image)),
                depth=None,
                intrinsics=lens.intrinsics,
                pose=_pose(image),
                observations=Observations(uv[inside], track[inside]),
            )

    def tracks(self) -> NDArray[np.float64]:
        """Return the usable points (t, 3), in model units.

        At least :data:`MIN_IMAGES` images observe each of them, with a mean error of at most :data:`MAX_ERROR`.
        """
        return np.array([self.model.points3D[k].xyz for k in self._point_ids]).reshape(-1, 3)

    def sightings(self, names: Sequence[str]) -> Sightings:
        lenses, uv, numbers, frame = [], [], [], []
        for k, image in enumerate(self.images[name] for name in names):
            lens = _Lens(image.camera)
            seen, ids = _observations(image)
            seen, inside = lens.straighten_points(seen)
            lenses.append(lens)
            uv.append(seen[inside])
            numbers.append(ids[inside])
            frame.append(np.full(inside.sum(), k))
        listed, point = np.unique(np.concatenate(numbers), return_inverse=True)
        return Sightings(
            points=np.array([self.model.points3D[number].xyz for number in listed], np.float64).reshape(-1, 3),
            uv=np.concatenate(uv),
            point=point,
            frame=np.concatenate(frame),
            intrinsics=np.array([lens.intrinsics for lens in lenses]),
            tolerance=np.array([max(MAX_ERROR, TOLERANCE * max(lens.size)) for lens in lenses]),
        )

    def _observed(self, image: pycolmap.Image) -> Observations:
        """Return the observations of usable points, in pixels of the original photograph."""
        uv, ids = _observations(image)
        accurate = np.isin(ids, self._point_ids)
        return Observations(uv[accurate], np.searchsorted(self._point_ids, ids[accurate]))


def photographs(folder: Path) -> list[Path]:
    """Return the files in ``folder`` and its subfolders with image suffixes, sorted by name."""
    return sorted(file for file in _data_files(folder) if file.suffix.lower() in PHOTOGRAPHS)


def unread_photographs(folder: Path) -> list[str]:
    """Return the names of image files of unsupported types, such as HEIC, in ``folder`` and its subfolders."""
    return unread_images(sorted(file.relative_to(folder).as_posix() for file in _data_files(folder)))


def _data_files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if is_data(path.relative_to(folder)) and path.is_file())


# --- the model -------------------------------------------------------------------------------------------------------


def _read_model(folder: Path, scene: str) -> pycolmap.Reconstruction:
    """Read the model of a scene.

    Raises:
        DataError: it is missing or broken, or a camera is not perspective.
    """
    files = model_files(folder)
    place = files[0].parent
    for part in (folder, folder / "sparse", folder / "sparse" / "0"):
        if os.path.isdir(part):
            os.stat(os.path.join(part, "."))  # raises the error of the system if it cannot be entered
    missing = [file.name for file in files if not os.path.lexists(file)]
    if missing:
        raise DataError(
            "the scene has no COLMAP model" if len(missing) == len(MODEL_NEEDED) else "the COLMAP model is incomplete",
            file=place,
            scene=scene,
            expected=", ".join(f"{name}.bin or {name}.txt" for name in MODEL_NEEDED),
            found=f"no {', '.join(missing)}",
            remedy=REMEDY,
        )
    for file in files:
        _require_readable(file, scene)
    model = pycolmap.Reconstruction()
    try:
        if files[0].suffix == ".bin":
            # pycolmap trusts the counts in a file: a broken file can cause an endless loop or exhaust the memory.
            for file in files:
                _check_records(file)
            model.read_binary(place)
        else:
            model = read_text_model(files, scene)
        _check_values(model)
        model.update_point_3d_errors()
    except DataError:
        raise
    # pycolmap raises errors of many kinds for broken files.
    except Exception as error:
        raise DataError(f"the COLMAP model cannot be read: {error}", file=place, scene=scene, remedy=REMEDY) from error
    return model


def _require_readable(file: Path, scene: str) -> None:
    """Raise DataError if pycolmap could not open a file, or would wait for a pipe."""
    try:
        with open_regular(file, scene):
            pass
    except OSError as error:
        raise system_error(error, file, scene) from error


def _check_values(model: pycolmap.Reconstruction) -> None:
    """Raise ValueError for values that pycolmap accepts but that are unusable."""
    for number, camera in model.cameras.items():
        if not camera.is_perspective():
            raise ValueError(f"camera {number} has the model {camera.model_name}, whose images cannot be undistorted")
        focal = np.array([camera.focal_length_x, camera.focal_length_y])
        if not (np.isfinite(camera.params).all() and (focal > 0).all() and camera.width and camera.height):
            raise ValueError(
                f"camera {number} has invalid parameters or no pixels: found {camera.params_to_string()} for "
                f"{camera.width} x {camera.height} pixels, expected finite numbers and positive focal lengths"
            )
    registered = _registered(model)
    if len({image.name for image in registered}) < len(registered):
        raise ValueError("two images of the model have the same name")
    for image in registered:
        if not np.isfinite(_pose(image)).all():
            raise ValueError(f"the pose of {image.name!r} is not finite")
        if np.abs(_pose(image)[:3, 3]).max() > FARTHEST:
            raise ValueError(f"the position of {image.name!r} is implausibly far away, more than {FARTHEST:g} units")
    points = model.points3D.values()
    if not all(np.isfinite(point.xyz).all() for point in points):
        raise ValueError("a point is not finite")
    in_images = sum(image.num_points3D for image in model.images.values())
    in_points = sum(point.track.length() for point in points)
    if in_images != in_points:
        raise ValueError(
            f"images have {in_images} observations, but points have {in_points}: one of the files is truncated"
        )


def _registered(model: pycolmap.Reconstruction) -> list[pycolmap.Image]:
    """Return the images with a pose, sorted by name."""
    return sorted((image for image in model.images.values() if image.has_pose), key=lambda image: image.name)


def _accurate_points(model: pycolmap.Reconstruction) -> NDArray[np.uint64]:
    """Return the ids of the points that are sufficiently accurate, ascending."""
    accurate = [number for number, point in model.points3D.items() if point.error <= MAX_ERROR and _is_confirmed(point)]
    return np.array(sorted(accurate), np.uint64)


def _is_confirmed(point: pycolmap.Point3D) -> bool:
    return len({seen.image_id for seen in point.track.elements}) >= MIN_IMAGES


def _observations(image: pycolmap.Image) -> tuple[NDArray[np.float64], NDArray[np.uint64]]:
    """Return the observations (s, 2) of an image, pixels of the original photograph, and the point ids (s,)."""
    seen = [(point.xy, point.point3D_id) for point in image.get_observation_points2D()]
    return np.array([xy for xy, _ in seen], np.float64).reshape(-1, 2), np.array([k for _, k in seen], np.uint64)


def _pose(image: pycolmap.Image) -> NDArray[np.float64]:
    pose = np.eye(4)
    pose[:3] = image.cam_from_world().inverse().matrix()
    return pose


# --- binary files ----------------------------------------------------------------------------------------------------


class _Cursor:
    """Reads the bytes of a file sequentially; raises struct.error if the file ends too early."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, layout: str) -> tuple[Any, ...]:
        """Return the next values, in a layout of :mod:`struct`."""
        values = struct.unpack_from(f"<{layout}", self.data, self.at)
        self.at += struct.calcsize(f"<{layout}")
        return values

    def skip(self, size: int) -> None:
        self.at += size
        if self.at > len(self.data):
            raise struct.error

    def skip_text(self) -> None:
        self.at = self.data.index(0, self.at) + 1


def _check_records(path: Path) -> None:
    """Raise ValueError if the number of records stated in a binary file does not match its size."""
    cursor = _Cursor(read_bytes(path, limit=LARGEST_MODEL_FILE))
    try:
        (count,) = cursor.take("Q")
        for _ in range(count):
            RECORDS[path.stem](cursor)
    except struct.error:
        cursor.at = -1
    if cursor.at != len(cursor.data):
        raise ValueError(f"{path.name} is truncated or damaged ({len(cursor.data)} bytes)")


def _camera_record(cursor: _Cursor) -> None:
    _, model, _, _ = cursor.take("IiQQ")
    camera = pycolmap.Camera.create_from_model_id(0, pycolmap.CameraModelId(model), 1.0, 1, 1)
    cursor.skip(8 * len(camera.params))


def _image_record(cursor: _Cursor) -> None:
    cursor.take("I7dI")
    cursor.skip_text()
    (keypoints,) = cursor.take("Q")
    cursor.skip(24 * keypoints)


def _point_record(cursor: _Cursor) -> None:
    *_, track = cursor.take("Q3d3BdQ")
    cursor.skip(8 * track)


def _rig_record(cursor: _Cursor) -> None:
    _, sensors = cursor.take("II")
    if sensors:
        cursor.skip(8)
    for _ in range(sensors - 1):
        *_, posed = cursor.take("iIB")
        cursor.skip(56 * posed)


def _frame_record(cursor: _Cursor) -> None:
    *_, data = cursor.take("II7dI")
    cursor.skip(16 * data)


RECORDS = {
    "cameras": _camera_record,
    "images": _image_record,
    "points3D": _point_record,
    "rigs": _rig_record,
    "frames": _frame_record,
}


# --- images ----------------------------------------------------------------------------------------------------------


class _Lens:
    """A camera, and the pinhole camera of the same size, focal length and principal point."""

    def __init__(self, camera: pycolmap.Camera) -> None:
        self.camera, self.size = camera, (camera.height, camera.width)
        self.intrinsics = camera.calibration_matrix()
        # Fisheye models distort even if all their coefficients are 0.
        self._straight = camera.is_undistorted() and camera.is_perspective_pinhole()
        self._sources: NDArray[np.float32] | None = None

    def straighten_points(self, uv: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Map points (m, 2) of the photograph to the pinhole image; also return which are inside it (m,)."""
        if not self._straight:
            rays = self.camera.cam_from_img(uv)
            uv = rays @ self.intrinsics[:2, :2].T + self.intrinsics[:2, 2]
        with np.errstate(invalid="ignore"):
            return uv, np.all((uv >= 0) & (uv < self.size[::-1]), axis=1)

    def straighten_image(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Resample the photograph to the pinhole image; black outside the photograph."""
        if self._straight:
            return rgb
        if self._sources is None:
            rays = np.concatenate([pixel_centres(*self.size), np.ones((*self.size, 1))], axis=-1)
            uv = self.camera.img_from_cam(rays.reshape(-1, 3) @ np.linalg.inv(self.intrinsics).T)
            # In OpenCV, the centre of the first pixel is at 0. Rays that the lens cannot project are mapped outside.
            self._sources = np.nan_to_num(uv - 0.5, nan=-2.0).reshape(*self.size, 2).astype(np.float32)
        return cv2.remap(rgb, self._sources, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)


def _read_photograph(folder: Path, scene: str, image: pycolmap.Image) -> NDArray[np.uint8]:
    path = _photograph_path(folder, scene, image.name)
    if not os.path.lexists(path):
        raise DataError(
            "a photograph of the COLMAP model is missing",
            file=path,
            scene=scene,
            remedy=RESTORE,
        )
    rgb = decode_color(read_bytes(path, scene, limit=LARGEST_FILE), file=path, scene=scene)
    if rgb.shape[:2] != (image.camera.height, image.camera.width):
        raise DataError(
            "the size of a photograph differs from that of its camera",
            file=path,
            scene=scene,
            expected=f"{image.camera.height} x {image.camera.width} (height x width), as camera {image.camera_id}",
            found=f"{rgb.shape[0]} x {rgb.shape[1]}",
            remedy="restore the photographs from which the model was made, or run `colmap` on the current ones",
        )
    return rgb


def _photograph_path(folder: Path, scene: str, name: str) -> Path:
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise DataError(
            f"the COLMAP model names a photograph outside of `images`: {name!r}",
            file=folder,
            scene=scene,
            remedy="move all photographs to one folder and run `colmap` on it",
        )
    return folder / "images" / name


# --- check -----------------------------------------------------------------------------------------------------------


def _inspect(raw: Path, scene: str, found: Checklist) -> dict[str, int]:
    opened = found.attempt(lambda: ColmapScene(raw, scene))
    if opened is None:
        return {"images": 0, "skipped": 0, "points": 0}
    names, points, listed = opened.names("all"), len(opened.tracks()), opened.model.points3D.values()
    if len(names) < 2:
        found.add("fewer than 2 photographs are registered", file=opened.folder, found=len(names), remedy=REMEDY)
    if not any(_is_confirmed(point) for point in listed):
        found.add(
            "the COLMAP model has no usable point",
            file=opened.folder,
            expected=f"points that are observed in at least {MIN_IMAGES} photographs",
            found=f"{len(listed)} points, none of which qualifies",
            remedy=REMEDY,
        )
    found.note(
        "structure from motion does not determine the unit of length: `frames.scale` states the metres per unit of the "
        "model (default 1), and all distances in settings and results are in metres only if it is right"
    )
    _note_models(found, opened.folder)
    _check_photographs(found, opened)
    return {"images": len(names), "skipped": len(opened.skipped), "points": points}


def _note_models(found: Checklist, folder: Path) -> None:
    sizes = model_sizes(folder)
    if len(sizes) > 1:
        place = model_files(folder)[0].parent
        rest = ", ".join(f"{other.relative_to(folder)} with {size}" for other, size in sizes.items() if other != place)
        found.note(
            f"{place.relative_to(folder)} with {sizes[place]} images is used because it is the largest model; "
            f"other models: {rest}"
        )


def _check_photographs(found: Checklist, opened: ColmapScene) -> None:
    """Check that all photographs of the model exist, and that decoded ones have the sizes of their cameras."""
    present, missing = [], []
    for name in opened.names("all"):
        path = found.attempt(partial(_photograph_path, opened.folder, found.scene, name))
        if path is not None:
            (present if os.path.lexists(path) else missing).append(name)
    if missing:
        found.add(
            f"photographs of the model are missing ({len(missing)} of {len(opened.images)}): {few(missing)}",
            file=opened.folder / "images",
            remedy=RESTORE,
        )
    if unread := unread_photographs(opened.folder / "images"):
        found.note(f"images with unsupported file formats are ignored ({len(unread)}): {few(unread)}")
    for name in found.chosen(present):
        found.attempt(partial(_read_photograph, opened.folder, found.scene, opened.images[name]))
