"""Determine which images of a scene see a 3D point, from depth or from the observations of a sparse model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loco.geometry.cameras import project
from loco.geometry.patches import sample_depth
from loco.geometry.tracks import NONE, patch_tracks
from loco.storage import Correspondences, Frames

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Points:
    """World points ``xyz`` (m, 3), metres, and ``track`` (m,), their indices in a sparse model (else None)."""

    xyz: Floats
    track: NDArray[np.integer] | None = None

    def __getitem__(self, chosen: NDArray | slice) -> Points:
        return Points(self.xyz[chosen], None if self.track is None else self.track[chosen])


class Visibility:
    """Visibility of points in images, from depth images or from the observations of a sparse model.

    A sparse model has no surface that could occlude a point, so an image sees exactly the points that it observes, as
    in :func:`loco.geometry.tracks.track_overlap`.
    """

    def __init__(self, frames: Frames, correspondences: Correspondences) -> None:
        self.frames, self.correspondences = frames, correspondences
        self.poses = frames["pose"][:]
        self._ends = self._track = self._uv = None
        if frames.sparse:
            observing = frames["observation_frame"][:]  # in ascending order
            self._ends = np.searchsorted(observing, np.arange(len(frames) + 1))
            self._track, self._uv = frames["observation_track"][:], frames["observation_uv"][:]

    def points(self, image: int) -> Points:
        """Return the points of the patches of ``image`` (h * w); zeros, and track -1, for invalid patches."""
        if self._track is None:
            return Points(self.correspondences["points"][image].reshape(-1, 3).astype(np.float64))
        observed = self._observations(image)
        grid, extent = self.correspondences.grid, self.correspondences.extent
        track = patch_tracks(self._uv[observed], self._track[observed], grid, extent).ravel()
        known = track != NONE
        return Points(np.where(known[:, None], self.frames["track"][:][track], 0.0), track)

    def see(self, image: int, points: Points, margin: float = 0.0) -> tuple[Floats, NDArray[np.bool_]]:
        """Return the projections of the points in ``image``, pixels (m, 2), and their visibility (m,).

        ``margin`` is the fraction of the image on each side in which points do not count as visible.
        """
        size = np.array(self.frames.size[::-1])
        uv, z = project(points.xyz, self.frames["intrinsics"][image], self.poses[image])
        with np.errstate(invalid="ignore"):
            inside = (z > 0) & (uv >= margin * size).all(axis=-1) & (uv < (1 - margin) * size).all(axis=-1)
        if points.track is not None:
            return uv, inside & np.isin(points.track, self._track[self._observations(image)])
        depth, _ = sample_depth(self.frames["depth"][image], np.where(inside[:, None], uv, -1.0))
        return uv, inside & (depth > 0) & (np.abs(depth - z) <= self.correspondences.facts["overlap_tolerance"])

    def _observations(self, image: int) -> slice:
        return slice(*self._ends[image : image + 2])
