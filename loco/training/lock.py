"""One training at a time in a folder, also on file systems without locks."""

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

from loco.errors import DataError
from loco.process_identity import ProcessIdentity

LOCK, HELD = ".lock", ".lock.held"  # in the folder: locked by the system; exists while a training runs
# What flock answers where a file system has no locks: NFS without lockd, some FUSE file systems.
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}
WAIT, TRIES = 0.2, 10  # seconds between two looks at a file that another process is writing or removing

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Lock:
    """A lock that this process holds.

    Attributes:
        path: file that lists the processes that hold it.
        descriptors: to be inherited by child processes that hold the lock, too.
    """

    path: Path
    descriptors: tuple[int, ...]

    def share(self, process: int) -> None:
        """Let a child process, which inherited ``descriptors``, hold the lock as well: it may outlive this process."""
        with self.path.open("a") as file:
            file.write(f"{ProcessIdentity.of(process)}\n")


@contextmanager
def training_lock(folder: Path) -> Iterator[Lock]:
    """Hold the lock of a training's folder, which is created if missing.

    The lock is one of the system (flock). Where the file system has none, it is a file that exists while the training
    runs and lists its processes. If all of them have ended, the next training on the same machine replaces that file.

    Raises:
        DataError: another training holds the lock, or might hold it on another machine.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _at_work(folder / LOCK) from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            logger.info("the file system of %s has no locks (%s): %s is used instead", folder, error.strerror, HELD)
            lock = Lock(folder / HELD, ())
        else:
            file.truncate(0)
            lock = Lock(folder / LOCK, (file.fileno(),))
        if not lock.descriptors:
            _create(lock.path)
        lock.share(os.getpid())
        try:
            yield lock
        finally:
            if lock.descriptors:
                file.truncate(0)
            else:
                lock.path.unlink(missing_ok=True)


def is_locked(folder: Path) -> bool:
    """Return whether a training runs in a folder, or might run on another machine."""
    try:
        with training_lock(folder):
            return False
    except DataError:
        return True


def _create(path: Path) -> None:
    """Create the file that stands for a lock, in place of one whose processes have ended."""
    for _ in range(TRIES):
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            return
        except FileExistsError:
            found = _read(path)
        holders = _holders(found)
        if any(not holder.has_ended for holder in holders):
            break
        if holders:
            _remove(path, found)
        else:  # its process is about to write it, or to remove it
            time.sleep(WAIT)
    raise _at_work(path)


def _remove(path: Path, stale: str) -> None:
    """Remove a stale file, unless another process has replaced it since it was read."""
    aside = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return
    if aside.read_text() == stale:
        aside.unlink()
    else:
        aside.rename(path)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def _holders(text: str) -> list[ProcessIdentity]:
    """The processes that a file lists; none if it is not complete."""
    try:
        return [ProcessIdentity.parse(line) for line in text.splitlines()]
    except ValueError:
        return []


def _at_work(path: Path) -> DataError:
    remedy = "wait for it, or stop it (a training whose Snakemake was killed saves its state and ends by itself)"
    if path.name == HELD:
        remedy = f"wait for it, or stop it; if no such process runs any more, delete {path}"
    holders = [f"process {holder.number} on {holder.host}" for holder in _holders(_read(path)) if not holder.has_ended]
    try:
        since = datetime.fromtimestamp(path.stat().st_mtime, UTC).strftime(" since %Y-%m-%d %H:%M UTC")
    except FileNotFoundError:
        since = ""
    found = ", ".join(holders) + since if holders else None
    return DataError("another training is at work in this folder", file=path.parent, found=found, remedy=remedy)
