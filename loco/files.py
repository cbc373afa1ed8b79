"""Rules for all files that the project opens: which names are data, which types are read, how text is encoded.

This module imports only the errors of the project, because configuration, storage, readers and models depend on it.
"""

from __future__ import annotations

import codecs
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path, PurePath, PurePosixPath

from loco.errors import DataError

# Names of files that operating systems, file servers and archive programs create beside data, in lower case.
CLUTTER = frozenset(
    {
        *("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r", "__macosx"),
        *("@eadir", "#recycle", "$recycle.bin", "system volume information", "lost+found"),
    }
)
CLUTTER_ENDINGS = ("~", ":zone.identifier", "@synoresource", "@synoeastream")
_BOMS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}


def is_data(path: str | PurePath) -> bool:
    """Return whether a path, relative to the folder of the data, may be data.

    It is not if one of its components is hidden (begins with a dot) or is created automatically by systems and
    programs: ``Thumbs.db``, ``desktop.ini``, ``__MACOSX``, ``@eaDir``, ``._*`` and similar names.
    """
    parts = PurePosixPath(path).parts if isinstance(path, str) else path.parts
    return not any(_is_clutter(part) for part in parts)


def is_plain_path(path: str | PurePath) -> bool:
    """Return whether a path has no braces (wildcards of Snakemake) and no control characters."""
    text = str(path)
    return text.isprintable() and not {"{", "}"} & set(text)


def _is_clutter(name: str) -> bool:
    hidden = name.startswith(".") and name not in (".", "..")
    lower = name.lower()
    return hidden or lower in CLUTTER or lower.endswith(CLUTTER_ENDINGS)


def require_regular(file: Path | str, found: os.stat_result, scene: str | None = None) -> None:
    """Refuse a pipe, a device, a socket or a folder in place of a file, because they could block or never end.

    Raises:
        DataError: the status ``found`` is not that of a regular file.
    """
    if not stat.S_ISREG(found.st_mode):
        raise DataError(
            "cannot be read: it is not a regular file",
            file=file,
            scene=scene,
            found=stat.filemode(found.st_mode),
            remedy="replace it with a regular file",
        )


@contextmanager
def open_regular(file: Path | str, scene: str | None = None) -> Iterator[BufferedReader]:
    """Open a regular file for reading bytes. Opening does not wait, as it would for the writer of a pipe.

    Raises:
        DataError: the file is not a regular file.
        OSError: it cannot be opened.
    """
    require_regular(file, os.stat(file), scene)
    descriptor = os.open(
        file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    )  # the file may have been replaced in the meantime
    with os.fdopen(descriptor, "rb") as opened:
        require_regular(file, os.fstat(opened.fileno()), scene)
        yield opened


def decode_text(data: bytes | bytearray, errors: str = "replace") -> str:
    """Return the text of a file: UTF-8, with or without a byte order mark, or UTF-16 with one (as Windows writes them).

    Args:
        data: the bytes of the file.
        errors: how to handle invalid bytes, as for :meth:`bytes.decode`.
    """
    for mark, encoding in _BOMS.items():
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding, errors)
    return data.decode("utf-8", errors)
