"""Meshes in PLY files, read safely."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import trimesh

from loco.errors import DataError
from loco.geometry.mesh import Mesh
from loco.geometry.origin import FAR, LARGEST_STEP, single_step

_HEADER = re.compile(rb"ply\s.*?end_header", re.DOTALL)
_SINGLE = re.compile(rb"(?<=property )(?:float|float32)(?= [xyz]\s)")


def read_ply(data: bytes, *, file: Path, scene: str, name: str | None = None) -> Mesh:
    """The triangle mesh of a PLY.

    Args:
        data: its bytes.
        file: where they come from, for errors.
        scene: likewise.
        name: of the member, where ``file`` is an archive.

    Returns:
        The mesh. Vertices farther than :data:`loco.geometry.origin.FAR` from zero are float64, others float32.

    Raises:
        DataError: it has no triangles, a vertex that is not finite, a triangle without its vertex, or vertices in
            single precision so far from zero that its step there is above :data:`loco.geometry.origin.LARGEST_STEP`.
    """
    what = f"mesh {name!r}" if name else "the mesh"
    try:
        mesh = trimesh.load(io.BytesIO(_text_as_double(data)), file_type="ply", process=False)
        vertices, triangles = np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces)
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
    largest = np.abs(vertices).max()
    step = single_step(largest)
    if step > LARGEST_STEP and _in_single_precision(data):
        raise DataError(
            f"{what} holds coordinates of up to {largest:.0f} m in single precision, which rounds them to {step:g} m",
            file=file,
            scene=scene,
            expected="`property double x`, or coordinates near zero",
            found="`property float x`",
            remedy="export the mesh in double precision; a mesh that was rounded cannot be repaired",
        )
    return Mesh(vertices if largest > FAR else vertices.astype(np.float32), triangles.astype(np.uint32))


def _text_as_double(data: bytes) -> bytes:
    """Declare the vertices of a text PLY as double: their digits are as many as were written, whatever the type."""
    header = _HEADER.match(data)
    if header is None or b"format ascii" not in header[0]:
        return data
    return _SINGLE.sub(b"double", header[0]) + data[header.end() :]


def _in_single_precision(data: bytes) -> bool:
    header = _HEADER.match(data)
    return header is not None and b"format ascii" not in header[0] and _SINGLE.search(header[0]) is not None
