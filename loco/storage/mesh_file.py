"""Meshes made by the workflow (``results/meshes``): PLY files with a record and a content id in their comments."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from loco.errors import DataError
from loco.records import Recipe, Record, require_recipe
from loco.storage.atomic import atomic_path
from loco.storage.content_id import BLANK, read_content_id, seal, verified_bytes
from loco.storage.reading import REGENERATE, reading

_RECORD = b"comment record "


def write_mesh(
    path: str | Path, ply: bytes, record: Record | None = None, origin: Iterable[float] = (0.0, 0.0, 0.0)
) -> None:
    """Write a PLY file, atomically.

    Args:
        path: output file.
        ply: content of a PLY file.
        record: provenance record.
        origin: (3,), offset to add to the vertices for world coordinates, metres; stored in a comment of the file.
    """
    magic, format, rest = ply.split(b"\n", 2)
    content = json.dumps(record.to_json() if record else None, sort_keys=True).encode()
    comments = [b"comment content_id " + BLANK.encode(), _RECORD + content]
    comments.append(b"comment origin " + " ".join(f"{value:.17g}" for value in origin).encode())
    with atomic_path(path) as temporary:
        temporary.write_bytes(b"\n".join([magic, format, *comments, rest]))
        seal(temporary)


def read_mesh(path: str | Path, expected: Recipe | None = None) -> tuple[bytes, str]:
    """Return the bytes and the content id of a PLY file written by :func:`write_mesh`.

    Raises:
        DataError: it is missing or damaged, or was not made as expected.
    """
    data = verified_bytes(path)
    if expected is not None:
        require_recipe(mesh_record(path, data), expected, file=path)
    return data, read_content_id(path)


def mesh_record(path: str | Path, data: bytes) -> Record | None:
    """Return the record in a PLY file; None if it was written without one.

    Raises:
        DataError: the file has no valid record.
    """
    line = next((line for line in data.split(b"\n", 8)[:8] if line.startswith(_RECORD)), None)
    if line is None:
        raise DataError("the file has no provenance record", file=path, remedy=REGENERATE)
    with reading(path):
        content = json.loads(line.removeprefix(_RECORD))
        return Record.from_json(content) if content is not None else None
