"""Content ids: each file contains the SHA-256 of its own content.

The id is in the head of the file, as ``content_id`` and 64 hexadecimal digits, in every format: in the user block of an
HDF5 file, first in a JSON document, in the metadata of a safetensors file, in a comment of a PLY file. It is the
SHA-256 of the file's bytes with these 64 digits set to zero, so a change of any bit is detected. It is computed once,
when the file is written; readers take it from the head.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import BinaryIO

from loco.errors import DataError
from loco.files import open_regular
from loco.storage.reading import REGENERATE, reading

HEAD = 4096  # bytes at the start of a file that contain the id
BLANK = "0" * 64  # placeholder of the id, which `seal` replaces
_ID = re.compile(rb"content_id\W{1,8}([0-9a-f]{64})(?![0-9a-f])")
_BLOCK = 1 << 20


def seal(path: str | Path) -> str:
    """Write the content id of a finished file into its head, and return it.

    Raises:
        ValueError: the file has no blank id in its head.
        OSError: the file cannot be read or written.
    """
    with open(path, "r+b") as file:
        start, found = _locate(file.read(HEAD))
        if found != BLANK:
            raise ValueError(f"{path} has no blank content id")
        content_id = _digest(file, start)
        file.seek(start)
        file.write(content_id.encode())
        file.flush()
        os.fsync(file.fileno())
    return content_id


def read_content_id(path: str | Path) -> str:
    """Return the content id stated in the head of a file, without reading the rest of the file.

    Raises:
        DataError: the file cannot be read, or has no content id (such as a file of version 0.1 of this project).
    """
    with reading(path), open_regular(path) as file:
        return _stated(path, file.read(HEAD))[1]


def verify_content_id(path: str | Path) -> str:
    """Read a whole file, check it against its content id, and return the id.

    Raises:
        DataError: the file cannot be read, has no content id, or was changed or damaged after it was written.
    """
    with reading(path), open_regular(path) as file:
        start, stated = _stated(path, file.read(HEAD))
        found = _digest(file, start)
    if found != stated:
        raise DataError(
            "the file is damaged or was changed after it was written",
            file=path,
            expected=f"content id {stated}",
            found=f"content id {found}",
            remedy=REGENERATE,
        )
    return stated


def verified_bytes(path: str | Path) -> bytes:
    """Check a small file as :func:`verify_content_id` does, and return its content."""
    verify_content_id(path)
    with reading(path):
        return Path(path).read_bytes()


def _stated(path: str | Path, head: bytes) -> tuple[int, str]:
    try:
        return _locate(head)
    except ValueError:
        raise DataError(
            "the file has no content id: it was written by an earlier version of this project, or its header is "
            "damaged",
            file=path,
            remedy=REGENERATE,
        ) from None


def _locate(head: bytes) -> tuple[int, str]:
    """Return offset and value of the content id in the head of a file."""
    match = _ID.search(head)
    if match is None:
        raise ValueError("no content id")
    return match.start(1), match[1].decode()


def _digest(file: BinaryIO, start: int) -> str:
    """Return the SHA-256 of an open file, with the content id at offset ``start`` replaced by zeros."""
    file.seek(0)
    head = file.read(start)
    digest = hashlib.sha256(head + BLANK.encode())
    file.seek(start + len(BLANK))
    while block := file.read(_BLOCK):
        digest.update(block)
    return digest.hexdigest()
