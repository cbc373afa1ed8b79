"""Identify the process that wrote a file, and report whether it still runs."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True)
class ProcessIdentity:
    """A process on some machine.

    Attributes:
        host: name of the machine.
        number: process id.
        started: start time in clock ticks since the machine booted, because process ids are reused; 0 if it is unknown
            (there is no /proc).
    """

    host: str
    number: int
    started: int

    @classmethod
    def of(cls, number: int) -> Self:
        """Return the identity of the process with this id on this machine."""
        return cls(socket.gethostname(), number, start_time(number) or 0)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse the result of ``str()``.

        Raises:
            ValueError: the text has another form.
        """
        host, number, started = text.split()
        return cls(host, int(number), int(started))

    def __str__(self) -> str:
        return f"{self.host} {self.number} {self.started}"

    @property
    def is_local(self) -> bool:
        """Return whether it is a process of this machine, so that :attr:`has_ended` is known."""
        return self.host == socket.gethostname()

    @property
    def has_ended(self) -> bool:
        """Return whether the process is known to have ended; False for processes of other machines."""
        return self.is_local and start_time(self.number) != self.started


def start_time(number: int) -> int | None:
    """Return the start time of a process of this machine, in clock ticks since boot; None if there is no such process.

    Without /proc (macOS), the result is 0 for every running process.
    """
    try:
        # The fields follow the name of the program, which is in brackets and may contain any character.
        return int(Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return None if Path("/proc/self").exists() else _start_without_proc(number)


def _start_without_proc(number: int) -> int | None:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass  # of another user
    return 0
