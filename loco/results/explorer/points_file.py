"""The points of a scene in the colours of their similarity to one patch, as PLY files for viewers of point clouds."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import torch
from numpy.typing import NDArray

from loco.geometry.patches import patch_centres
from loco.geometry.sampling import sample_features
from loco.results.explorer.content import PageView
from loco.storage import Correspondences, Features, write_mesh

Floats = NDArray[np.floating]
VOXEL = 0.02  # metres; points within a cube with this side are fused
VERTEX = np.dtype([("xyz", "<f4", 3), ("rgb", "u1", 3), ("quality", "<f4")])
PROPERTIES = """\
property float x
property float y
property float z
property uchar red
property uchar green
property uchar blue
property float quality
"""


def write_similarity_points(
    correspondences: Correspondences, features: Features, view: PageView, patch: int, title: str, out: Path
) -> int:
    """Write the fused points of all images of a scene, coloured by their similarity to a patch.

    Similarities are computed from the uncompressed features, and written as the vertex property ``quality``, which
    MeshLab shows as a scalar. Coordinates are local coordinates of the scene, in metres; a comment in the file states
    their origin.

    Args:
        correspondences, features: files of the scene.
        view: a view of the page of the scene.
        patch: number of the patch within the view.
        title: title of the extractor, for a comment in the file.
        out: PLY file to write.

    Returns:
        The number of points in the file.
    """
    points, similarity = _fused(*_similarities(correspondences, features, view, patch))
    low, high = np.quantile(similarity, [0.02, 0.999])
    colours = matplotlib.colormaps["viridis"](np.clip((similarity - low) / max(high - low, 1e-9), 0, 1))[:, :3]
    vertices = np.zeros(len(points), VERTEX)
    vertices["xyz"], vertices["rgb"], vertices["quality"] = points, np.round(255 * colours), similarity
    comment = f"comment quality is the similarity to patch {patch} of {view.name} by {title}"
    lines = ["ply", "format binary_little_endian 1.0", " ".join(comment.split()), f"element vertex {len(points)}"]
    header = "\n".join(lines) + f"\n{PROPERTIES}end_header\n"
    write_mesh(out, header.encode() + vertices.tobytes(), origin=correspondences.origin)
    return len(points)


def _similarities(
    correspondences: Correspondences, features: Features, view: PageView, patch: int
) -> tuple[Floats, Floats]:
    """Return all valid points (m, 3) of the scene and their similarities (m,) to the patch."""
    centres = torch.from_numpy(patch_centres(correspondences.grid, correspondences.extent))
    place = torch.tensor([view.centre(patch)])
    query = sample_features(torch.from_numpy(features.map(view.index)), place, features.extent)[0]
    points, found = [], []
    for i, valid in enumerate(correspondences["valid"][:]):
        cells = sample_features(torch.from_numpy(features.map(i)), centres[torch.from_numpy(valid)], features.extent)
        points.append(correspondences["points"][i][valid])
        found.append((cells @ query).numpy())
    return np.concatenate(points), np.concatenate(found)


def _fused(points: Floats, values: Floats) -> tuple[Floats, Floats]:
    """Return the mean point and the mean value of every occupied cube of side :data:`VOXEL`."""
    _, cube, count = np.unique(
        np.floor(points.astype(np.float64) / VOXEL).astype(np.int64), axis=0, return_inverse=True, return_counts=True
    )
    sums = [np.bincount(cube.ravel(), weights) for weights in (*points.T, values)]
    means = np.stack(sums, axis=1) / count[:, None]
    return means[:, :3], means[:, 3]
