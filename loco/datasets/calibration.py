"""Camera calibrations of the user's own recordings: ``K.txt``, ``K_depth.txt``, and lens distortion.

``K.txt`` contains the 3 x 3 matrix of a camera. The size of its images follows from it only approximately, because the
principal point is near the centre of an image: :func:`size_meant` detects matrices for images of another size, for
example if the images were resized later. If the principal point *is* off-centre, because the images were cropped, the
file must state their size: two more numbers after the matrix, the width and the height. Then the images must have this
size, and the principal point can be anywhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from loco.datasets.distortion import Distortion, read_distortion
from loco.datasets.pose_files import read_intrinsics
from loco.errors import DataError

Size = tuple[int, int]  # (height, width), pixels
# Principal points of real cameras relative to the centre of the image are within a few per cent of 1; the largest known
# published value is 1.11 (rgb camera of a Kinect, only in y).
FOCAL = (0.1, 50.0)  # range of the focal length relative to the image side: fields of view of 157 and 1.1 degrees
FARTHEST = 0.2  # largest distance of a relative principal point from 1, in any direction
ODD = 0.1  # the same distance, above which a note is written
RESIZED = 0.05  # largest distance from 1 if both coordinates are off by the same factor, which indicates a resize
ALIKE = 0.1  # two factors that differ by less are considered equal


class Lens(NamedTuple):
    """The calibration of a camera.

    Attributes:
        intrinsics: (3, 3), pixels, pixel centres at i + 0.5.
        size: (height, width) that the images must have, if stated.
        distortion: lens distortion of the images, if any.
        file: calibration file, None for a published calibration.
    """

    intrinsics: NDArray[np.float64]
    size: Size | None = None
    distortion: Distortion | None = None
    file: Path | None = None


def distortion_file(camera_file: Path) -> Path:
    """Return the distortion file of the camera ``K.txt`` or ``K_depth.txt``: ``distortion[_depth].txt``."""
    return camera_file.with_name(camera_file.name.replace("K", "distortion", 1))


def read_lens(file: Path, scene: str) -> Lens | None:
    """Read a camera and its lens distortion; return None if there is no such file.

    Raises:
        DataError: a file is broken, or there is a distortion file without a camera file.
    """
    of_lens = distortion_file(file)
    if not file.exists():
        if of_lens.exists():
            raise DataError(
                f"the file states a distortion, but there is no {file.name} in the folder",
                file=of_lens,
                scene=scene,
                expected=f"{file.name}, the intrinsics that were calibrated with the distortion",
                remedy=f"write {file.name}, or delete {of_lens.name}",
            )
        return None
    intrinsics, size = read_intrinsics(file, scene)
    return Lens(intrinsics, size, read_distortion(of_lens, scene) if of_lens.exists() else None, file)


def size_meant(intrinsics: NDArray[np.float64], size: Size) -> Size | None:
    """Return the size (height, width) of the images that intrinsics appear to be for, if it differs from ``size``.

    Args:
        intrinsics: (3, 3), pixels.
        size: (height, width) of the actual images.

    Returns:
        The size whose centre is the principal point, or None if the principal point is plausible for ``size``: less
        than 20 % off the centre, and not off by 5 % or more in both coordinates by the same factor (as after a resize).
    """
    factors = 2 * intrinsics[:2, 2] / size[::-1]
    off = factors - 1
    far = np.abs(off).max() > FARTHEST
    resized = np.abs(off).min() >= RESIZED and off[0] * off[1] > 0 and np.ptp(factors) <= ALIKE * factors.min()
    width, height = np.round(2 * intrinsics[:2, 2]).astype(int).tolist()
    return (height, width) if far or resized else None


def odd_centre(lens: Lens, size: Size) -> str | None:
    """Return a note if the principal point is far off the centre of images of ``size``; otherwise None."""
    off = np.abs(2 * lens.intrinsics[:2, 2] / size[::-1] - 1)
    if lens.size is not None or lens.file is None or off.max() <= ODD:
        return None
    name, direction = lens.file.name, ("horizontally", "vertically")[off.argmax()]
    return (
        f"the principal point in {name} is {off.max():.0%} off the centre of the images ({direction}): correct if "
        "the images "
        f"were cropped, wrong if {name} refers to the images before cropping; append `{size[1]} {size[0]}` to {name} "
        "to "
        "confirm it"
    )


def require_size(
    intrinsics: NDArray[np.float64], size: Size, what: str, *, file: Path, scene: str, remedy: str
) -> None:
    """Refuse intrinsics for images of another size (:func:`size_meant`) and impossible focal lengths.

    Args:
        intrinsics: (3, 3), pixels.
        size: (height, width) of the images.
        what: name of the matrix in the error.
        file: file of the images, or of the intrinsics.
        scene: name of the scene, for errors.
        remedy: how to fix the error.

    Raises:
        DataError: the intrinsics do not fit.
    """
    meant = size_meant(intrinsics, size)
    if meant is not None:
        raise DataError(
            f"{what} belongs to images of another size",
            file=file,
            scene=scene,
            expected=f"a principal point near the centre of {size[1]} x {size[0]} pixels",
            found="({:.1f}, {:.1f}), as of images of about {} x {}".format(*intrinsics[:2, 2], *meant[::-1]),
            remedy=remedy,
        )
    fields = intrinsics.diagonal()[:2] / size[::-1]
    if not (fields.min() >= FOCAL[0] and fields.max() <= FOCAL[1]):
        raise DataError(
            f"{what} has an implausible focal length",
            file=file,
            scene=scene,
            expected=f"{FOCAL[0]} to {FOCAL[1]} times the {size[1]} x {size[0]} pixels of the images",
            found="fx = {:g}, fy = {:g}".format(*intrinsics.diagonal()),
            remedy="write it in pixels, not in millimetres",
        )
