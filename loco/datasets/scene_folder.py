"""What layouts share whose scenes are folders of named files, without labels and sparse models."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from loco.datasets.checklist import Checklist
from loco.datasets.raw import Decode
from loco.errors import DataError


class SceneFolder:
    """A scene in a folder of its own (:class:`loco.datasets.raw.RawScene`)."""

    format: ClassVar[str]
    needed: ClassVar[tuple[str, ...]]  # files and folders
    optional: ClassVar[tuple[str, ...]] = ()
    remedy: ClassVar[str]  # where the files come from

    def __init__(self, raw: Path, scene: str) -> None:
        """Raises DataError if a needed file is missing."""
        self.scene, self.folder = scene, raw / scene
        for name in self.missing(self.folder):
            raise self.is_missing(self.folder / name, scene)

    @classmethod
    def missing(cls, folder: Path) -> list[str]:
        """Names of the needed files that are not there."""
        return [name for name in cls.needed if not (folder / name).exists()]

    @classmethod
    def is_missing(cls, file: Path, scene: str) -> DataError:
        """The error to raise where this file is."""
        return DataError(f"{file.name} is missing", file=file, scene=scene, remedy=cls.remedy)

    @classmethod
    def files(cls, raw: Path, scene: str) -> list[Path]:
        return [raw / scene / name for name in (*cls.needed, *cls.optional)]

    @classmethod
    def checklist(cls, raw: Path, scene: str, decode: Decode) -> tuple[Checklist, list[str]]:
        """The list of a check, begun with the needed files that are missing, and their names."""
        found, missing = Checklist(cls.format, scene, decode), cls.missing(raw / scene)
        for name in missing:
            found.problems.append(str(cls.is_missing(raw / scene / name, scene)))
        return found, missing

    def labelled_mesh(self) -> None:
        return None

    def tracks(self) -> None:
        return None
