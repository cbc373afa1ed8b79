"""A bounded cache of open scene files, so that a split of any number of scenes needs few file descriptors."""

from __future__ import annotations

import os
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from loco.errors import DataError
from loco.storage.scene_file import Frames, SceneFile

CAPACITY = 64  # files per process, well below the usual limit of 1,024 descriptors (256 on macOS)

File = TypeVar("File", bound=SceneFile)


class OpenFiles:
    """A least-recently-used cache of open scene files.

    A file that is evicted is closed when the last reference to it is released, so a caller can continue to use it. To
    bound the number of descriptors, callers call :meth:`get` for each use and do not hold references to the files (or
    datasets in them) of many scenes.

    HDF5 files must not be shared by processes: a forked process closes the files of its parent on its first access and
    opens its own. Not thread-safe.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        """
        Args:
            capacity: largest number of files that the cache keeps open.
        """
        self.capacity = capacity
        self._files: OrderedDict[tuple[type[SceneFile], Path], tuple[tuple[int, ...], SceneFile]] = OrderedDict()
        self._process = os.getpid()

    def __len__(self) -> int:
        return len(self._files)

    def get(self, kind: type[File], path: str | Path) -> File:
        """Return an open file, opening it if necessary.

        A file that has been replaced since it was opened is reopened.

        Args:
            kind: class of the file.
            path: its path.

        Raises:
            DataError: the file is missing or is not a valid file of this kind.
        """
        if self._process != os.getpid():
            self.close()
            self._process = os.getpid()
        key = (kind, Path(path))
        version, file = self._files.pop(key, (None, None))
        current = _version(key[1])
        if not isinstance(file, kind) or version != current:
            file = None  # closes the file of the old version before the new one is opened
            while len(self._files) >= self.capacity:
                self._files.popitem(last=False)
            file = kind(key[1])
        self._files[key] = (current, file)
        return file

    def close(self) -> None:
        """Close all files."""
        while self._files:
            self._files.popitem()[1][1].close()


def _version(path: Path) -> tuple[int, ...]:
    """Return numbers that change when a file is replaced; empty if it is missing, which opening it reports."""
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


OPEN_FILES = OpenFiles()  # one cache per process, because descriptors are limited per process


@dataclass(frozen=True)
class LazyFiles:
    """The files of a scene, which are opened on access, through the cache :data:`OPEN_FILES`.

    Objects for any number of scenes can exist at once. Access the property for each use, and do not store the file.
    Subclasses add the paths of further files and properties that open them.

    Raises:
        DataError: on access, if a file is missing or invalid, describes different frames, or has been replaced by one
            with different content since its first access.
    """

    frames_path: Path

    @property
    def frames(self) -> Frames:
        return self.opened(Frames, self.frames_path)

    def opened(self, kind: type[File], path: Path) -> File:
        """Return an open file of the scene."""
        file = OPEN_FILES.get(kind, path)
        first = self._content_ids.get(path)
        if first is None:
            if path != self.frames_path:
                file.require_frames(self.frames)
            self._content_ids[path] = file.content_id
        elif first != file.content_id:
            raise DataError(
                "the file was replaced while it was in use",
                file=path,
                scene=file.scene,
                expected=f"content {first[:12]}",
                found=f"content {file.content_id[:12]}",
                remedy="run the workflow again without changing files while it runs",
            )
        return file

    @cached_property
    def _content_ids(self) -> dict[Path, str]:
        """Return the content ids of the files that have been opened so far."""
        return {}
