"""Read the files of a download in place, from a zip or the folder that it was unpacked to.

Nothing is unpacked, so no member can be written outside a target folder; members with such paths are refused anyway.
"""

from __future__ import annotations

import errno
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from loco.datasets.files import LARGEST_JSON, RESTORE, read_bytes, system_error
from loco.errors import DataError
from loco.files import is_data

# Largest size in bytes of a file of each kind, many times that of any file of these datasets. It is limited because a
# member of 1 GB may take only 1 MB in a zip.
LARGEST = {".jpg": 1 << 27, ".png": 1 << 27, ".json": LARGEST_JSON, ".ply": 1 << 29}
LARGEST_OTHER = 1 << 27
LARGEST_RATIO = 200  # largest compression ratio of a member and of all members; text and meshes reach about 10
RATIO_FROM = 1 << 27  # size in bytes of a member, or of all members, above which the ratio is checked
BLOCK = 1 << 20  # bytes that are read at once


class Archive:
    """Files by their path in a zip, read from the zip or, if it is missing, from the folder that it was unpacked to.

    Files that are not data (:func:`loco.files.is_data`) are ignored and never read.
    """

    def __init__(self, path: Path, unpacked: Path, prefix: str, scene: str) -> None:
        """
        Args:
            path: the zip.
            unpacked: the folder to read if there is no zip.
            prefix: prefix of the paths in the zip that the paths in the folder lack.
            scene: name of the scene, for errors.

        Raises:
            FileNotFoundError: neither the zip nor the folder exists.
            DataError: the zip is broken or unreadable, or contains members that are unsafe or too large.
        """
        self.scene, self._prefix = scene, prefix
        self._zip: zipfile.ZipFile | None = None
        if os.path.isfile(path):
            self.path = path
            self._zip = self._open(path)
            self.sizes = {m.filename: m.file_size for m in self._zip.infolist() if not m.filename.endswith("/")}
        elif os.path.isdir(unpacked):
            self.path = unpacked
            self.sizes = {f"{prefix}{name}": size for name, size in _files_in(unpacked)}
        else:
            os.stat(path)  # raises the error of the system, such as a missing permission
            raise DataError("the file is not a zip archive", file=path, scene=scene, remedy=RESTORE)
        self._refuse_unsafe()
        self._refuse_bombs()

    def _open(self, path: Path) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(path)
        except OSError as error:
            if _of_system(error):
                raise system_error(error, path, self.scene) from error
            raise self._broken_zip(path, error) from error
        # A broken central directory of a zip raises errors of many kinds.
        except Exception as error:
            raise self._broken_zip(path, error) from error

    def _broken_zip(self, path: Path, error: Exception) -> DataError:
        return DataError(
            f"the file is truncated or not a zip archive ({error}; {os.path.getsize(path)} bytes)",
            file=path,
            scene=self.scene,
            remedy=RESTORE,
        )

    def _refuse_unsafe(self) -> None:
        """Refuse members that no archive of data contains, and remove members that are not data."""
        for name, size in list(self.sizes.items()):
            parts = PurePosixPath(name.replace("\\", "/"))
            if not parts.parts:
                problem = f"the archive contains a member without a name: {name!r}"
            elif parts.is_absolute() or ".." in parts.parts or ":" in parts.parts[0]:
                problem = f"the archive contains a member whose path leaves the folder: {name!r}"
            elif not is_data(name):
                del self.sizes[name]
                continue
            elif size > _limit(name):
                problem = (
                    f"the archive contains a member of {size} bytes, larger than any file of this dataset: {name!r}"
                )
            else:
                continue
            self._refuse(problem)

    def _refuse_bombs(self) -> None:
        if self._zip is None:
            return
        for name, size in self.sizes.items():
            if size > max(RATIO_FROM, LARGEST_RATIO * self._zip.getinfo(name).compress_size):
                self._refuse(
                    f"the archive contains a member of {size} bytes, more than {LARGEST_RATIO} times its compressed "
                    f"size: {name!r}"
                )
        total = sum(self.sizes.values())
        if total > max(RATIO_FROM, LARGEST_RATIO * os.path.getsize(self.path)):
            self._refuse(f"the archive unpacks to {total} bytes, more than {LARGEST_RATIO} times its size")

    def _refuse(self, problem: str) -> None:
        raise DataError(
            problem, file=self.path, scene=self.scene, remedy="do not unpack it; download it again from the source"
        )

    def __contains__(self, name: str) -> bool:
        return name in self.sizes

    def read(self, name: str) -> bytes | bytearray:
        """Return the bytes of one member.

        Raises:
            DataError: the member is missing, unreadable, or its checksum does not match.
        """
        if name not in self.sizes:
            raise DataError(f"the archive does not contain {name!r}", file=self.path, scene=self.scene, remedy=RESTORE)
        if self._zip is None:
            return read_bytes(self.path / name.removeprefix(self._prefix), self.scene, limit=_limit(name))
        content = bytearray(self.sizes[name])  # filled in place, because joining blocks would double the memory
        end = 0
        for block in self._blocks(name):
            content[end : end + len(block)] = block
            end += len(block)
        del content[end:]
        return content

    def broken_members(self) -> list[DataError]:
        """Return the errors of members that cannot be read or whose checksum fails; none for a folder."""
        broken = []
        if self._zip is not None:
            for name in self.sizes:
                try:
                    for _ in self._blocks(name):
                        pass
                except DataError as error:
                    broken.append(error)
        return broken

    def _blocks(self, name: str) -> Iterator[bytes]:
        """Yield the bytes of a member of the zip in blocks, at most as many as the zip states."""
        try:
            with self._zip.open(name) as member:
                while block := member.read(BLOCK):
                    yield block
        except OSError as error:
            if _of_system(error):
                raise system_error(error, self.path, self.scene) from error
            raise self._broken_member(name, error) from error
        # Decoders raise errors of many kinds for broken data.
        except Exception as error:
            raise self._broken_member(name, error) from error

    def _broken_member(self, name: str, error: Exception) -> DataError:
        problem = f"member {name!r} cannot be read: {error or type(error).__name__}"
        return DataError(problem, file=self.path, scene=self.scene, remedy=RESTORE)


def _files_in(folder: Path) -> Iterator[tuple[str, int]]:
    """Yield relative paths and sizes of the data files in ``folder`` and its subfolders, sorted."""

    def refuse(error: OSError) -> None:
        raise error

    for parent, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = sorted(filter(is_data, folders))
        for name in sorted(filter(is_data, names)):
            file = Path(parent, name)
            yield file.relative_to(folder).as_posix(), os.stat(file).st_size


def _limit(name: str) -> int:
    return LARGEST.get(PurePosixPath(name).suffix.lower(), LARGEST_OTHER)


def _of_system(error: OSError) -> bool:
    """Return whether the system refused to read: decoders raise OSError without errno, invalid offsets with EINVAL."""
    return error.errno not in (None, errno.EINVAL)
