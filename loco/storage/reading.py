"""Convert errors of reading a file to DataErrors that state the file, the reason, and how to fix it."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loco.errors import DataError, LocoError

REGENERATE = "delete it and run the workflow again"
# Errors that are independent of the content of the file, and how to fix them.
_ENVIRONMENT: dict[int | None, str] = {
    errno.ENOENT: "run the step that makes it, or correct the path",
    errno.EACCES: "grant your user read permission for the file and its parent folders",
    errno.EPERM: "grant your user read permission for the file and its parent folders",
    errno.EMFILE: "raise the limit of open files (`ulimit -n 4096`)",
    errno.ENFILE: "close programs that have many open files, or run on another machine",
    errno.ENOLCK: "the file system does not support locks: set HDF5_USE_FILE_LOCKING=FALSE",
    errno.ENOMEM: "free memory or run fewer jobs concurrently",
    errno.EIO: "the disk or the network file system failed: run the workflow again, and check the disk",
    errno.ESTALE: "the network file system failed: run the workflow again",
    errno.ELOOP: "correct the symbolic link",
    errno.EISDIR: "pass a file instead of a folder",
    errno.ENOTDIR: "correct the path: one of its parents is a file",
    errno.ENAMETOOLONG: "use a shorter path",
}


@contextmanager
def reading(path: str | Path, scene: str | None = None, remedy: str = REGENERATE) -> Iterator[None]:
    """Convert every error in the block, which reads ``path``, to a DataError that names the file.

    Args:
        path: the file.
        scene: the scene that it belongs to.
        remedy: how to fix a file with invalid content.

    Raises:
        DataError: the file cannot be read. The error states ``remedy``, or how to fix an error of the system (a missing
            file, permissions, limits).
    """
    try:
        yield
    except LocoError:
        raise
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, EOFError, MemoryError) as error:
        number = error_number(error)
        reason = "the file is not valid JSON" if isinstance(error, json.JSONDecodeError) else "the file cannot be read"
        raise DataError(
            f"{reason}: {type(error).__name__}: {first_line(error)}",
            file=path,
            scene=scene,
            remedy=_ENVIRONMENT.get(number, remedy),
        ) from error


def is_refused_by_system(error: BaseException) -> bool:
    """Return whether the system refused to read a file, for a reason that is independent of its content."""
    return error_number(error) in _ENVIRONMENT


def error_number(error: BaseException) -> int | None:
    """Return the system error number of an error, or None; HDF5 states the number only in the text of its messages."""
    if isinstance(error, MemoryError):
        return errno.ENOMEM
    in_text = re.search(r"errno = (\d+)", str(error))
    return getattr(error, "errno", None) or (int(in_text[1]) if in_text else None)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, at most 300 characters."""
    return (str(error).splitlines() or [""])[0][:300]
