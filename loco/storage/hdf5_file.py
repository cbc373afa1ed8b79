"""A file object for HDF5 that records failed writes.

libhdf5 reports some failed writes only when an object is destroyed, where Python cannot raise, and crashes on later
writes. This file records the first failure and reports success to libhdf5, so that libhdf5 can close the file properly;
the writer calls :meth:`CheckedFile.require_written` after each of its writes.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any


class CheckedFile(io.RawIOBase):
    """A new binary file, read and written at any position. ``failure`` is the first error of a write, or None."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
        self._position = 0
        self.failure: BaseException | None = None

    def require_written(self) -> None:
        """Raise the error of the first write that failed, if any.

        Raises:
            OSError: the system refused a write.
            BaseException: a write was interrupted, for example by a request to stop.
        """
        if isinstance(self.failure, OSError):
            raise OSError(self.failure.errno, f"a write failed: {self.failure.strerror}")
        if self.failure is not None:
            raise self.failure

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: os.fstat(self._descriptor).st_size}[whence]
        self._position = start + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        count = os.preadv(self._descriptor, [buffer], self._position)
        self._position += count
        return count

    def write(self, data: Any) -> int:
        data = memoryview(data)
        done = 0
        while done < len(data) and self.failure is None:
            try:
                done += os.pwrite(self._descriptor, data[done:], self._position + done)
            except BaseException as error:  # also SystemExit, raised by a request to stop
                self.failure = error
        self._position += len(data)
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        size = self._position if size is None else size
        try:
            os.ftruncate(self._descriptor, size)
        except OSError as error:
            self.failure = self.failure or error
        return size

    def close(self) -> None:
        if not self.closed:
            os.close(self._descriptor)
        super().close()
