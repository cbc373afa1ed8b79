"""Parse the segments of a JPEG file that precede its pixels."""

from __future__ import annotations

import struct
from collections.abc import Iterator

START_OF_SCAN, END_OF_IMAGE = 0xDA, 0xD9
NO_CONTENT = {0x01, *range(0xD0, 0xD9)}  # markers without content


def header_segments(data: bytes | bytearray) -> Iterator[tuple[int, int]]:
    """Yield the marker of each segment before the pixels, and the offset of its content, after its length.

    Stops at the pixels, at the end of the image, or where the data are not segments.

    Args:
        data: bytes that begin like a JPEG.
    """
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker in NO_CONTENT:
            at += 2
        elif marker in (START_OF_SCAN, END_OF_IMAGE):
            return
        else:
            yield marker, at + 4
            at += 2 + struct.unpack_from(">H", data, at + 2)[0]
