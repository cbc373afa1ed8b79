"""Collect the content of a page from the files of a scene."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, sqrt

import numpy as np
import torch
from numpy.typing import NDArray

from loco.errors import DataError
from loco.geometry.patches import patch_centres
from loco.geometry.sampling import sample_features
from loco.results.explorer import VIEWS
from loco.results.explorer.compression import compress
from loco.results.explorer.content import MIN_BASELINE, Content, Geometry, PageExtractor, PageView
from loco.results.explorer.coverage import choose_by_coverage
from loco.results.explorer.landmarks import find_landmarks
from loco.results.pictures.features import joint_pca
from loco.results.pictures.visibility import Points, Visibility
from loco.storage import Correspondences, Features, Frames

PATCHES = 1400  # maximum number per view; of a finer grid, every second, third, ... row and column is shown


def scene_content(
    frames: Frames,
    correspondences: Correspondences,
    features: Mapping[str, Features],
    titles: Mapping[str, str],
    count: int = VIEWS,
) -> Content:
    """Return the content of a page of one scene.

    Args:
        frames, correspondences: files of the scene.
        features: experiment -> its features of the scene.
        titles: experiment -> its title.
        count: maximum number of views, selected by :func:`loco.results.explorer.coverage.choose_by_coverage`.

    Raises:
        DataError: the files describe different frames or are damaged, or no patch has a 3D point.
    """
    for file in (correspondences, *features.values()):
        file.require_frames(frames)
    grid = _ShownGrid(correspondences)
    centres = frames["pose"][:][:, :3, 3]
    chosen = choose_by_coverage(*_all_points(correspondences), centres, count, MIN_BASELINE)
    images = chosen.images
    names, rgb = frames.names, [frames["rgb"][i] for i in images]
    views = [PageView(i, names[i], picture, grid.size, grid.area) for i, picture in zip(images, rgb)]
    geometry = _geometry(frames, correspondences, grid, images)
    view = np.repeat(np.arange(len(images)), grid.size[0] * grid.size[1])
    extractors = [
        page_extractor(name, titles[name], _sampled(file, images, grid.centres), view)
        for name, file in features.items()
    ]
    landmarks = find_landmarks(geometry, view, [extractor.codes for extractor in extractors])
    origins = {"frames": frames.content_id, "correspondences": correspondences.content_id}
    origins |= {f"features of {titles[name]}": file.content_id for name, file in features.items()}
    title = f"{frames.dataset} / {frames.scene}"
    return Content(title, views, extractors, geometry, landmarks, len(frames), chosen.coverage, origins)


def page_extractor(name: str, title: str, features: NDArray[np.floating], view: NDArray[np.integer]) -> PageExtractor:
    """Compress the features (p, c) of the patches of a page, and compute their colours."""
    (colours,) = joint_pca([features[:, None]])
    return PageExtractor(name, title, *compress(features, view), np.round(255 * colours[:, 0]).astype(np.uint8))


class _ShownGrid:
    """The patches of each image that a page shows: all patches, or every k-th row and column of a finer grid.

    Attributes:
        rows, columns: indices of the shown rows and columns.
        size: the numbers of shown rows and columns.
        centres: (rows * columns, 2), centres of the shown patches, pixels.
        area: (left, top, right, bottom), pixels: the area whose equal cells have the shown patches at their centres.
    """

    def __init__(self, correspondences: Correspondences) -> None:
        (rows, columns), (height, width) = correspondences.grid, correspondences.extent
        every = ceil(sqrt(rows * columns / PATCHES))
        self.rows, self.columns = (np.arange(min(every // 2, size - 1), size, every) for size in (rows, columns))
        self.size = len(self.rows), len(self.columns)
        centres = patch_centres((rows, columns), (height, width))
        self.centres = centres[np.ix_(self.rows, self.columns)].reshape(-1, 2)
        cell = np.array([width / columns, height / rows]) * every
        left, top = self.centres[0] - cell / 2
        right, bottom = self.centres[-1] + cell / 2
        self.area = float(left), float(top), float(right), float(bottom)

    def of(self, values: NDArray) -> NDArray:
        """Return the values (rows * columns, ...) of the shown patches, from those of all patches (h, w, ...)."""
        shown = values[np.ix_(self.rows, self.columns)]
        return shown.reshape(-1, *values.shape[2:])


def _all_points(correspondences: Correspondences) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    valid = correspondences["valid"][:]
    if not valid.any():
        raise DataError(
            "no patch of the scene has a 3D point",
            file=correspondences.path,
            scene=correspondences.scene,
            remedy="select another scene",
        )
    return correspondences["points"][:], valid


def _geometry(frames: Frames, correspondences: Correspondences, grid: _ShownGrid, images: Sequence[int]) -> Geometry:
    visibility = Visibility(frames, correspondences)
    rows, columns = correspondences.grid
    shown = grid.of(np.arange(rows * columns).reshape(rows, columns))
    kept = [visibility.points(i)[shown] for i in images]
    xyz = np.concatenate([one.xyz for one in kept])
    track = None if kept[0].track is None else np.concatenate([one.track for one in kept])
    valid = np.concatenate([grid.of(correspondences["valid"][i]) for i in images])
    visible = np.stack([visibility.see(i, Points(xyz, track))[1] for i in images], axis=1)
    known_scale = not frames.sparse or "scale" in (frames.record.recipe.settings if frames.record else {})
    return Geometry(
        points=np.where(valid[:, None], xyz, 0).astype(np.float32),
        valid=valid,
        visible=visible & valid[:, None],
        intrinsics=frames["intrinsics"][:][images],
        poses=frames["pose"][:][images],
        unit="m" if known_scale else "units",
    )


def _sampled(features: Features, images: Sequence[int], centres: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return the features (p, c) at the patch centres (m, 2) of each image, sampled from a grid of any size."""
    uv = torch.from_numpy(centres)
    maps = (torch.from_numpy(features.map(i)) for i in images)
    return np.concatenate([sample_features(one, uv, features.extent).numpy() for one in maps])
