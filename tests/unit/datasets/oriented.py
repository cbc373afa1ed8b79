"""Image files with an EXIF orientation, built byte by byte."""

import struct
import zlib

ORIENTATIONS = range(1, 9)


def exif(orientation: int, order: str = ">") -> bytes:
    """Return a TIFF structure that contains this tag only."""
    mark = b"MM\0*" if order == ">" else b"II*\0"
    return mark + struct.pack(f"{order}IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)


def oriented(data: bytes, orientation: int, order: str = ">") -> bytes:
    """Write a JPEG, PNG, lossless WebP or little-endian TIFF file with the tag; its pixels are unchanged."""
    block = exif(orientation, order)
    if data.startswith(b"\xff\xd8"):
        head = struct.pack(">H", 8 + len(block)) + b"Exif\0\0"
        return data[:2] + b"\xff\xe1" + head + block + data[2:]
    if data.startswith(b"\x89PNG"):
        chunk = b"eXIf" + block
        return data[:33] + struct.pack(">I", len(block)) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[33:]
    if data.startswith(b"RIFF"):
        (bits,) = struct.unpack_from("<I", data, 21)
        sides = (bits & 0x3FFF).to_bytes(3, "little") + (bits >> 14 & 0x3FFF).to_bytes(3, "little")
        extended = b"VP8X" + struct.pack("<I", 10) + b"\x08\0\0\0" + sides
        body = b"WEBP" + extended + data[12:] + b"EXIF" + struct.pack("<I", len(block)) + block
        return b"RIFF" + struct.pack("<I", len(body)) + body
    assert data[:4] == b"II*\0"
    (at,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, at)
    entries = [data[at + 2 + 12 * k : at + 14 + 12 * k] for k in range(count)]
    entries.append(struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0))
    entries.sort(key=lambda entry: struct.unpack_from("<H", entry))
    directory = struct.pack("<H", count + 1) + b"".join(entries) + bytes(4)
    return data[:4] + struct.pack("<I", len(data)) + data[8:] + directory
