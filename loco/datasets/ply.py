"""Meshes in PLY files, read safely."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from loco.datasets.files import RESTORE
from loco.datasets.ply_file import parse_ply, triangulate
from loco.errors import DataError
from loco.geometry.mesh import Mesh


def read_ply(data: bytes | bytearray, *, file: Path, scene: str, name: str | None = None) -> Mesh:
    """The triangle mesh of a PLY; quads and other polygons are divided into triangles.

    Args:
        data: its bytes.
        file: where they come from, for errors.
        scene: likewise.
        name: of the member, where ``file`` is an archive.

    Raises:
        DataError: it is not a PLY file, damaged, a point cloud, or has a vertex that is not finite, or a face without
            its vertex.
    """
    what = f"mesh {name!r}" if name else "the mesh"
    try:
        polygons = parse_ply(data)
    except ValueError as error:
        raise DataError(f"{what} cannot be read: {error}", file=file, scene=scene, remedy=RESTORE) from error
    vertices, lengths, corners = polygons
    if not (lengths >= 3).any():
        raise DataError(
            f"{what} has no triangles: it is a point cloud, with vertices but no faces",
            file=file,
            scene=scene,
            expected="a surface of triangles or polygons",
            found=f"{len(vertices)} vertices, {len(lengths)} faces",
            remedy="export the surface that was meshed from these points, or leave the file out where it is optional",
        )
    faults = {
        "has vertices that are not finite": not (np.abs(vertices) < np.finfo(np.float32).max).all(),
        "has triangles without their vertices": not 0 <= corners.min() <= corners.max() < len(vertices),
    }
    for fault, present in faults.items():
        if present:
            raise DataError(f"{what} {fault}", file=file, scene=scene, remedy=RESTORE)
    try:
        triangles = triangulate(polygons)
    except ValueError as error:
        raise DataError(f"{what} cannot be read: {error}", file=file, scene=scene, remedy=RESTORE) from error
    return Mesh(vertices.astype(np.float32), triangles.astype(np.uint32))
