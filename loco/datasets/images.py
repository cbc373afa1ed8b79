"""Decode images from memory, with pixels as stored: an EXIF orientation is never applied.

The size in the header is checked first, because a few bytes can claim an image of gigabytes.

libjpeg fills the missing part of a damaged JPEG with grey and only prints a warning, so the end of the pixels is
checked here (:func:`_jpeg_damage`). The check does not detect changed bytes within the pixels, nor a progressive JPEG
that is truncated after its first scan and closed with an end marker, which only lacks detail.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from loco.datasets.files import RESTORE
from loco.datasets.jpeg import END_OF_IMAGE, START_OF_SCAN, header_segments
from loco.datasets.orientation import as_stored
from loco.errors import DataError

LARGEST_IMAGE = 100_000_000  # pixels, 300 MB when decoded; images of these datasets have up to 20 million
LARGEST_DEPTH = 65535  # largest value of a 16-bit image
LARGEST_FILE = 1 << 28  # largest image file, bytes
KINDS = "PNG, JPEG, BMP, PNM, TIFF or WebP"
# Unsupported image types that cameras and phones write.
UNREAD = frozenset(
    {
        *(".heic", ".heif", ".hif", ".avif", ".jxl", ".gif", ".jp2"),
        *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2"),
    }
)
CONVERT = "convert them to JPEG or PNG, for example with `magick mogrify -format jpg`"
_OTHER_KINDS = {  # (offset, bytes) -> type of the file
    (4, b"ftyphei"): "HEIC",
    (4, b"ftyphev"): "HEIC",
    (4, b"ftypmif1"): "HEIF",
    (4, b"ftypmsf1"): "HEIF",
    (4, b"ftypavif"): "AVIF",
    (0, b"GIF8"): "GIF",
    (0, b"\xff\x0a"): "JPEG XL",
    (4, b"JXL "): "JPEG XL",
    (0, b"%PDF"): "PDF",
    (0, b"PK\x03\x04"): "a zip file",
    (0, b"\0\x05\x16\x07"): "metadata of macOS",
    (0, b"version https://git-lfs"): "a pointer of Git LFS, not the file itself",
}
_PNM = re.compile(rb"P[1-6]" + 2 * rb"(?:\s|#[^\n]*\n)+(\d{1,9})" + rb"\s")
_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")  # JPEG marker, but not a stuffed byte or a restart marker
_BLOCK = 8  # side of a JPEG block, pixels
_PIXELS = bytes(k * k % 251 for k in range(256))
# A decoder that lacks pixels reads these bytes as pixels, for any restart marker that it expects.
_MORE_PIXELS = _PIXELS + b"".join(bytes([0xFF, 0xD0 + k]) + _PIXELS for k in range(8))
_START_OF_FRAME = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # JPEG markers with the size of the image


def decode_color(
    data: bytes | bytearray, *, file: Path, scene: str | None, name: str | None = None
) -> NDArray[np.uint8]:
    """Decode a colour image (H, W, 3), RGB, from memory, in the orientation in which its pixels are stored.

    Args:
        data: bytes of the image.
        file: source of the bytes, for errors.
        scene: name of the scene, for errors.
        name: name of the image, if ``file`` contains several.

    Raises:
        DataError: the bytes are empty, not an image, or an image of more than :data:`LARGEST_IMAGE` pixels.
    """
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    return cv2.cvtColor(_decode(data, flags, file, scene, name or file.name), cv2.COLOR_BGR2RGB)


def decode_depth(
    data: bytes | bytearray, *, file: Path, scene: str, remedy: str, name: str | None = None
) -> NDArray[np.uint16]:
    """Decode a depth image (h, w), in the unit of the dataset, from memory.

    See :func:`decode_color` for the other arguments; ``remedy`` states how to fix an image of another type.

    Raises:
        DataError: as :func:`decode_color`, or the image does not have one channel of 16 bits.
    """
    # IMREAD_UNCHANGED also ignores the orientation.
    image = _decode(data, cv2.IMREAD_UNCHANGED, file, scene, name or file.name)
    if image.dtype != np.uint16 or image.ndim != 2:
        what = f"depth image {name!r} is" if name else "the depth image is"
        raise DataError(
            f"{what} not a 16-bit image with one channel",
            file=file,
            scene=scene,
            found=f"{image.dtype} {image.shape}",
            remedy=remedy,
        )
    return image


def depth_in_metres(numbers: NDArray[np.uint16], units: float) -> NDArray[np.float32]:
    """Convert depth values of ``units`` per metre to metres, (h, w) float32, 0 = none.

    Both 0 and 65535, the largest value, denote missing depth: some sensors and datasets write 65535 for "no return",
    and in all others it means out of range.
    """
    return np.where(numbers == LARGEST_DEPTH, 0, numbers).astype(np.float32) / np.float32(units)


def stated_size(data: bytes | bytearray) -> tuple[int, int] | None:
    """Return (height, width) from the header of an image, or None if its type is unknown or its header incomplete."""
    try:
        if data.startswith(b"\x89PNG\r\n\x1a\n") and data[12:16] == b"IHDR":
            width, height = struct.unpack_from(">II", data, 16)
        elif data.startswith(b"\xff\xd8"):
            return _jpeg_size(data)
        elif data.startswith(b"BM"):
            (head,) = struct.unpack_from("<I", data, 14)
            width, height = struct.unpack_from("<HH" if head == 12 else "<ii", data, 18)
        elif match := _PNM.match(data):
            width, height = map(int, match.groups())
        elif data[:4] in (b"II*\0", b"MM\0*"):
            return _tiff_size(data)
        elif data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            return _webp_size(data)
        else:
            return None
        return abs(height), abs(width)
    except struct.error:  # the data end within the header
        return None


def unread_images(names: Iterable[str]) -> list[str]:
    """Return the names of images of unsupported types by their suffixes, such as HEIC and raw files of cameras."""
    return [name for name in names if PurePosixPath(name).suffix.lower() in UNREAD]


def _decode(data: bytes | bytearray, flags: int, file: Path, scene: str | None, name: str) -> NDArray:
    if not data:
        raise _image_error(f"image {name!r} is empty", file, scene, found="0 bytes")
    size = stated_size(data)
    if size is None:
        kind = next((kind for (at, mark), kind in _OTHER_KINDS.items() if data.startswith(mark, at)), None)
        found = f"{kind}, which is not supported" if kind else len(data)
        remedy = CONVERT if kind and kind[:4] in ("HEIC", "HEIF", "AVIF", "GIF", "JPEG") else RESTORE
        raise _image_error(
            f"image {name!r} cannot be decoded", file, scene, f"a complete {KINDS} image", found, remedy=remedy
        )
    if size[0] * size[1] > LARGEST_IMAGE:
        expected = f"at most {LARGEST_IMAGE} pixels"
        found, remedy = f"{size[1]} x {size[0]}", f"reduce its size, or {RESTORE} if it is damaged"
        raise _image_error(f"image {name!r} is too large", file, scene, expected, found, remedy)
    try:
        image = cv2.imdecode(np.frombuffer(as_stored(data), np.uint8), flags)
    except cv2.error:
        image = None
    if image is None:
        raise _image_error(
            f"image {name!r} cannot be decoded", file, scene, f"a complete {KINDS} image", f"{len(data)} bytes"
        )
    if data.startswith(b"\xff\xd8") and (damage := _jpeg_damage(data, image)):
        expected = "a JPEG with all pixels and the end-of-image marker (FF D9)"
        raise _image_error(f"image {name!r} is damaged: {damage}", file, scene, expected, f"{len(data)} bytes")
    return image


def _jpeg_damage(data: bytes | bytearray, image: NDArray) -> str | None:
    """Return what is wrong with the end of a JPEG that was decoded as ``image``, or None.

    If pixels are missing, libjpeg repeats one colour up to the last corner. Since an intact image may also end in one
    colour, bytes are inserted after the pixels: a decoder that has all pixels does not read them.
    """
    end = _end_of_pixels(data)
    if end is None:
        return "it is truncated or overwritten, since no end-of-image marker follows its pixels"
    corner = image[-(image.shape[0] % _BLOCK or _BLOCK) :, -(image.shape[1] % _BLOCK or _BLOCK) :]
    if (corner != corner[-1, -1]).any():
        return None
    try:
        complete = _thumbnail(data) == _thumbnail(data[:end] + _MORE_PIXELS + data[end:])
    except (OSError, ValueError, Image.DecompressionBombError):  # OpenCV decoded it, but Pillow does not
        return None
    return None if complete else "its pixels end early"


def _end_of_pixels(data: bytes | bytearray) -> int | None:
    """Return the offset of the end of a JPEG's pixels, or None if no end marker follows; later bytes are ignored."""
    at, end = 2, None
    while marker := _MARKER.search(data, at):
        kind, at = marker[1][0], marker.end()
        if kind == END_OF_IMAGE:
            return end
        if kind in (0x01, 0xD8):  # markers without content
            continue
        if at + 2 > len(data):
            return None
        at += struct.unpack_from(">H", data, at)[0]
        if kind == START_OF_SCAN:
            following = _MARKER.search(data, at)
            end = following.start() if following else None
    return None


def _thumbnail(data: bytes | bytearray) -> bytes:
    """Return the grey values of a JPEG, one per block. Pillow is used, because OpenCV prints warnings of libjpeg."""
    with Image.open(io.BytesIO(data)) as image:
        image.draft("L", (1, 1))
        return image.tobytes()


def _jpeg_size(data: bytes | bytearray) -> tuple[int, int] | None:
    for marker, at in header_segments(data):
        if marker in _START_OF_FRAME:
            height, width = struct.unpack_from(">HH", data, at + 1)
            return height, width
    return None


def _tiff_size(data: bytes | bytearray) -> tuple[int, int] | None:
    order = "<" if data[:2] == b"II" else ">"
    (at,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, at)
    sides = {}
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        tag, kind = struct.unpack_from(f"{order}HH", data, entry)
        (sides[tag],) = struct.unpack_from(f"{order}{'H' if kind == 3 else 'I'}", data, entry + 8)
    return (sides[257], sides[256]) if {256, 257} <= sides.keys() else None


def _webp_size(data: bytes | bytearray) -> tuple[int, int] | None:
    kind = data[12:16]
    if kind == b"VP8X":
        height, width = (int.from_bytes(data[k : k + 3], "little") + 1 for k in (27, 24))
        return (height, width) if len(data) >= 30 else None
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return height & 0x3FFF, width & 0x3FFF
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    return None


def _image_error(
    problem: str,
    file: Path,
    scene: str | None,
    expected: object = None,
    found: object = None,
    remedy: str = RESTORE,
) -> DataError:
    found = f"{found} bytes" if isinstance(found, int) else found
    return DataError(problem, file=file, scene=scene, expected=expected, found=found, remedy=remedy)
