"""The EXIF orientation of image files (tag 0x0112), which no reader of this project applies.

Intrinsics, poses, depth, labels and matches refer to the pixels as stored. A viewer rotates a photograph according to
the tag; a reader that did the same would misalign it with the files that belong to it. COLMAP ignores the tag, too. The
check of a scene counts the images with an orientation (:func:`count_orientations`) and notes them in its manifest.

Source: Exif 2.32, section 4.6 (the tag), JPEG's APP1 segment, PNG's chunk ``eXIf``, WebP's chunk ``EXIF``; in a TIFF,
the tag belongs to the first image of the file itself.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

from loco.datasets.jpeg import header_segments

TAG, UPRIGHT = 0x0112, 1
SHORT = 3  # type of the tag's value; libtiff also accepts the other integers
_INTEGERS = {1: "B", SHORT: "H", 4: "I"}
_EXIF = b"Exif\0\0"
_counter: ContextVar[Counter[int] | None] = ContextVar("orientations", default=None)


class _Tag(NamedTuple):
    """The tag: its ``value``, 1 to 8 (1 if invalid); the offset ``at`` of its entry of 12 bytes; the byte ``order``."""

    value: int
    at: int
    order: str


@contextmanager
def count_orientations() -> Iterator[Counter[int]]:
    """Count the EXIF orientations of all images that are decoded within the block, in this thread.

    Yields:
        EXIF orientation (1 to 8) -> number of images. An image without the tag has orientation 1.
    """
    counted: Counter[int] = Counter()
    token = _counter.set(counted)
    try:
        yield counted
    finally:
        _counter.reset(token)


def orientations_note(counted: Counter[int]) -> str | None:
    """Return a note for a manifest on images with an orientation other than 1, or None if there are none."""
    stated = {value: number for value, number in sorted(counted.items()) if value != UPRIGHT}
    if not stated:
        return None
    each = ", ".join(f"{number} with orientation {value}" for value, number in stated.items())
    return (
        f"an EXIF orientation is stated by {sum(stated.values())} of the {counted.total()} images that were decoded "
        f"({each}); it is ignored: cameras, poses, depth and pixel coordinates refer to the pixels as they are stored"
    )


def as_stored(data: bytes | bytearray) -> bytes | bytearray:
    """Return the bytes of an image file such that OpenCV decodes the pixels as stored, and count its orientation.

    OpenCV ignores the tag on request, except in a TIFF, where it always applies it; there the tag is set to 1.
    """
    tag = _find(data)
    if (counted := _counter.get()) is not None:
        counted[tag.value if tag else UPRIGHT] += 1
    if tag is None or not _is_tiff(data):
        return data
    return data[: tag.at] + struct.pack(f"{tag.order}HHIHH", TAG, SHORT, 1, UPRIGHT, 0) + data[tag.at + 12 :]


def stated_orientation(data: bytes | bytearray) -> int:
    """Return the orientation of an image file, 1 to 8; 1 if the tag is missing or invalid."""
    tag = _find(data)
    return tag.value if tag else UPRIGHT


def _find(data: bytes | bytearray) -> _Tag | None:
    try:
        block = _exif_block(data)
        return None if block is None else _read_tag(data, block)
    except struct.error:  # the data end within a header
        return None


def _is_tiff(data: bytes | bytearray, at: int = 0) -> bool:
    return data[at : at + 4] in (b"II*\0", b"MM\0*")


def _exif_block(data: bytes | bytearray) -> int | None:
    """Return the offset of the EXIF block, which has the structure of a TIFF file."""
    if _is_tiff(data):
        return 0
    if data.startswith(b"\xff\xd8"):
        return _in_jpeg(data)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _in_chunks(data, 8, b"eXIf", ">I4s", 4)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _in_chunks(data, 12, b"EXIF", "<4sI", 0)
    return None


def _in_jpeg(data: bytes | bytearray) -> int | None:
    for marker, at in header_segments(data):
        if marker == 0xE1 and data[at : at + 6] == _EXIF:
            return at + 6
    return None


def _in_chunks(data: bytes | bytearray, at: int, name: bytes, head: str, tail: int) -> int | None:
    """Return the offset of a chunk's content. Chunks have a ``head`` of name and size and, in PNG, a checksum."""
    while at + 8 <= len(data):
        first, second = struct.unpack_from(head, data, at)
        kind, size = (first, second) if isinstance(first, bytes) else (second, first)
        if kind == name:
            return at + 8 + (len(_EXIF) if data[at + 8 : at + 14] == _EXIF else 0)
        at += 8 + size + (tail or size % 2)  # chunks of WebP have an even length
    return None


def _read_tag(data: bytes | bytearray, block: int) -> _Tag | None:
    if not _is_tiff(data, block):
        return None
    order = "<" if data[block : block + 2] == b"II" else ">"
    (first,) = struct.unpack_from(f"{order}I", data, block + 4)
    (count,) = struct.unpack_from(f"{order}H", data, block + first)
    for entry in range(block + first + 2, block + first + 2 + 12 * count, 12):
        number, kind = struct.unpack_from(f"{order}HH", data, entry)
        if number == TAG:
            (value,) = struct.unpack_from(f"{order}{_INTEGERS.get(kind, 'H')}", data, entry + 8)
            return _Tag(value if 1 <= value <= 8 else UPRIGHT, entry, order)
    return None
