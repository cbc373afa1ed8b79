"""Select the query patch and the views of a scene that a figure shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from loco.errors import DataError
from loco.geometry.patches import patch_centres
from loco.results.pictures.visibility import Points, Visibility
from loco.storage import Correspondences, Frames

Floats = NDArray[np.floating]

MIN_OVERLAP = 0.15  # minimum overlap of two images, in both directions
QUERY_IMAGES, QUERY_PATCHES = 16, 64  # numbers of candidates; they bound the time for thousands of images
MARGIN = 0.06  # fraction of the image size; keeps marks away from the border


@dataclass(frozen=True)
class View:
    """One image of a scene: ``rgb`` (h, w, 3) uint8; ``index`` is its index in the scene's files."""

    index: int
    name: str
    rgb: NDArray[np.uint8]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width), pixels."""
        return self.rgb.shape[:2]


@dataclass(frozen=True)
class Query:
    """A 3D point and its positions in the views, the first of which is the one in which it was selected.

    ``point`` (3,) world, metres; ``uv`` (n, 2) pixels; ``visible`` (n,) bool: in the image and not occluded (frames
    with depth), or observed (frames of a sparse model); ``angle`` (n,) degrees between the viewing directions of this
    view and the first; ``distance`` (n,) metres to the camera.
    """

    point: Floats
    uv: Floats
    visible: NDArray[np.bool_]
    angle: Floats
    distance: Floats


def choose_views(
    correspondences: Correspondences, frames: Frames, n: int = 4, seed: int = 0
) -> tuple[list[View], Query]:
    """Select a query patch and ``n`` views of it from directions that differ as much as possible.

    Candidates are :data:`QUERY_PATCHES` textured patches in each of :data:`QUERY_IMAGES` query images; other views
    overlap the query image by at least :data:`MIN_OVERLAP`. The patch with the most views is selected; among these, the
    one with the largest angles between their viewing directions. If fewer than ``n`` views see it, the views with the
    largest overlap with the query image are added.

    Returns:
        At most ``n`` views, the one with the query first, and the query. They depend only on the files, ``n`` and
        ``seed``.

    Raises:
        DataError: no textured patch is visible in two images of the scene that overlap enough.
    """
    correspondences.require_frames(frames)
    overlap = correspondences["overlap"][:]
    mutual = np.minimum(overlap, overlap.T)
    np.fill_diagonal(mutual, 0)
    rng = np.random.default_rng([seed])
    candidates = [i for i in rng.permutation(len(frames)) if (mutual[i] >= MIN_OVERLAP).any()][:QUERY_IMAGES]
    visibility = Visibility(frames, correspondences)
    best: tuple[tuple[int, float], Points, list[int]] | None = None
    for image in candidates:
        others = np.flatnonzero(mutual[image] >= MIN_OVERLAP)
        for score, point, chosen in _options(correspondences, visibility, image, others, n, rng):
            if best is None or score > best[0]:
                best = score, point, chosen
    if best is None:
        raise DataError(
            "no patch of the scene is visible in two images that overlap enough for a figure",
            file=correspondences.path,
            scene=correspondences.scene,
            expected=f"two images with an overlap of at least {MIN_OVERLAP} in both directions",
            found=f"a largest overlap of {mutual.max(initial=0):.2f}",
            remedy="set another scene under `figures` in the configuration",
        )
    _, point, chosen = best
    fill = [i for i in np.argsort(-mutual[chosen[0]], kind="stable") if mutual[chosen[0], i] >= MIN_OVERLAP]
    chosen += [i for i in fill if i not in chosen][: n - len(chosen)]
    names = frames.names
    views = [View(int(i), names[i], frames["rgb"][i]) for i in chosen]
    return views, _query(visibility, point, chosen)


def _query(visibility: Visibility, point: Points, images: Sequence[int]) -> Query:
    seen = [visibility.see(image, point) for image in images]
    sight = visibility.poses[images, :3, 3] - point.xyz
    distance = np.linalg.norm(sight, axis=1)
    cosine = sight @ sight[0] / (distance * distance[0])
    return Query(
        point=point.xyz[0],
        uv=np.concatenate([uv for uv, _ in seen]),
        visible=np.concatenate([visible for _, visible in seen]),
        angle=np.degrees(np.arccos(np.clip(cosine, -1, 1))),
        distance=distance,
    )


def _options(
    correspondences: Correspondences,
    visibility: Visibility,
    image: int,
    others: NDArray,
    n: int,
    rng: np.random.Generator,
) -> list[tuple[tuple[int, float], Points, list[int]]]:
    """Return the score, the 3D point and the selected views of each candidate patch of ``image``.

    At most ``n`` of the views that see a patch are selected. The score is (number of selected views, sum of the angles
    between their viewing directions in degrees); see :func:`_spread`.
    """
    valid = correspondences["valid"][image]
    texture = _texture(visibility.frames["rgb"][image], valid.shape, correspondences.extent)
    points = visibility.points(image)[np.flatnonzero(valid & (texture >= np.median(texture)))]
    points = points[visibility.see(image, points, MARGIN)[1]]
    points = points[rng.permutation(len(points.xyz))[:QUERY_PATCHES]]
    images = np.concatenate([[image], others])
    seen = np.stack([visibility.see(i, points, MARGIN)[1] for i in images])
    sight = visibility.poses[images, None, :3, 3] - points.xyz
    sight /= np.linalg.norm(sight, axis=-1, keepdims=True)
    options = []
    for k in range(len(points.xyz)):
        views = np.flatnonzero(seen[:, k])
        chosen, angle = _spread(sight[views, k], n)
        options.append(((len(chosen), angle), points[k : k + 1], images[views[chosen]].tolist()))
    return options


def _spread(directions: Floats, n: int) -> tuple[list[int], float]:
    """Select at most ``n`` directions greedily, starting with the first.

    Each next direction has the largest angle to the nearest selected one.

    Returns:
        The indices of the directions, and the sum of these angles in degrees.
    """
    angles = np.degrees(np.arccos(np.clip(directions @ directions.T, -1, 1))).round(1)
    chosen, total = [0], 0.0
    for _ in range(min(n, len(directions)) - 1):
        gaps = angles[chosen].min(axis=0)
        gaps[chosen] = -1
        chosen.append(int(gaps.argmax()))
        total += float(gaps.max())
    return chosen, total


def _texture(rgb: NDArray[np.uint8], grid: tuple[int, int], extent: tuple[int, int]) -> Floats:
    """Return the standard deviation of the brightness around each cell of a grid, in windows of 3 x 3 cells."""
    grey = rgb.mean(axis=-1)
    window = [3 * side // cells for side, cells in zip(extent, grid)]
    variance = uniform_filter(grey**2, window) - uniform_filter(grey, window) ** 2
    u, v = patch_centres(grid, extent).astype(int).transpose(2, 0, 1)
    u, v = np.minimum(u, grey.shape[1] - 1), np.minimum(v, grey.shape[0] - 1)  # for cells that extend beyond the image
    return np.sqrt(np.maximum(variance[v, u], 0))
