"""The correspondence step: every patch of a scene's frames to its 3D point, and the overlap of its images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from loco.geometry.overlap import overlap_matrix
from loco.geometry.patches import grid_size, patch_points
from loco.storage import Correspondences, Frames


def correspond_scene(frames_path: Path, out: Path, settings: Mapping[str, Any]) -> None:
    """Write the correspondences of a scene's frames.

    Args:
        frames_path: file of :class:`loco.storage.Frames`.
        out: file of :class:`loco.storage.Correspondences` to write.
        settings: ``stride`` (pixels of the frames a patch) and ``overlap_tolerance`` (metres).

    Raises:
        ConfigError: the frames are not a whole number of patches.
    """
    with Frames(frames_path) as frames:
        grid = grid_size(frames.size, settings["stride"])
        depth, intrinsics, poses = frames["depth"][:], frames["intrinsics"][:], frames["pose"][:]
        cells = [patch_points(d, k, p, grid) for d, k, p in zip(depth, intrinsics, poses)]
        points = np.array([cell[0] for cell in cells]).reshape(-1, *grid, 3)
        valid = np.array([cell[1] for cell in cells]).reshape(-1, *grid)
        overlap = overlap_matrix(points, valid, depth, intrinsics, poses, settings["overlap_tolerance"])
        sizes = {"n": len(frames), "h": grid[0], "w": grid[1]}
        facts = {"stride": settings["stride"], "overlap_tolerance": settings["overlap_tolerance"]}
        with Correspondences.create(out, frames.dataset, frames.scene, sizes, facts) as file:
            file.attrs["frames_id"] = frames.frames_id
            file["points"][:] = points
            file["valid"][:] = valid
            file["overlap"][:] = overlap
