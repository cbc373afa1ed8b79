"""Read the files of a download in place: a zip, or the folder that it was unpacked to.

Nothing is unpacked, so no member can leave a target folder; members that would are refused all the same.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path, PurePosixPath

from loco.errors import DataError

# No single file of these datasets comes near this size; a member that claims more is not read.
LARGEST_MEMBER = 4 << 30


class Archive:
    """Files by their path in a zip; from the zip or, where there is none, from the folder that it was unpacked to."""

    def __init__(self, path: Path, unpacked: Path, prefix: str, scene: str) -> None:
        """
        Args:
            path: the zip.
            unpacked: the folder to look at where there is no zip.
            prefix: what the paths of the zip begin with, and those in the folder lack.
            scene: named in errors.

        Raises:
            DataError: neither is there, or the zip is broken or holds unsafe members.
        """
        self.scene, self._prefix = scene, prefix
        self._zip: zipfile.ZipFile | None = None
        if path.is_file():
            self.path = path
            self._zip = self._open(path)
            self.sizes = {m.filename: m.file_size for m in self._zip.infolist() if not m.is_dir()}
        elif unpacked.is_dir():
            self.path = unpacked
            files = [file for file in sorted(unpacked.rglob("*")) if file.is_file()]
            self.sizes = {f"{prefix}{file.relative_to(unpacked).as_posix()}": file.stat().st_size for file in files}
        else:
            raise DataError("is missing", file=path, scene=scene)
        self._refuse_unsafe()

    def _open(self, path: Path) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(path)
        except zipfile.BadZipFile as error:
            raise DataError(
                f"is not a whole zip ({error}; {path.stat().st_size} bytes): truncated, or not a zip at all",
                file=path,
                scene=self.scene,
                remedy="download it again",
            ) from error

    def _refuse_unsafe(self) -> None:
        for name, size in self.sizes.items():
            parts = PurePosixPath(name.replace("\\", "/"))
            if parts.is_absolute() or ".." in parts.parts or ":" in parts.parts[0]:
                problem = f"holds a member whose path leaves the folder: {name!r}"
            elif size > LARGEST_MEMBER:
                problem = f"holds a member of {size} bytes, more than any file of this dataset: {name!r}"
            else:
                continue
            raise DataError(
                problem, file=self.path, scene=self.scene, remedy="do not unpack it; download it again from the source"
            )

    def __contains__(self, name: str) -> bool:
        return name in self.sizes

    def read(self, name: str) -> bytes:
        """Bytes of one member.

        Raises:
            DataError: the member is missing, or its checksum does not match.
        """
        if name not in self.sizes:
            raise DataError(f"holds no file {name!r}", file=self.path, scene=self.scene, remedy="download it again")
        if self._zip is None:
            return (self.path / name.removeprefix(self._prefix)).read_bytes()
        try:
            return self._zip.read(name)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
            raise DataError(
                f"member {name!r} cannot be read: {error}", file=self.path, scene=self.scene, remedy="download it again"
            ) from error

    def broken_members(self) -> list[str]:
        """Members whose checksum fails, one line each. A folder has no checksums: always empty."""
        broken = []
        if self._zip is not None:
            for name in self.sizes:
                try:
                    self.read(name)
                except DataError as error:
                    broken.append(error.problem)
        return broken
