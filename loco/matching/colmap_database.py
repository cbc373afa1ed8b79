"""Write keypoints and matches to a database of COLMAP, with verification by two-view geometry."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pycolmap
from numpy.typing import NDArray

from loco.errors import DataError
from loco.matching import hloc
from loco.storage import atomic_path

SEED = 0  # seed of RANSAC in the geometric verification


def write_database(
    images: Path,
    names: Sequence[str],
    pairs: Sequence[tuple[str, str]],
    folder: Path,
    out: Path,
    single_camera: bool = True,
) -> int:
    """Write a database from which COLMAP reconstructs a model (``colmap mapper``, or ``pycolmap.incremental_mapping``).

    Args:
        images: folder of the images.
        names: paths of the images within the folder.
        pairs: names of the two images of each pair.
        folder: folder with the files of :mod:`loco.matching.hloc` for these images and pairs.
        out: the database; it replaces an existing one.
        single_camera: whether one camera with one lens setting took all images, which then have one size. Otherwise
            COLMAP assigns cameras to images by their EXIF data and sizes.

    Returns:
        The number of matches that agree with the two-view geometry of their pair, over all pairs.

    Raises:
        DataError: COLMAP cannot read an image, or an image does not have the size for which its keypoints were
            detected; or the files of keypoints and matches are invalid, or lack an image or a pair.
    """
    pycolmap.logging.minloglevel = pycolmap.logging.Level.FATAL.value
    camera = pycolmap.CameraMode.SINGLE if single_camera else pycolmap.CameraMode.AUTO
    with atomic_path(out) as temporary:
        pycolmap.Database.open(temporary).close()  # creates the tables
        pycolmap.import_images(temporary, images, camera, image_names=list(names))
        with pycolmap.Database.open(temporary) as database:
            numbers = {image.name: image for image in database.read_all_images()}
            positions = {}
            for name in names:
                if name not in numbers:
                    raise DataError(
                        f"COLMAP cannot read image {name}, or its size differs from that of the others",
                        file=images / name,
                        remedy="pass --several-cameras if the images differ in size; otherwise convert the image to "
                        "JPEG or PNG, or leave it out",
                    )
                _require_size(database.read_camera(numbers[name].camera_id), images / name, folder, name)
                positions[name] = hloc.read_positions(folder / hloc.FEATURES, name)
                database.write_keypoints(numbers[name].image_id, positions[name])
            for (first, second), matched in zip(pairs, hloc.read_matches(folder / hloc.MATCHES, pairs), strict=True):
                if len(matched):
                    pair = (numbers[first], numbers[second]), (positions[first], positions[second])
                    _write_matches(database, *pair, matched)
            return int(database.num_inlier_matches())


def _write_matches(
    database: pycolmap.Database,
    images: tuple[pycolmap.Image, pycolmap.Image],
    positions: tuple[NDArray[np.float32], NDArray[np.float32]],
    matched: NDArray[np.uint32],
) -> None:
    """Write the matches (m, 2) of two images, and their two-view geometry: a fundamental matrix, by RANSAC.

    The cameras are given different numbers. For one camera of unknown focal length, pycolmap 4.2 would call PoseLib's
    solver of the fundamental matrix with a shared focal length, which crashes on some matches of patch centres.
    """
    options = pycolmap.TwoViewGeometryOptions()
    options.ransac.random_seed = SEED
    first, second = (database.read_camera(image.camera_id) for image in images)
    first.camera_id, second.camera_id = 1, 2
    geometry = pycolmap.estimate_two_view_geometry(first, positions[0], second, positions[1], matched, options)
    numbers = [image.image_id for image in images]
    database.write_matches(*numbers, matched)
    database.write_two_view_geometry(*numbers, geometry)


def _require_size(camera: pycolmap.Camera, image: Path, folder: Path, name: str) -> None:
    """Reject an image that does not have the size for which its keypoints were detected: the file has been replaced.

    The EXIF orientation is not a cause: neither COLMAP nor this project applies it.
    """
    height, width = hloc.read_size(folder / hloc.FEATURES, name)
    if (camera.height, camera.width) != (height, width):
        raise DataError(
            "the image does not have the size for which its keypoints were detected",
            file=image,
            expected=f"{width} x {height} pixels",
            found=f"{camera.width} x {camera.height} pixels",
            remedy="run `loco match` again: the image has been replaced since its keypoints were detected",
        )
