"""Measure whether the depth images or sparse points, cameras and poses of a scene are consistent with each other.

The depth of every frame of a sample is projected into all others. A point on the surface that the other frame measured
is an agreement. A point behind that surface may be occluded and is not counted. A point in front of it is a
contradiction, since the other frame saw through it. The *consistency* is the fraction of agreements among agreements
and contradictions. It is near 1 for a correct recording, however much its frames overlap or occlude each other.
Distances are relative to the depth, so the unit of depth has no effect.

Two frames of a sparse model are compared by the points that both of them observe: they agree on a point if each of them
observes it where it projects to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from loco.geometry.cameras import pixel_centres, scale_intrinsics
from loco.geometry.patches import patch_centres, sample_depth

ROWS = 48  # height in pixels to which depth images are reduced for the comparison
POINT_ROWS = 10  # minimum number of rows of points per frame
TOLERANCE = 0.04  # relative to the depth; sensors and poses of hand-held scanners are more accurate
CONTRADICTION = 5.0  # weight of a contradiction relative to an agreement


class Agreement(NamedTuple):
    """Agreement between the frames of a sample.

    Attributes:
        consistency: fraction of agreements among agreements and contradictions; 0 if there are neither.
        overlap: largest fraction of the points of a frame on which a single other frame agrees; median over the frames.
        error: median difference in depth of points that agree or contradict, metres; NaN if there are none, and for
            sparse models.
        net: sum of the agreements of a frame with all others, each between 1 (exact) and 0 (at the tolerance), minus
            :data:`CONTRADICTION` per contradiction, divided by the number of points; mean over the frames. It serves
            to compare hypotheses about the same frames.
        pairs: number of ordered pairs of frames with at least one agreement or contradiction.
    """

    consistency: float
    overlap: float
    error: float
    net: float
    pairs: int


class Comparable(Protocol):
    """A sample of m frames that can be compared with each other."""

    def agreement(
        self, poses: NDArray[np.floating], scale: float = 1.0, zoom: float = 1.0, focal: float = 1.0, every: int = 1
    ) -> Agreement:
        """Compare all frames with each other.

        Args:
            poses: (m, 4, 4), camera-to-world, metres or the unit of the sparse model.
            scale: factor on all depths, or on the positions of the points of a sparse model.
            zoom: factor on the focal lengths and principal points as stated in the files.
            focal: factor on the focal lengths only.
            every: use only every n-th point.
        """


class Views:
    """Depth images of a sample of frames, downsampled to a common size."""

    def __init__(
        self,
        depths: Sequence[NDArray[np.floating]],
        intrinsics: Sequence[NDArray[np.floating]],
        rows_from_bottom: bool = False,
    ) -> None:
        """
        Args:
            depths: (h, w) each, z-depth in metres; 0 or non-finite values are missing.
            intrinsics: (3, 3) each, pixels of the depth image.
            rows_from_bottom: whether the principal points in the files count rows from the bottom.
        """
        self._rows_from_bottom = rows_from_bottom
        height, width = depths[0].shape
        rows = min(ROWS, height)
        self.size = rows, max(2, round(rows * width / height))
        self.depth = np.array([self._small(depth) for depth in depths])
        self.intrinsics = np.array([scale_intrinsics(k, d.shape, self.size) for k, d in zip(intrinsics, depths)])
        step = max(1, rows // POINT_ROWS)
        self._points = pixel_centres(*self.size)[step // 2 :: step, step // 2 :: step].reshape(-1, 2)

    def __len__(self) -> int:
        return len(self.depth)

    def agreement(
        self, poses: NDArray[np.floating], scale: float = 1.0, zoom: float = 1.0, focal: float = 1.0, every: int = 1
    ) -> Agreement:
        """See :class:`Comparable`."""
        points_uv = self._points[::every]
        m, (height, width) = len(self), self.size
        intrinsics = self.intrinsics * _factors(zoom, focal)
        if self._rows_from_bottom:
            intrinsics[:, 1, 2] += (1 - zoom) * height
        stacked = self.depth.reshape(m * height, width) * scale
        column, row = np.floor(points_uv).astype(int).T
        z = self.depth[:, row, column] * scale
        rays = np.concatenate([points_uv, np.ones((len(points_uv), 1))], axis=1)
        points = (rays @ np.swapaxes(np.linalg.inv(intrinsics), 1, 2)) * z[..., None]  # in the frame of each camera
        counts, offsets = np.zeros((3, m, m)), []
        for a in range(m):
            relative = np.linalg.inv(poses) @ poses[a]
            seen = points[a] @ np.swapaxes(relative[:, :3, :3], 1, 2) + relative[:, None, :3, 3]
            with np.errstate(divide="ignore", invalid="ignore"):
                uv = (seen @ np.swapaxes(intrinsics, 1, 2))[..., :2] / seen[..., 2:]
                inside = ((uv >= 0.5) & (uv <= [width - 0.5, height - 0.5])).all(axis=-1)
            inside &= (seen[..., 2] > 0) & (z[a] > 0)
            inside[a] = False
            b, k = np.nonzero(inside)
            # All images are stacked vertically. No position is within half a pixel of a border, where they would mix.
            found, smooth = sample_depth(stacked, uv[b, k] + np.stack([np.zeros(len(b)), b * height], axis=1))
            b, depth, found = b[smooth], seen[b, k, 2][smooth], found[smooth]
            gap = (depth - found) / found
            agrees, exact = np.abs(gap) <= TOLERANCE, np.maximum(1 - (gap / TOLERANCE) ** 2, 0)
            counts[0, a] = np.bincount(b[agrees], minlength=m)
            counts[1, a] = np.bincount(b[gap < -TOLERANCE], minlength=m)
            counts[2, a] = np.bincount(b, exact, minlength=m)
            offsets.append(np.abs(depth - found)[gap <= TOLERANCE])
        return _summary(counts[0], counts[1], counts[2], np.maximum((z > 0).sum(axis=1), 1), np.concatenate(offsets))

    def _small(self, depth: NDArray[Any]) -> NDArray[np.float64]:
        known = np.where(np.isfinite(depth) & (depth > 0), depth, 0).astype(np.float64)
        return sample_depth(known, patch_centres(self.size, known.shape))[0]


@dataclass(frozen=True)
class Sightings:
    """Observations of the points of a sparse model in a sample of m frames.

    Attributes:
        points: (t, 3) float64, world frame.
        uv: (s, 2) float64, pixel at which a frame observes a point.
        point: (s,) integers below t, index of the point.
        frame: (s,) integers below m, index of the frame.
        intrinsics: (m, 3, 3), pixels.
        tolerance: (m,), largest distance in pixels between an observation and the projection of its point that counts
            as agreement.
    """

    points: NDArray[np.float64]
    uv: NDArray[np.float64]
    point: NDArray[np.int64]
    frame: NDArray[np.int64]
    intrinsics: NDArray[np.float64]
    tolerance: NDArray[np.float64]

    def agreement(
        self, poses: NDArray[np.floating], scale: float = 1.0, zoom: float = 1.0, focal: float = 1.0, every: int = 1
    ) -> Agreement:
        """See :class:`Comparable`."""
        chosen = self.point % every == 0
        frame, point = self.frame[chosen], self.point[chosen]
        into_camera = np.linalg.inv(poses)[frame]
        seen = (into_camera[:, :3, :3] @ (scale * self.points[point])[..., None])[..., 0] + into_camera[:, :3, 3]
        intrinsics = (self.intrinsics * _factors(zoom, focal))[frame]
        with np.errstate(divide="ignore", invalid="ignore"):
            projected = (intrinsics @ seen[..., None])[..., 0]
            offset = np.linalg.norm(projected[:, :2] / projected[:, 2:] - self.uv[chosen], axis=1)
        offset = np.where(seen[:, 2] > 0, offset, np.inf) / self.tolerance[frame]

        def common(weights: NDArray[Any], others: NDArray[Any]) -> NDArray[np.float64]:
            """Return (m, m): the sum of ``weights`` x ``others`` over the points that both frames of a pair observe."""
            size = len(self.intrinsics), len(self.points)
            shared = (sparse.csr_array((w, (frame, point)), size) for w in (weights, others))
            product = (next(shared) @ next(shared).T).toarray()
            np.fill_diagonal(product, 0)
            return product

        agrees, every_one = (offset <= 1).astype(float), np.ones(len(offset))
        agree = common(agrees, agrees)
        exact = common(np.maximum(1 - offset**2, 0), agrees)
        counts = np.maximum(np.bincount(frame, minlength=len(self.intrinsics)), 1)
        return _summary(agree, common(every_one, every_one) - agree, exact, counts, np.empty(0))


def _factors(zoom: float, focal: float) -> NDArray[np.float64]:
    return np.array([[zoom * focal, zoom, zoom], [zoom, zoom * focal, zoom], [1.0, 1.0, 1.0]])


def _summary(
    agree: NDArray[Any], contradict: NDArray[Any], exact: NDArray[Any], points: NDArray[Any], offsets: NDArray[Any]
) -> Agreement:
    """Summarise counts (m, m): entry (a, b) counts points of frame a compared with frame b; a has ``points[a]``."""
    total = agree.sum() + contradict.sum()
    return Agreement(
        consistency=float(agree.sum() / total) if total else 0.0,
        overlap=float(np.median((agree / points[:, None]).max(axis=1))),
        error=float(np.median(offsets)) if len(offsets) else float("nan"),
        net=float(((exact - CONTRADICTION * contradict).sum(axis=1) / points).mean()),
        pairs=int(((agree + contradict) > 0).sum()),
    )
