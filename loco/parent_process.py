"""End a job when the Snakemake process that started it ends, because the next run may have other settings."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from pathlib import Path

from loco.errors import LocoError

SHELLS = {"sh", "bash", "dash", "zsh", "ksh"}
INTERVAL, GRACE = 0.5, 60.0  # seconds between two checks, and from SIGTERM to SIGKILL
_watched: list[tuple[int, int]] = []  # (process, parent) pairs from this process up to the one that started the job

logger = logging.getLogger(__name__)


class OrphanedError(LocoError):
    """The process that started this job has ended."""


def watch_parent() -> None:
    """Stop this process when the one that started it ends: by SIGTERM, and by SIGKILL if it has not stopped in time.

    Snakemake starts a job through a shell, so the shells above this process are watched, too.
    """
    if _watched:
        return
    process = os.getpid()
    while True:
        parent = _parent_of(process)
        if parent is None or parent <= 1:  # no /proc, or started by init (as in a container)
            break
        _watched.append((process, parent))
        if _name_of(parent) not in SHELLS:
            break
        process = parent
    if _watched:
        threading.Thread(target=_watch, name="watch-parent", daemon=True).start()


def require_parent() -> None:
    """Check that the process that started this job still runs; do nothing if no parent is watched.

    Raises:
        OrphanedError: it has ended.
    """
    if not all(_parent_of(process) == parent for process, parent in _watched):
        raise OrphanedError(
            "the Snakemake process that started this job has ended, so the job stops without writing its output\n"
            "  what to do: run Snakemake again (after `snakemake --unlock`, if it reports that the folder is locked)"
        )


def _watch() -> None:
    while True:
        time.sleep(INTERVAL)
        try:
            require_parent()
        except OrphanedError as error:
            logger.error("%s", error)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(GRACE)
            os.kill(os.getpid(), signal.SIGKILL)


def _parent_of(process: int) -> int | None:
    """Return the parent of a process; None if the process has ended."""
    if process == os.getpid():
        return os.getppid()
    try:
        # State and parent follow the name of the program, which is in brackets and may contain any character.
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return None


def _name_of(process: int) -> str:
    try:
        return Path(f"/proc/{process}/comm").read_text().strip()
    except OSError:
        return ""
