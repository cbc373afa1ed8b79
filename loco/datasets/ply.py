"""Meshes in PLY files, read safely."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from loco.datasets.files import RESTORE
from loco.datasets.ply_file import parse_ply, triangulate
from loco.errors import DataError
from loco.geometry.mesh import Mesh
from loco.geometry.origin import FAR, LARGEST_STEP, single_step

_HEADER = re.compile(rb"ply\s.*?end_header", re.DOTALL)
_SINGLE = re.compile(rb"(?<=property )(?:float|float32)(?= [xyz]\s)")


def read_ply(data: bytes | bytearray, *, file: Path, scene: str, name: str | None = None) -> Mesh:
    """Read the triangle mesh of a PLY; quads and other polygons are divided into triangles.

    Args:
        data: bytes of the PLY.
        file: source of the bytes, for errors.
        scene: name of the scene, for errors.
        name: name of the member, if ``file`` is an archive.

    Returns:
        The mesh. Vertices farther than :data:`loco.geometry.origin.FAR` from zero are float64, others float32.

    Raises:
        DataError: the bytes are not a PLY file or are damaged; the mesh has no faces, a vertex that is not finite, or a
            face that refers to a missing vertex; or its vertices are stored in single precision, which rounds them by
            more than :data:`loco.geometry.origin.LARGEST_STEP`.
    """
    what = f"mesh {name!r}" if name else "the mesh"
    try:
        polygons = parse_ply(data)
    except ValueError as error:
        raise DataError(f"{what} cannot be read: {error}", file=file, scene=scene, remedy=RESTORE) from error
    vertices, lengths, corners = polygons
    if not (lengths >= 3).any():
        raise DataError(
            f"{what} has no triangles: it is a point cloud with vertices but without faces",
            file=file,
            scene=scene,
            expected="a surface of triangles or polygons",
            found=f"{len(vertices)} vertices, {len(lengths)} faces",
            remedy="export a surface mesh of these points, or remove the file if it is optional",
        )
    faults = {
        "has vertices that are not finite": not (np.abs(vertices) < np.finfo(np.float32).max).all(),
        "has triangles that refer to missing vertices": not 0 <= corners.min() <= corners.max() < len(vertices),
    }
    for fault, present in faults.items():
        if present:
            raise DataError(f"{what} {fault}", file=file, scene=scene, remedy=RESTORE)
    try:
        triangles = triangulate(polygons)
    except ValueError as error:
        raise DataError(f"{what} cannot be read: {error}", file=file, scene=scene, remedy=RESTORE) from error
    largest = np.abs(vertices).max()
    step = single_step(largest)
    if step > LARGEST_STEP and _in_single_precision(data):
        raise DataError(
            f"{what} contains coordinates of up to {largest:.0f} m in single precision, which are rounded to "
            f"{step:g} m",
            file=file,
            scene=scene,
            expected="`property double x`, or coordinates near zero",
            found="`property float x`",
            remedy="export the mesh in double precision; a rounded mesh cannot be repaired",
        )
    return Mesh(vertices if largest > FAR else vertices.astype(np.float32), triangles.astype(np.uint32))


def _in_single_precision(data: bytes | bytearray) -> bool:
    header = _HEADER.match(data)
    return header is not None and b"format ascii" not in header[0] and _SINGLE.search(header[0]) is not None
