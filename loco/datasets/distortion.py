"""Lens distortion in OpenCV's two models, and undistortion of images.

A distortion file has one line: the model, followed by its coefficients in OpenCV's order.

- ``radial-tangential k1 k2 p1 p2 [k3 [k4 k5 k6 [s1 s2 s3 s4 [tau_x tau_y]]]]`` (docs.opencv.org, "Camera Calibration
  and 3D Reconstruction"): 4, 5, 8, 12 or 14 coefficients.
- ``fisheye k1 k2 k3 k4`` (docs.opencv.org, "Fisheye camera model"; Kannala and Brandt, 2006).

The names of these models in ROS, Kalibr and COLMAP are accepted as well (:data:`OTHER_NAMES`).

Images are undistorted to a pinhole camera of the same size, focal length and principal point, like those of COLMAP
(:mod:`loco.datasets.colmap`). Pixels of the pinhole image outside the original image are black and without depth; parts
of the original image outside the pinhole image are lost.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from loco.datasets.pose_files import read_text
from loco.errors import DataError
from loco.geometry.cameras import pixel_centres
from loco.geometry.patches import sample_depth

RADIAL_TANGENTIAL, FISHEYE = "radial-tangential", "fisheye"
COEFFICIENTS = {RADIAL_TANGENTIAL: (4, 5, 8, 12, 14), FISHEYE: (4,)}
OTHER_NAMES = {  # names in Kalibr, ROS and COLMAP
    "radtan": RADIAL_TANGENTIAL,
    "plumb-bob": RADIAL_TANGENTIAL,
    "rational-polynomial": RADIAL_TANGENTIAL,
    "opencv": RADIAL_TANGENTIAL,
    "full-opencv": RADIAL_TANGENTIAL,
    "equi": FISHEYE,
    "equidistant": FISHEYE,
    "opencv-fisheye": FISHEYE,
}
NOTED_EMPTY = 0.02  # fraction of an undistorted image outside the lens's view above which a note is written
MAX_EMPTY = 0.5  # largest fraction of an undistorted image outside the lens's view; above, coefficients are wrong
STEPS = 4096  # number of radii at which the distorted radius is computed, to find where it stops increasing
BLOCK = 1 << 20  # pixels whose rays are computed at once
OUTSIDE = -2.0  # pixel coordinate, outside the image, for rays that the lens does not see


class Distortion(NamedTuple):
    """``model``, a key of :data:`COEFFICIENTS`, and its ``coefficients`` in OpenCV's order."""

    model: str
    coefficients: tuple[float, ...]

    def distort(self, rays: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return distorted positions of rays (n, 2), x / z and y / z, at focal length 1; NaN outside the valid range.

        The range ends where the distance from the centre no longer increases with the angle: beyond, the polynomial
        folds the image onto itself, which no real lens does.
        """
        radius = np.linalg.norm(rays, axis=1)
        with np.errstate(all="ignore"):
            seen = radius <= self._range(float(radius.max(initial=0.0)))
            if self.model == FISHEYE:
                shown = rays * np.where(radius > 0, self._radius(radius) / radius, 1.0)[:, None]
            else:
                points = np.column_stack([rays, np.ones(len(rays))])
                none, axes = np.zeros(3), np.eye(3)
                shown = cv2.projectPoints(points, none, none, axes, np.array(self.coefficients))[0].reshape(-1, 2)
        return np.where(seen[:, None], shown, np.nan)

    def _radius(self, radius: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the distorted distance from the centre, of the radial part only."""
        if self.model == FISHEYE:
            angle = np.arctan(radius)
            return angle * np.polynomial.polynomial.polyval(angle**2, [1.0, *self.coefficients])
        k1, k2, _, _, k3, k4, k5, k6 = np.resize([*self.coefficients, 0, 0, 0, 0], 8)
        above, below = (np.polynomial.polynomial.polyval(radius**2, [1.0, *k]) for k in ((k1, k2, k3), (k4, k5, k6)))
        return radius * np.where(below > 0, above / below, np.nan)

    def _range(self, farthest: float) -> float:
        """Return the largest radius, at most ``farthest``, up to which the distorted radius increases."""
        radius = np.linspace(0, farthest, STEPS)
        grows = np.diff(self._radius(radius)) > 0  # false for NaN
        return farthest if grows.all() else float(radius[grows.argmin()])


def read_distortion(file: Path, scene: str) -> Distortion:
    """Read the distortion of a lens.

    Raises:
        DataError: the file does not contain a known model with the right number of finite coefficients.
    """
    name, *words = read_text(file, scene).split() or [""]
    model = name.lower().replace("_", "-")
    model = OTHER_NAMES.get(model, model)
    try:
        coefficients = tuple(float(word) for word in words)
    except ValueError:
        coefficients = ()
    if len(coefficients) not in COEFFICIENTS.get(model, ()) or not np.isfinite(coefficients).all():
        raise DataError(
            "the file does not contain a supported distortion model",
            file=file,
            scene=scene,
            expected=f"`{RADIAL_TANGENTIAL} k1 k2 p1 p2` with 4, 5, 8, 12 or 14 coefficients in the order of "
            f"OpenCV, or `{FISHEYE} k1 k2 k3 k4`",
            found=" ".join([name, *words])[:200] or "nothing",
            remedy="write the model and its coefficients on one line, or delete the file if the images are undistorted",
        )
    return Distortion(model, coefficients)


class Undistortion:
    """Undistorts the images of a camera, which all have the same size.

    Attributes:
        empty: fraction of the undistorted image outside the lens's view.
    """

    def __init__(
        self,
        distortion: Distortion,
        intrinsics: NDArray[np.float64],
        size: tuple[int, int],
        file: Path | None,
        scene: str,
    ) -> None:
        """
        Args:
            distortion: distortion of the lens.
            intrinsics: (3, 3), of the original and of the undistorted images, pixels.
            size: (height, width) of the images.
            file: distortion file, for errors.
            scene: name of the scene, for errors.

        Raises:
            DataError: most of the undistorted image would be outside the lens's view.
        """
        inverse = np.linalg.inv(intrinsics)
        self._uv = np.empty((*size, 2), np.float32)  # position in the original image of each pixel of the pinhole image
        for top in range(0, size[0], rows := max(1, BLOCK // size[1])):
            block = self._uv[top : top + rows]
            centres = pixel_centres(*block.shape[:2]).reshape(-1, 2) + np.array([0, top])
            rays = centres @ inverse[:2, :2].T + inverse[:2, 2]
            uv = distortion.distort(rays) @ intrinsics[:2, :2].T + intrinsics[:2, 2]
            # Rounded, so that the centre of a pixel reads only that pixel.
            block[:] = np.nan_to_num(np.round(uv, 4), nan=OUTSIDE).reshape(block.shape)
        empty = ~((self._uv >= 0) & (self._uv < size[::-1])).all(axis=-1)
        if empty.mean() > MAX_EMPTY:
            coefficients = " ".join(f"{value:g}" for value in distortion.coefficients)
            raise DataError(
                "with this distortion the images cover too little of the undistorted image",
                file=file,
                scene=scene,
                expected=f"at least {1 - MAX_EMPTY:.0%}",
                found=f"{1 - empty.mean():.0%} with {distortion.model} {coefficients}",
                remedy="correct the model, or the order and signs of its coefficients",
            )
        self._uv[empty] = OUTSIDE
        self.empty = float(empty.mean())

    def color(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the undistorted image (H, W, 3); black outside the lens's view."""
        # In OpenCV, the centre of the first pixel is at 0. The outermost half pixel is not blended with black.
        straight = cv2.remap(rgb, self._uv - 0.5, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        straight[self._uv[..., 0] == OUTSIDE] = 0
        return straight

    def depth(self, depth: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the undistorted depth image (h, w), metres, 0 = none. z-depths do not change."""
        return sample_depth(depth, self._uv)[0].astype(np.float32)


def empty_note(color: Undistortion) -> str | None:
    """Return a note if much of the undistorted colour images is black; otherwise None."""
    if color.empty <= NOTED_EMPTY:
        return None
    return (
        f"the lens of the colour camera covers {1 - color.empty:.0%} of the undistorted images; the rest, at their "
        "border, is black, and its depth is inpainted: undistort the images to a smaller field of view "
        "to avoid this"
    )
