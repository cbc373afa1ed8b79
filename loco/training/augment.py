"""Geometric augmentation: crops, scales and flips of an image together with the 3D points of its patches.

An augmented image is a rectangle of the frame at another scale, possibly mirrored (:class:`View`). The point of each
patch is computed at the patch centre from the depth of the frame, as for the frame itself, and not copied from the
nearest patch of the frame.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from loco.errors import ConfigError
from loco.geometry.patches import extent_of, grid_size, patch_centres, surface_points
from loco.geometry.tracks import NONE, patch_tracks
from loco.training.scene_files import SceneFiles

GEOMETRIC = ("flip", "scale", "crop", "sizes")  # keys of `train.augment`
COLOUR = ("brightness", "contrast", "colour")
_SIZES = 1  # key of the random numbers that determine the size of the images of a batch


class View(NamedTuple):
    """The transform from a frame to an image: the frame is resized, cropped to a rectangle, and possibly mirrored.

    ``frame`` and ``resized``, (height, width) of the whole frame, before and after resizing; ``size``, (height, width)
    of the image; ``offset``, (top, left) of the image in the resized frame, negative where the image extends beyond it;
    ``flip``, whether left and right are swapped. All are integers, so the map of coordinates is exact.
    """

    frame: tuple[int, int]
    resized: tuple[int, int]
    size: tuple[int, int]
    offset: tuple[int, int]
    flip: bool

    def to_frame(self, uv: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the positions (..., 2) in the frame of positions in the image, both (u, v) in pixels."""
        u, v = uv[..., 0], uv[..., 1]
        u = self.size[1] - u if self.flip else u
        scale_v, scale_u = (side / whole for side, whole in zip(self.frame, self.resized))
        return np.stack([(u + self.offset[1]) * scale_u, (v + self.offset[0]) * scale_v], axis=-1)

    def from_frame(self, uv: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the positions in the image of positions in the frame: the inverse of :meth:`to_frame`."""
        scale_v, scale_u = (whole / side for side, whole in zip(self.frame, self.resized))
        u, v = uv[..., 0] * scale_u - self.offset[1], uv[..., 1] * scale_v - self.offset[0]
        return np.stack([self.size[1] - u if self.flip else u, v], axis=-1)

    def image(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the image (height, width, 3) of a frame's colours; beyond the frame, its border pixels repeat."""
        if self.resized != self.frame:
            shrinks = self.resized[0] < self.frame[0]
            rgb = cv2.resize(rgb, self.resized[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        spans = [(start, start + side) for start, side in zip(self.offset, self.size)]
        rows, columns = (slice(max(0, start), max(0, end)) for start, end in spans)
        beyond = [(max(0, -start), max(0, end - side)) for (start, end), side in zip(spans, self.resized)]
        rgb = rgb[rows, columns]
        if any(map(any, beyond)):
            rgb = cv2.copyMakeBorder(rgb, *beyond[0], *beyond[1], cv2.BORDER_REPLICATE)
        return np.ascontiguousarray(rgb[:, ::-1] if self.flip else rgb)


class GeometricAugmentation:
    """Random views of frames, with the 3D points of their patches."""

    def __init__(self, settings: Mapping[str, Any], seed: int) -> None:
        """
        Args:
            settings: ``flip``, probability that an image is mirrored (default 0); ``scale``, the lowest and highest
                scale, drawn uniformly on a logarithmic axis, where at 1 (default) the frame just covers the image;
                ``crop``, whether the image is at a random position of the frame (default) or at its centre; ``sizes``,
                (height, width) in pixels, one of which is drawn per batch; default the size of the frames.
            seed: seed of the sizes.
        """
        self.flip, self.crop = settings.get("flip", 0.0), settings.get("crop", True)
        self.scale: tuple[float, float] = tuple(settings.get("scale", (1.0, 1.0)))
        self.sizes: list[tuple[int, int]] = [(height, width) for height, width in settings.get("sizes", ())]
        self.seed = seed
        self._ends: dict[Path, NDArray[np.int64]] = {}  # end of the observations per frame, by frames file

    def size(self, step: int) -> tuple[int, int] | None:
        """Return the size of all images of batch number ``step``; None for that of the frames."""
        if not self.sizes:
            return None
        rng = np.random.default_rng(np.random.SeedSequence([self.seed, step], spawn_key=(_SIZES,)))
        return self.sizes[rng.integers(len(self.sizes))]

    def draw(self, frame: tuple[int, int], size: tuple[int, int], rng: np.random.Generator) -> View:
        """Draw a view.

        Args:
            frame: (height, width) of the frame, pixels.
            size: (height, width) of the image, pixels.
            rng: random number generator. Four numbers are drawn, whatever the settings.
        """
        mirrored, scale, *drawn = rng.uniform(size=4)
        low, high = np.log(self.scale)
        factor = np.exp(low + scale * (high - low)) * max(side / whole for side, whole in zip(size, frame))
        resized = tuple(max(1, round(whole * factor)) for whole in frame)
        room = [whole - side for whole, side in zip(resized, size)]
        position = drawn if self.crop else [0.5, 0.5]
        below, right = (int(np.sign(r) * int(p * (abs(r) + 1))) for r, p in zip(room, position))
        return View(frame, resized, size, (below, right), bool(mirrored < self.flip))

    def load(
        self, scene: SceneFiles, frame: int, size: tuple[int, int] | None, rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.bool_]]:
        """Read a frame and return a random view of it.

        Args:
            scene: files of the scene.
            frame: number of the frame.
            size: (height, width) of the image, pixels; None for that of the frame.
            rng: random number generator.

        Returns:
            Colours (height, width, 3); points (h, w, 3) in metres, in the world frame of the scene, for the grid of the
            image at the stride of the correspondences; and their validity (h, w): patches whose centre lies outside the
            frame, has no depth or lies on a depth edge are invalid.
        """
        frames = scene.frames
        view = self.draw(frames.size, size or frames.size, rng)
        stride = scene.correspondences.facts["stride"]
        grid = grid_size(view.size, stride)
        if frames.sparse:
            points, valid = self._track_points(scene, frame, view, grid, extent_of(grid, stride))
        else:
            uv = view.to_frame(patch_centres(grid, extent_of(grid, stride)))
            camera = frames["intrinsics"][frame], frames["pose"][frame]
            points, valid = surface_points(frames["depth"][frame], *camera, uv)
        return view.image(frames["rgb"][frame]), points.astype(np.float32), valid

    def _track_points(
        self, scene: SceneFiles, frame: int, view: View, grid: tuple[int, int], extent: tuple[int, int]
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return the points of a sparse model that the frame observes, at their positions in the image."""
        frames = scene.frames
        if scene.frames_path not in self._ends:  # observations are sorted by frame
            observed = frames["observation_frame"][:]
            self._ends[scene.frames_path] = np.searchsorted(observed, np.arange(len(frames) + 1))
        part = slice(*self._ends[scene.frames_path][frame : frame + 2])
        tracks = patch_tracks(
            view.from_frame(frames["observation_uv"][part]), frames["observation_track"][part], grid, extent
        )
        valid = tracks != NONE
        return np.where(valid[..., None], frames["track"][:][tracks], 0.0), valid


def geometric_augmentation(
    augment: Mapping[str, Any] | None, scenes: Sequence[SceneFiles], seed: int
) -> GeometricAugmentation | None:
    """Return the geometric augmentation of ``train.augment``; None if it has no key of :data:`GEOMETRIC`.

    Raises:
        ConfigError: the scenes have stored features, which do not change with the image.
    """
    if not augment or not augment.keys() & set(GEOMETRIC):
        return None
    if any(scene.encoded_path for scene in scenes):
        keys = ", ".join(f"`{key}`" for key in GEOMETRIC if key in augment)
        raise ConfigError(f"stored features cannot be augmented: remove {keys} from `train.augment`, or remove `cache`")
    return GeometricAugmentation(augment, seed)


def colour_augmentation(augment: Mapping[str, Any] | None) -> dict[str, float] | None:
    """Return the maximum changes of :data:`COLOUR` in ``train.augment``, 0 for missing keys; None without any key."""
    if not augment or not augment.keys() & set(COLOUR):
        return None
    return {name: augment.get(name, 0.0) for name in COLOUR}
