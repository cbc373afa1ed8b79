"""Write files atomically: write to a temporary file in the same folder, sync, then rename."""

from __future__ import annotations

import errno
import os
import re
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from loco.errors import DataError
from loco.parent_process import require_parent
from loco.process_identity import start_time
from loco.storage.reading import error_number

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_ABANDONED = 3600  # seconds without a write after which a temporary file of another machine is considered abandoned
_TEMPORARY = re.compile(r"\.(?P<host>[^.]*)-(?P<process>\d+)-(?P<started>\d+)-\d+\.part(\.[^.]*)?$")
_number = count()


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` and rename it to ``path`` when the block ends without an error.

    The temporary name keeps the suffix of ``path``, because libraries choose the format by it. If the block raises, the
    temporary file is removed; the temporary file of a killed process is removed by the next process that writes
    ``path``. The content is synced before the rename, so after a power failure ``path`` is the old file, the new file,
    or missing.

    Raises:
        DataError: the disk is full, or the file exceeds the allowed size.
        OrphanedError: the Snakemake that started this job has ended (:mod:`loco.parent_process`).
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_left_behind(path)
    temporary = _create(path)
    permissions = stat.S_IMODE(temporary.stat().st_mode)
    try:
        yield temporary
        require_parent()
        temporary.chmod(permissions)  # some libraries replace the file by one with private permissions
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError | RuntimeError) and _ran_out_of_room(error):  # HDF5 raises RuntimeErrors
            raise DataError(
                "the disk is full or the file exceeds the maximum file size; nothing was written",
                file=path,
                remedy="free disk space, run on a larger disk (snakemake --directory), or raise the limit that was "
                "reached (`ulimit -f`, a quota); then run the workflow again",
            ) from error
        raise


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` to ``path`` as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def temporary_files(folder: Path) -> list[Path]:
    """Return the temporary files of :func:`atomic_path` below a folder whose writers have ended."""
    return [file for file in sorted(folder.rglob(".*.part*")) if _left_behind(file)]


def remove_left_behind(path: Path) -> None:
    """Remove the temporary files of ``path`` whose writers were killed."""
    for file in path.parent.glob(f".{_escaped(path.name)}.*.part*"):
        if _left_behind(file):
            file.unlink(missing_ok=True)


def _create(path: Path) -> Path:
    # `mkstemp` would create a private file; an ordinary new file has the permissions that the umask allows.
    while True:
        name = f".{path.name}.{_host()}-{os.getpid()}-{start_time(os.getpid())}-{next(_number)}.part{path.suffix}"
        try:
            (path.parent / name).open("xb").close()
        except FileExistsError:
            continue
        return path.parent / name


def _left_behind(file: Path) -> bool:
    """Return whether the writer of a temporary file has ended."""
    match = _TEMPORARY.search(file.name)
    if match is None:
        return False
    if match["host"] != _host():
        try:
            return time.time() - file.stat().st_mtime > _ABANDONED
        except FileNotFoundError:
            return False
    return start_time(int(match["process"])) != int(match["started"])


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9_]", "_", socket.gethostname())[:20]


def _escaped(name: str) -> str:
    return re.sub(r"([\[\]*?])", r"[\1]", name)


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems cannot sync a folder
            raise
    finally:
        os.close(descriptor)


def _ran_out_of_room(error: BaseException | None) -> bool:
    """Return whether an error or one of its causes (HDF5 fails again on closing) is due to insufficient disk space."""
    return error is not None and (error_number(error) in _NO_ROOM or _ran_out_of_room(error.__context__))
