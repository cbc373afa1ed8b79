"""Points in the colours of their similarity, as PLY."""

from __future__ import annotations

import numpy as np
import trimesh

from loco.results.explorer.points_file import VOXEL, write_similarity_points


def test_points_and_similarities_are_those_of_the_scene(content, opened, tmp_path) -> None:
    _, correspondences, features = opened
    view, patch = content.start
    count = write_similarity_points(
        correspondences, features["place"], content.views[view], patch, "by\nplace", tmp_path / "room.ply"
    )
    cloud = trimesh.load(tmp_path / "room.ply")
    assert len(cloud.vertices) == count
    valid = correspondences["valid"][:]
    assert 0.3 * valid.sum() < count <= valid.sum()
    low, high = correspondences["points"][:][valid].min(axis=0), correspondences["points"][:][valid].max(axis=0)
    assert np.abs(cloud.vertices.min(axis=0) - low).max() < VOXEL
    assert np.abs(cloud.vertices.max(axis=0) - high).max() < VOXEL
    quality = cloud.metadata["_ply_raw"]["vertex"]["data"]["quality"].ravel()
    # Features of the place alone: the most similar point is at the place of the patch.
    place = content.geometry.points[content.landmarks.patch[content.landmarks.start]]
    assert np.linalg.norm(cloud.vertices[quality.argmax()] - place) < 3 * VOXEL
    assert quality.max() > 0.99
    assert cloud.colors[quality.argmax()][:3].tolist() == [253, 231, 37]  # the last colour of viridis
    assert cloud.colors[quality.argmin()][:3].tolist() == [68, 1, 84]  # the first
