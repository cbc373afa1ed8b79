"""Meshes in PLY files, read safely."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import trimesh

from loco.errors import DataError
from loco.geometry.mesh import Mesh


def read_ply(data: bytes, *, file: Path, scene: str, name: str | None = None) -> Mesh:
    """The triangle mesh of a PLY.

    Args:
        data: its bytes.
        file: where they come from, for errors.
        scene: likewise.
        name: of the member, where ``file`` is an archive.

    Raises:
        DataError: it has no triangles, a vertex that is not finite, or a triangle without its vertex.
    """
    what = f"mesh {name!r}" if name else "the mesh"
    try:
        mesh = trimesh.load(io.BytesIO(data), file_type="ply", process=False)
        vertices, triangles = np.asarray(mesh.vertices, np.float32), np.asarray(mesh.faces)
    except Exception as error:  # trimesh raises many kinds for broken files
        raise DataError(
            f"{what} cannot be read: {error}", file=file, scene=scene, remedy="download it again"
        ) from error
    faults = {
        "has no triangles": len(triangles) == 0,
        "has vertices that are not finite": not np.isfinite(vertices).all(),
        "has triangles without their vertices": len(triangles) > 0
        and not 0 <= triangles.min() <= triangles.max() < len(vertices),
    }
    for fault, present in faults.items():
        if present:
            raise DataError(f"{what} {fault}", file=file, scene=scene, remedy="download it again")
    return Mesh(vertices, triangles.astype(np.uint32))
