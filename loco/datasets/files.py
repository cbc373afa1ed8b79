"""Read files that are not to be trusted: regular ones only, up to a size, with the system's reason where that fails."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from loco.errors import DataError

LARGEST_FILE = 4 << 30  # bytes; no single file of these datasets that is read whole comes near this size
MISSING = "write or download it again"
REMEDIES = {
    errno.EACCES: "make it readable for the user who runs the workflow, as well as every folder above it",
    errno.EPERM: "make it readable for the user who runs the workflow, as well as every folder above it",
    errno.EMFILE: "raise the limit of open files (`ulimit -n`) and run the workflow again",
    errno.ENAMETOOLONG: "use a shorter path",
    errno.ELOOP: "remove the symbolic links that point to each other",
}


def read_bytes(file: Path, scene: str | None = None, *, limit: int = LARGEST_FILE, missing: str = MISSING) -> bytes:
    """Return the content of a regular file.

    Args:
        file: the file.
        scene: named in errors.
        limit: largest size in bytes that is read.
        missing: what to do where there is no such file.

    Raises:
        DataError: the file is missing, unreadable, larger than ``limit``, or no regular file (a pipe or a device could
            block or never end).
    """
    try:
        status = os.stat(file)
        require_regular(file, status, scene)
        if status.st_size > limit:
            raise DataError(
                "is too large",
                file=file,
                scene=scene,
                expected=f"at most {limit} bytes",
                found=f"{status.st_size} bytes",
                remedy="write or download it again",
            )
        with open(file, "rb") as stream:
            return stream.read()
    except OSError as error:
        raise system_error(error, file, scene, missing) from error


def require_regular(file: Path | str, found: os.stat_result, scene: str | None = None) -> None:
    """Refuse a pipe, a device, a socket or a folder where a file belongs.

    Raises:
        DataError: the status ``found`` is not that of a regular file.
    """
    if not stat.S_ISREG(found.st_mode):
        raise DataError(
            "cannot be read: it is not a regular file",
            file=file,
            scene=scene,
            found=stat.filemode(found.st_mode),
            remedy="put the file itself in its place",
        )


def system_error(
    error: OSError, file: Path | str | None = None, scene: str | None = None, missing: str = MISSING
) -> DataError:
    """Return the DataError of a failed system call, with the system's reason and a remedy that fits it.

    Args:
        error: what was raised.
        file: the file that was read; by default the one that ``error`` names.
        scene: named in the message.
        missing: what to do where there is no such file.
    """
    reason = error.strerror or str(error) or type(error).__name__
    file = error.filename if file is None else file
    if isinstance(error, FileNotFoundError):
        return DataError("is missing", file=file, scene=scene, remedy=missing)
    remedy = REMEDIES.get(error.errno, "check the disk or the network file system, and run the workflow again")
    return DataError(f"cannot be read: {reason}", file=file, scene=scene, remedy=remedy)
