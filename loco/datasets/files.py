"""Read untrusted files: only regular files up to a maximum size; errors state the reason given by the system."""

from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path
from typing import Any

from loco.errors import DataError
from loco.files import decode_text, open_regular

LARGEST_JSON = 1 << 26  # largest JSON document, bytes; documents of these datasets have up to 15 MB
MAX_VALUES, MAX_CONTAINERS = 1 << 24, 1 << 20  # per document; an empty list, two bytes, takes 64 bytes in memory
LARGEST_FILE = 4 << 30  # bytes, far above the size of any file of these datasets that is read completely
MISSING = "add the file; docs/datasets.md lists the files of a scene"
RESTORE = "replace it with an intact copy (export, copy or download it again)"
REMEDIES = {
    errno.EACCES: "make the file and its parent folders readable for the user who runs the workflow",
    errno.EPERM: "make the file and its parent folders readable for the user who runs the workflow",
    errno.EMFILE: "raise the limit of open files (`ulimit -n`) and run the workflow again",
    errno.ENAMETOOLONG: "use a shorter path",
    errno.ELOOP: "remove the symbolic links that point to each other",
}


def read_bytes(file: Path, scene: str | None = None, *, limit: int = LARGEST_FILE, missing: str = MISSING) -> bytes:
    """Return the content of a regular file.

    Args:
        file: the file.
        scene: name of the scene, for errors.
        limit: largest size in bytes that is read.
        missing: remedy if there is no such file.

    Raises:
        DataError: the file is missing, unreadable, larger than ``limit``, or not a regular file (a pipe or a device
            could block or never end).
    """
    try:
        with open_regular(file, scene) as stream:
            size = os.fstat(stream.fileno()).st_size
            if size > limit:
                raise DataError(
                    "the file is too large",
                    file=file,
                    scene=scene,
                    expected=f"at most {limit} bytes",
                    found=f"{size} bytes",
                    remedy=RESTORE,
                )
            return stream.read()
    except OSError as error:
        raise system_error(error, file, scene, missing) from error


def parse_json(data: bytes | bytearray) -> Any:
    """Return the content of an untrusted JSON document; a byte order mark is allowed.

    Raises:
        ValueError: it is not JSON, nested too deeply, or larger than :data:`LARGEST_JSON`, :data:`MAX_VALUES` or
            :data:`MAX_CONTAINERS` allow.
    """
    if len(data) > LARGEST_JSON:
        raise ValueError(f"it has {len(data)} bytes, more than {LARGEST_JSON}")
    if data.count(b",") > MAX_VALUES or data.count(b"[") + data.count(b"{") > MAX_CONTAINERS:
        raise ValueError("it contains more lists and values than any file of these datasets")
    try:
        text = decode_text(data, errors="strict")
        content = json.loads(text)
        if re.search(r"\\u[dD][89a-fA-F]", text):  # half of a surrogate pair is not a character and cannot be encoded
            json.dumps(content, ensure_ascii=False).encode()
        return content
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def where_from(scene: str, published: str, download: str, own: str) -> str:
    """Return the remedy for missing files: where to download them, if the scene has the name of a published scene.

    Args:
        scene: its name.
        published: regular expression of the scene names of a dataset.
        download: remedy for published scenes.
        own: remedy for any other scene, such as a recording of the user's own.
    """
    return download if re.fullmatch(published, scene) else own


def system_error(
    error: OSError, file: Path | str | None = None, scene: str | None = None, missing: str = MISSING
) -> DataError:
    """Return a DataError for a failed system call, with the reason given by the system and a suitable remedy.

    Args:
        error: error of the system call.
        file: the file that was read; by default the file in ``error``.
        scene: name of the scene, for the message.
        missing: remedy if there is no such file.
    """
    reason = error.strerror or str(error) or type(error).__name__
    file = error.filename if file is None else file
    if isinstance(error, FileNotFoundError):
        return DataError("the file is missing", file=file, scene=scene, remedy=missing)
    if isinstance(error, NotADirectoryError):
        return DataError(
            "the file cannot be read: a part of its path is a file", file=file, scene=scene, remedy=missing
        )
    remedy = REMEDIES.get(error.errno, "check the disk or the network file system, and run the workflow again")
    return DataError(f"the file cannot be read: {reason}", file=file, scene=scene, remedy=remedy)
