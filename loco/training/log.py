"""The log of a training while it runs: a CSV file in the folder of its state that grows by one line per step."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loco.errors import DataError
from loco.storage.reading import reading
from loco.storage.training_log import LOG_COLUMNS


class LiveLog:
    """A log that is written line by line, each with one system call, so that a reader finds only complete lines.

    A saved state contains the position in the log (:meth:`mark`) instead of its content; a training that resumes cuts
    the log at this position (:meth:`cut`). A line that was not written completely, because the disk was full or the
    machine failed, has no line end; it is neither read nor kept.

    Attributes:
        path: path of the file, which is created with the first line.
        position: number of bytes of all lines so far.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.position = path, 0
        self._descriptor: int | None = None

    def append(self, entry: Mapping[str, Any]) -> None:
        """Write one line.

        Args:
            entry: values of the columns :data:`loco.storage.training_log.LOG_COLUMNS`; a column is empty if its value
                is missing or not a number.

        Raises:
            DataError: the line cannot be written.
        """
        line = ",".join(_text(entry.get(column)) for column in LOG_COLUMNS) + "\n"
        if self.position == 0:
            line = ",".join(LOG_COLUMNS) + "\n" + line
        data = line.encode()
        try:
            if self._descriptor is None:
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | (os.O_TRUNC if self.position == 0 else 0)
                self._descriptor = os.open(self.path, flags, 0o666)
            written = os.write(self._descriptor, data)
        except OSError as error:
            raise self._unwritten(error.strerror) from error
        if written < len(data):
            raise self._unwritten("no space left on the device")
        self.position += written

    def mark(self) -> int:
        """Write all lines to the disk and return the position: a saved state must not be ahead of its log."""
        if self._descriptor is not None:
            os.fsync(self._descriptor)
        return self.position

    def cut(self, position: int, step: int) -> None:
        """Remove the lines after ``position``: those of steps that were taken after the state was saved.

        Args:
            position: position that :meth:`mark` returned when the state was saved.
            step: number of the last step of the state.

        Raises:
            DataError: the log is missing, or its line before ``position`` is not that of ``step``, so it is not the log
                of this state.
        """
        with reading(self.path):
            content = self.path.read_bytes()[:position] if position else b""
        lines = content.splitlines()
        if len(content) < position or (position and not lines[-1].startswith(b"%d," % step)):
            raise DataError(
                "the log does not belong to the saved state in the same folder",
                file=self.path,
                expected=f"{position} bytes up to the row of step {step}",
                found=f"{len(content)} bytes" + (f", with the last row {lines[-1][:40]!r}" if lines else ""),
                remedy="restore the file, or delete its folder to train from the beginning",
            )
        self.close()
        if position:
            os.truncate(self.path, position)
        self.position = position

    def content(self) -> bytes:
        """Return all lines so far, with the header.

        Raises:
            DataError: the file cannot be read.
        """
        with reading(self.path):
            return self.path.read_bytes()[: self.position]

    def close(self) -> None:
        """Close the file; the next line opens it again."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _unwritten(self, reason: str) -> DataError:
        remedy = "free disk space and run the workflow again: the training continues from its last saved state"
        return DataError(f"the log of the training cannot be written: {reason}", file=self.path, remedy=remedy)


def read_log(path: Path) -> list[dict[str, float]]:
    """Return the complete lines of a log, which may be that of a running training.

    Returns:
        One dictionary per step, with the columns that have a value. An empty list if there is no log yet.

    Raises:
        DataError: the file cannot be read, or is not the log of a training.
    """
    if not path.is_file():
        return []
    with reading(path):
        text = path.read_bytes().rpartition(b"\n")[0].decode()
    try:
        return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(text.splitlines())]
    except (TypeError, ValueError) as error:
        raise DataError(
            "the file is not the log of a training",
            file=path,
            expected=f"CSV with numbers in the columns {', '.join(LOG_COLUMNS)}",
            found=str(error),
            remedy="restore the file, or delete its folder to train from the beginning",
        ) from error


def _text(value: Any) -> str:
    """Return a value as in CSV: the shortest decimal number that is read as the same value."""
    if value is None or math.isnan(value):
        return ""
    return str(value) if isinstance(value, int) else repr(float(value))
