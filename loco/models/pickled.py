"""Recognise files that are not PyTorch checkpoints by their first bytes, before they are unpickled."""

from __future__ import annotations

import re
from pathlib import Path

from loco.errors import DataError
from loco.files import open_regular

REFETCH = "download the file again from its authors"
_BYTES = 512


def require_checkpoint(path: str | Path) -> None:
    """Check that a file begins as ``torch.save`` writes it: as a zip archive, or as a pickle (before PyTorch 1.6).

    Raises:
        DataError: the file begins otherwise; the message states its apparent type.
        OSError: the file cannot be opened.
    """
    with open_regular(path) as opened:
        start = opened.read(_BYTES)
    if re.match(rb"PK\x03\x04|\x80[\x02-\x05]", start):
        return
    raise DataError(
        "the file cannot be read: it is not a PyTorch checkpoint",
        file=path,
        expected="a zip archive or a pickle written by `torch.save`",
        found=_kind(start),
        remedy=REFETCH,
    )


def _kind(start: bytes) -> str:
    """Return the apparent type of a file from its first bytes."""
    if not start:
        return "an empty file"
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 1 << 40:
        return "a safetensors file"
    if start.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS instead of the file itself"
    if re.match(rb"(\xef\xbb\xbf)?\s*<(!doctype|html|\?xml)", start, re.IGNORECASE):
        return "a web page (HTML)"
    if start.startswith(b"\x89HDF"):
        return "an HDF5 file"
    if start.startswith(b"\x1f\x8b"):
        return "a gzip archive, which must be unpacked first"
    if all(byte >= 32 or byte in b"\t\n\r" for byte in start):
        return f"a text file that begins with {start[:40].decode('utf-8', 'replace')!r}"
    return f"bytes {start[:8].hex(' ')}"
