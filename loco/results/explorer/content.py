"""The content of an explorer page: views, patches, their 3D points and the compressed features of each extractor.

Patches are numbered through all views of the page: view by view, row by row. Sizes below: ``n`` views, ``p`` patches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from loco.results.explorer.compression import Codes, Fidelity

Floats = NDArray[np.floating]
RHO = 0.2  # metres: a match within this distance of the true 3D point is correct, as in LoCUS
MIN_BASELINE = 0.1  # metres: views from nearer positions differ by a homography, so they are not scored


@dataclass(frozen=True)
class PageView:
    """A view of the page.

    Attributes:
        index: index of its image in the files of the scene, or among the photographs.
        name: name of its image.
        rgb: (h, w, 3) uint8.
        grid: numbers of (rows, columns) of its patches.
        area: (left, top, right, bottom), pixels, of the area that the patches cover together.
    """

    index: int
    name: str
    rgb: NDArray[np.uint8]
    grid: tuple[int, int]
    area: tuple[float, float, float, float]

    def centre(self, patch: int) -> tuple[float, float]:
        """Return the centre (u, v), pixels, of the patch with this number within the view."""
        left, top, right, bottom = self.area
        row, column = divmod(patch, self.grid[1])
        return left + (column + 0.5) * (right - left) / self.grid[1], top + (row + 0.5) * (bottom - top) / self.grid[0]


@dataclass(frozen=True)
class Geometry:
    """The 3D points of the patches, and the views that see them.

    Attributes:
        points: (p, 3), world frame, in ``unit``; 0 for patches without a 3D point.
        valid: (p,), whether a patch has a 3D point.
        visible: (p, n), whether a view sees the 3D point of a patch.
        intrinsics: (n, 3, 3), pixels of the views.
        poses: (n, 4, 4), camera-to-world.
        unit: unit of the world frame: ``m``, or ``units`` for a sparse model of unknown scale.
    """

    points: NDArray[np.float32]
    valid: NDArray[np.bool_]
    visible: NDArray[np.bool_]
    intrinsics: NDArray[np.float64]
    poses: NDArray[np.float64]
    unit: str = "m"


@dataclass(frozen=True)
class Landmarks:
    """Patches through which a user can step on the page, with their scores among the views of the page.

    Attributes:
        patch: (l,), numbers of patches, none twice.
        precision: (e, l), average precision of each of e extractors: all patches of other views are ranked by their
            similarity to the landmark, and those within ``RHO`` of it are the positives.
        found: (e, l), number of the views that see the landmark and whose most similar patch is within ``RHO`` of it.
        seen: (l,), number of views that see the landmark. Here and above, views from the same position as that of the
            landmark (:data:`MIN_BASELINE`) are not counted.
        start: index of the landmark at which the page opens.
    """

    patch: NDArray[np.int64]
    precision: Floats
    found: NDArray[np.int64]
    seen: NDArray[np.int64]
    start: int


@dataclass(frozen=True)
class PageExtractor:
    """The features that one extractor computes for the patches of the page, and their colours by PCA, (p, 3) uint8."""

    name: str
    title: str
    codes: Codes
    fidelity: Fidelity
    colours: NDArray[np.uint8]


@dataclass(frozen=True)
class Content:
    """All that a page shows.

    Attributes:
        title: name of the scene, or of the set of photographs.
        views: at least one view.
        extractors: at least one extractor.
        geometry: None for photographs without poses.
        landmarks: None without geometry, or if no patch is seen from enough positions.
        available: number of images from which the views were selected.
        coverage: fraction of the scene's surface that the views show; None without geometry.
        origins: name of each input -> its content id; the names are not paths.
    """

    title: str
    views: Sequence[PageView]
    extractors: Sequence[PageExtractor]
    geometry: Geometry | None
    landmarks: Landmarks | None
    available: int
    coverage: float | None = None
    origins: Mapping[str, str] = field(default_factory=dict)

    @property
    def view_of_patch(self) -> NDArray[np.int64]:
        """(p,), the view of each patch."""
        return np.repeat(np.arange(len(self.views)), [rows * columns for rows, columns in (v.grid for v in self.views)])

    @property
    def start(self) -> tuple[int, int]:
        """The view at which the page opens, and the number of the selected patch within this view."""
        if self.landmarks is None:
            rows, columns = self.views[0].grid
            return 0, rows // 2 * columns + columns // 2
        patch = int(self.landmarks.patch[self.landmarks.start])
        view = int(self.view_of_patch[patch])
        return view, patch - int(np.searchsorted(self.view_of_patch, view))
