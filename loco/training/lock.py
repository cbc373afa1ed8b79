"""Lock of a folder, which allows one training at a time, also on file systems without locks."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from loco.errors import DataError
from loco.process_identity import ProcessIdentity

LOCK = ".lock"  # in the folder: locked with flock
HELD = ".lock.held"  # if the file system has no locks: followed by a number
# Errors of flock on file systems without locks: NFS without lockd, some FUSE file systems.
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}
RELEASED = "released\n"  # replaces the list of processes
LOOK = 0.1  # seconds, maximum time for which a test of the lock holds it
TRIES = 10  # maximum number of attempts to create a lock file

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Lock:
    """A lock that this process holds.

    Attributes:
        path: file that lists the processes that hold it, until it is released.
        descriptors: file descriptors to be inherited by child processes that also hold the lock.
    """

    path: Path
    descriptors: tuple[int, ...]

    def share(self, process: int) -> None:
        """Register a child process, which inherited ``descriptors``, as a holder of the lock: it may outlive this
        process.
        """
        with self.path.open("a") as file:
            file.write(f"{ProcessIdentity.of(process)}\n")


@contextmanager
def training_lock(folder: Path) -> Iterator[Lock]:
    """Hold the lock of a training's folder, which is created if missing.

    The lock is a system lock (flock). If the file system does not support locks, it is a file that lists the processes
    of the training until the training ends. Such a lock also counts as free if all listed processes are of this machine
    and have ended.

    Raises:
        DataError: another training holds the lock, or might hold it on another machine.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a+") as file:
        try:
            _lock(file)
        except BlockingIOError:
            raise _at_work(folder / LOCK) from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            logger.info(
                "the file system of %s does not support locks (%s): a lock file is used instead", folder, error.strerror
            )
            lock = Lock(_claim(folder), ())
        else:
            file.truncate(0)
            lock = Lock(folder / LOCK, (file.fileno(),))
            lock.share(os.getpid())
        try:
            yield lock
        finally:
            lock.path.write_text(RELEASED)


def _lock(file: IO[str]) -> None:
    """Lock a file. If it is locked, try once more, because :func:`is_locked` holds the lock for an instant."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        time.sleep(LOOK)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_locked(folder: Path) -> bool:
    """Return whether a training runs in a folder, or might run on another machine."""
    try:
        with training_lock(folder):
            return False
    except DataError:
        return True


def _claim(folder: Path) -> Path:
    """Create the file that represents a lock: the successor of one that was released or whose processes have ended.

    Files are numbered. The one with the highest number decides, and no other process removes or renames it. Of all
    processes that see the same file, one can create its successor.

    Raises:
        DataError: the lock is held.
    """
    for _ in range(TRIES):
        latest = max(_numbers(folder), default=0)
        if latest and not _is_free(_held(folder, latest)):
            raise _at_work(_held(folder, latest))
        path = _held(folder, latest + 1)
        try:
            with path.open("x") as file:
                file.write(f"{ProcessIdentity.of(os.getpid())}\n")
        except FileExistsError:
            continue
        if max(_numbers(folder)) == latest + 1:
            for number in _numbers(folder) - {latest + 1}:
                _held(folder, number).unlink(missing_ok=True)
            return path
        path.unlink()  # this process was slow: the number had been used before
    raise _at_work(path)


def _held(folder: Path, number: int) -> Path:
    return folder / f"{HELD}.{number}"


def _numbers(folder: Path) -> set[int]:
    """Return the numbers of the files in a folder that represent a lock."""
    return {int(path.suffix[1:]) for path in folder.glob(f"{HELD}.*") if path.suffix[1:].isdecimal()}


def _is_free(path: Path) -> bool:
    """Return whether a lock was released, or all its processes have ended. An empty file is about to be written."""
    text = _read(path)
    holders = _holders(text)
    return text == RELEASED or (bool(holders) and all(holder.has_ended for holder in holders))


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:  # another process replaced the lock by a successor
        return RELEASED


def _holders(text: str) -> list[ProcessIdentity]:
    """Return the processes that the text of a lock file lists; none if the text is incomplete."""
    try:
        return [ProcessIdentity.parse(line) for line in text.splitlines()]
    except ValueError:
        return []


def _at_work(path: Path) -> DataError:
    """Return the error for a lock that another training holds; it names the processes in the lock file ``path``."""
    remedy = "wait for it or stop it (a training whose Snakemake process was killed saves its state and ends)"
    if path.name != LOCK:
        remedy = f"wait for it or stop it; if the process does not exist any more, delete {path}"
    holders = [f"process {holder.number} on {holder.host}" for holder in _holders(_read(path)) if not holder.has_ended]
    try:
        since = datetime.fromtimestamp(path.stat().st_mtime, UTC).strftime(" since %Y-%m-%d %H:%M UTC")
    except FileNotFoundError:
        since = ""
    found = ", ".join(holders) + since if holders else None
    return DataError("another training is running in this folder", file=path.parent, found=found, remedy=remedy)
