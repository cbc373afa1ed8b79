"""The correspondence step: compute the 3D point of every patch of a scene, and the overlap of its images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from loco.geometry.overlap import overlap_matrix
from loco.geometry.patches import extent_of, grid_size, patch_points
from loco.geometry.tracks import NONE, patch_tracks, track_overlap
from loco.records import Recipe, record_of_scene
from loco.storage import Correspondences, Frames

Corresponding = tuple[NDArray[np.floating], NDArray[np.bool_], NDArray[np.float32]]  # points, valid, overlap


def run(recipe: Recipe, frames_path: Path, out: Path, threads: int = 1) -> None:
    """Write the correspondences of a scene's frames; ``recipe.settings`` are those of :func:`correspond_scene`.

    Raises:
        DataError: the frames are damaged, or were not made as planned.
    """
    correspond_scene(frames_path, out, recipe.settings, threads, recipe)


def correspond_scene(
    frames_path: Path, out: Path, settings: Mapping[str, Any], threads: int = 1, recipe: Recipe | None = None
) -> None:
    """Write the correspondences of a scene's frames.

    Args:
        frames_path: file of :class:`loco.storage.Frames`.
        out: file of :class:`loco.storage.Correspondences` to write.
        settings: ``stride`` (patch size in pixels of the frames) and ``overlap_tolerance`` (metres; for frames with
            depth).
        threads: number of threads for the overlaps.
        recipe: recipe of the file; None writes no record and accepts any frames.
    """
    with Frames(frames_path, recipe and recipe.inputs["frames"]) as frames:
        grid = grid_size(frames.size, settings["stride"])
        extent = extent_of(grid, settings["stride"])
        if frames.sparse:
            points, valid, overlap = _from_tracks(frames, grid, extent)
        else:
            points, valid, overlap = _from_depth(frames, grid, extent, settings["overlap_tolerance"], threads)
        sizes = {"n": len(frames), "h": grid[0], "w": grid[1]}
        facts = {"stride": settings["stride"], "overlap_tolerance": settings["overlap_tolerance"], "extent": extent}
        facts["origin"] = frames.origin.tolist()
        record = record_of_scene(recipe, frames) if recipe else None
        with Correspondences.create(
            out, frames.dataset, frames.scene, sizes, facts, frames_id=frames.content_id, record=record
        ) as file:
            file["points"][:] = points
            file["valid"][:] = valid
            file["overlap"][:] = overlap


def _from_depth(
    frames: Frames, grid: tuple[int, int], extent: tuple[int, int], tolerance: float, threads: int
) -> Corresponding:
    """Compute correspondences from depth images, one image in memory at a time."""
    depth, intrinsics, poses = frames["depth"], frames["intrinsics"][:], frames["pose"][:]
    points, valid = np.empty((len(frames), *grid, 3)), np.empty((len(frames), *grid), dtype=bool)
    for i in tqdm(range(len(frames)), desc="patches", unit="image"):
        points[i], valid[i] = patch_points(depth[i], intrinsics[i], poses[i], grid, extent)
    return points, valid, overlap_matrix(points, valid, depth, intrinsics, poses, tolerance, threads)


def _from_tracks(frames: Frames, grid: tuple[int, int], extent: tuple[int, int]) -> Corresponding:
    """Compute correspondences from the observations of a sparse model, which are sorted by frame."""
    frame, track, uv = (frames[f"observation_{array}"][:] for array in ("frame", "track", "uv"))
    ends = np.searchsorted(frame, np.arange(len(frames) + 1))
    parts = [slice(*ends[i : i + 2]) for i in range(len(frames))]
    tracks = np.array([patch_tracks(uv[part], track[part], grid, extent) for part in parts])
    valid = tracks != NONE
    points = np.where(valid[..., None], frames["track"][:][tracks], 0.0)
    return points, valid, track_overlap(tracks, frame, track)
